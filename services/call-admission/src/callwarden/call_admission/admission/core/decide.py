"""One decision: a snapshot and a request in, a verdict with every rule's part in it out.

In: the order of rules, modes, from findings to verdict. Out: the rules (rules/), the slices (slices), what a verdict
changes (transaction).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from callwarden.call_admission.admission.core.rules import RULES, AdmissionRule, Question
from callwarden.call_admission.admission.core.rules.rule import ShardDemand
from callwarden.call_admission.admission.core.slices import (
    FREE_LEASE_S,
    SliceBounds,
    TalkSlice,
    cut_to_size,
    possible_answers,
    talk_within_maximum,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.calls import CallRequest, ExtendRequest, Hold, Quote, Route, is_free
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.tariff import Price, free
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult


@lru_cache(256)  # ISO 4217 has 180 currencies.
def _free(currency: str) -> Price:
    return free(currency)


@dataclass(slots=True)
class Admit:
    """The call may go on: `granted_s` seconds from the answer are paid for by `held_micros`."""

    granted_s: int
    held_micros: int
    final: bool
    max_duration_s: int
    price: Price


@dataclass(slots=True)
class Evaluation:
    """The verdict, and every rule's result in the table's order."""

    verdict: Admit | Refuse
    rules: tuple[RuleResult, ...]
    routes: tuple[Route, ...] = ()
    """What the rules have left of the quote's."""
    bounded: tuple[ShardDemand, ...] = ()
    """Limits of which a shard was short, or that have cut the slice: with room from other shards it may be more."""
    warnings: tuple[Refuse, ...] = ()
    """Notices about a call that may go on."""
    cut_by: str = ""
    """The rule that has left less talk time than a whole slice; empty: none, or there is no talk time at all."""

    @property
    def reported(self) -> list[str]:
        """The rules that would have refused, had they been enforced."""
        return [result.rule for result in self.rules if result.refused is not None and result.mode is Mode.REPORT]

    def hits(self, policy: AdmissionPolicy) -> tuple[str, ...]:
        """The rules that have shortened the call, or would have refused it if they were enforced."""
        reported = tuple(self.reported) if policy.reports else ()
        return (self.cut_by, *reported) if self.cut_by else reported


def price_of(snapshot: Snapshot) -> Price | None:
    """What the call is charged by; None where rating gave nothing."""
    quote = snapshot.quote
    if quote is None:
        return _free(snapshot.account.currency)
    return quote.price if isinstance(quote, Quote) else None


def decide(
    snapshot: Snapshot, request: CallRequest, policy: AdmissionPolicy, rules: Sequence[AdmissionRule] = RULES
) -> Evaluation:
    """May this call be placed, and for how long at first? Pure; every rule is asked, even after one has refused."""
    price = price_of(snapshot)
    answers = (request.start_s,) if price is None else possible_answers(price, request.start_s, policy.setup_s_max)
    quote = snapshot.quote
    free_call = quote is None or (isinstance(quote, Quote) and quote.is_free)
    least_s = policy.slice.minimum_s
    wanted_s = FREE_LEASE_S if free_call else max(_slice_s(policy.slice.first_s, snapshot, policy), least_s)
    question = Question(request.destination, request.local, price, free_call, answers, least_s, wanted_s)
    routes = quote.routes if isinstance(quote, Quote) else ()
    asked = _ask(snapshot, question, policy, _plan(policy, rules, extends=False), routes)
    if asked.refusal is not None or price is None:
        return Evaluation(asked.refusal or _unpriced(), asked.results, (), asked.bounded, asked.warnings)
    bounds = asked.bounds
    if price.cuts_at_maximum and price.maximum_micros is not None:
        talk_s = talk_within_maximum(price, price.maximum_micros, answers, bounds.talk_s_max)
        if not talk_s:
            return Evaluation(_too_dear(price.maximum_micros), asked.results, (), asked.bounded, asked.warnings)
        if talk_s < bounds.talk_s_max:
            bounds.talk_s_max, asked.talk_rule = talk_s, _MAXIMUM
    part = cut_to_size(price, answers, 0, wanted_s, bounds)
    assert part is not None, "the rules have each found room for the least talk time"
    admit = Admit(part.granted_s, part.held_micros, part.final, bounds.talk_s_max, price)
    return Evaluation(
        admit, asked.results, asked.routes, asked.bounded, asked.warnings, _cut_by(part, wanted_s, asked)
    )  # fmt: skip


def decide_extension(snapshot: Snapshot, hold: Hold, request: ExtendRequest, policy: AdmissionPolicy) -> Evaluation:
    """May this running call go on? `snapshot` is without what the call itself holds and counts.

    Granted are seconds in total. Only the rules that extend are asked; the call's own longest duration, fixed at its
    admission, bounds it in addition.
    """
    answered_at_s = request.answered_at_s if hold.answered_at_s is None else hold.answered_at_s
    answers = (answered_at_s,)
    price = hold.price
    free_call = is_free(price)
    wanted_s = hold.granted_s + (FREE_LEASE_S if free_call else _slice_s(policy.slice.next_s, snapshot, policy))
    question = Question("", False, price, free_call, answers, hold.granted_s + 1, wanted_s, hold.marks)
    asked = _ask(snapshot, question, policy, _plan(policy, RULES, extends=True), ())
    results, bounds = asked.results, asked.bounds
    if asked.refusal is not None:
        return Evaluation(asked.refusal, results, (), asked.bounded, asked.warnings)
    if hold.max_duration_s <= bounds.talk_s_max:
        bounds.talk_s_max, asked.talk_rule = hold.max_duration_s, _DURATION
    part = cut_to_size(price, answers, hold.granted_s, wanted_s, bounds)
    if part is None:
        return Evaluation(
            Refuse(
                Reason.DURATION, _DURATION, "seconds", hold.granted_s, hold.max_duration_s, "call",
                f"The call has had the {hold.max_duration_s} s that one may last.",
            ),
            results,
        )  # fmt: skip
    # What was held for a dearer moment of answer stays held: it is settled by what the call really costs.
    held_micros = max(part.held_micros, hold.held_micros)
    admit = Admit(part.granted_s, held_micros, part.final, hold.max_duration_s, price)
    return Evaluation(admit, results, (), asked.bounded, asked.warnings, _cut_by(part, wanted_s, asked))


def _slice_s(usual_s: int, snapshot: Snapshot, policy: AdmissionPolicy) -> int:
    """Slices are shorter where little credit is left, so that several calls can share it."""
    low_below = policy.slice.low_below_micros
    if low_below is None or not snapshot.account.prepaid or snapshot.available_micros >= low_below:
        return usual_s
    return min(usual_s, policy.slice.low_s)


# Looked up once: an Enum's attribute costs 0.1 µs, and there are thirty rules.
_MODE_ENFORCE: Final = Mode.ENFORCE
_MODE_OFF: Final = Mode.OFF
_DURATION: Final = "duration"
"""The rule whose bound is the policy's and the hold's longest talk time."""
_MAXIMUM: Final = "maximum"
"""The price list's bound: a maximum price that cuts."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The rules that have something to say under one policy, and the fixed results of the others."""

    rules: Sequence[AdmissionRule]
    results: tuple[RuleResult, ...]
    asked: tuple[tuple[int, AdmissionRule, Mode], ...]


def _plan(policy: AdmissionPolicy, rules: Sequence[AdmissionRule], *, extends: bool) -> _Plan:
    known: _Plan | None = policy.plans.get(extends)
    if known is not None and known.rules is rules:
        return known
    results: list[RuleResult] = []
    asked: list[tuple[int, AdmissionRule, Mode]] = []
    for rule in rules:
        if extends and not rule.extends:
            continue
        mode = policy.modes.get(rule.name, _MODE_ENFORCE)
        why = "off by policy" if mode is _MODE_OFF else rule.idle(policy)
        if not why:
            asked.append((len(results), rule, mode))
        results.append(RuleResult(rule.name, mode, skipped=why))
    plan = policy.plans[extends] = _Plan(rules, tuple(results), tuple(asked))
    return plan


@dataclass(slots=True)
class _Asked:
    """What all rules together say. Made for every decision, so not frozen."""

    results: tuple[RuleResult, ...]
    refusal: Refuse | None
    bounds: SliceBounds
    routes: tuple[Route, ...]
    bounded: tuple[ShardDemand, ...]
    warnings: tuple[Refuse, ...]
    budget_rule: str
    """The rules that set the bounds; empty: none did."""
    talk_rule: str


def _ask(
    snapshot: Snapshot, question: Question, policy: AdmissionPolicy, plan: _Plan, routes: tuple[Route, ...]
) -> _Asked:
    results = list(plan.results)
    refusal: Refuse | None = None
    budget_micros: int | None = None
    talk_s_max = policy.talk_s_max
    budget_rule, talk_rule = "", _DURATION
    bounded: tuple[ShardDemand, ...] = ()
    warnings: tuple[Refuse, ...] = ()
    for index, rule, mode in plan.asked:
        finding = rule.find(snapshot, question, policy, mode)
        result = results[index] = finding.result
        if finding.bounded:
            bounded += finding.bounded
        if finding.warnings:
            warnings += finding.warnings
        if mode is not _MODE_ENFORCE:
            continue
        if result.refused is not None:
            refusal = refusal or result.refused
        if finding.budget_micros is not None and (budget_micros is None or finding.budget_micros < budget_micros):
            budget_micros, budget_rule = finding.budget_micros, rule.name
        if finding.talk_s_max is not None and finding.talk_s_max < talk_s_max:
            talk_s_max, talk_rule = finding.talk_s_max, rule.name
        if finding.routes is not None and refusal is None:
            routes = tuple(route for route in routes if route in finding.routes)
            if not routes:
                refusal = _no_route(rule.name)
                results[index] = RuleResult(rule.name, mode, refusal, result.counter, result.value, result.limit)
    # Whatever the rules' modes, prepaid money that isn't there is never held or charged.
    cap_micros = snapshot.available_micros if snapshot.account.prepaid else None
    bounds = SliceBounds(budget_micros, cap_micros, talk_s_max)
    return _Asked(tuple(results), refusal, bounds, routes, bounded, warnings, budget_rule, talk_rule)


def _cut_by(part: TalkSlice, wanted_s: int, asked: _Asked) -> str:
    if part.granted_s >= wanted_s:
        return ""
    return asked.talk_rule if part.granted_s >= asked.bounds.talk_s_max else asked.budget_rule


def _no_route(rule: str) -> Refuse:
    """Each of several rules has left routes, but none has been left by all."""
    return Refuse(Reason.NO_ROUTE, rule, text="Every route is ruled out, one for this and another for that.")


def _too_dear(maximum_micros: int) -> Refuse:
    return Refuse(
        Reason.DURATION, _MAXIMUM, "price", limit=maximum_micros, window="call",
        text="The first second costs more than the price list lets a call cost.",
    )  # fmt: skip


def _unpriced() -> Refuse:
    return Refuse(Reason.NO_RATE, "rate", text="The call has no price.")


__all__ = ["Admit", "Evaluation", "decide", "decide_extension", "price_of"]
