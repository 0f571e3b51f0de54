"""One decision: a snapshot and a request in, a verdict with every rule's part in it out.

In: the order of rules, modes, from findings to verdict. Out: the rules (rules/), the slices (slices), what a verdict
changes (book).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from callwarden.call_admission.core.calls import CallRequest, ExtendRequest, Hold, Quote, Route, is_free
from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.rules import RULES, Question, Rule
from callwarden.call_admission.core.rules.rule import Bounded, Finding
from callwarden.call_admission.core.slices import (
    FREE_LEASE_S,
    Bounds,
    cut_to_size,
    possible_answers,
)
from callwarden.call_admission.core.snapshot import Snapshot
from callwarden.kernel.tariff import Price, free
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult

_FREE: Final[dict[str, Price]] = {}  # by currency; ISO 4217 has 180


@dataclass(slots=True)
class Admit:
    """The call may go on: `granted_s` seconds from the answer are paid for by `held_micros`."""

    granted_s: int
    held_micros: int
    final: bool
    max_duration_s: int
    price: Price


@dataclass(slots=True)
class Decided:
    """The verdict, and every rule's result in the table's order."""

    verdict: Admit | Refuse
    rules: tuple[RuleResult, ...]
    routes: tuple[Route, ...] = ()
    """What the rules have left of the quote's."""
    bounded: tuple[Bounded, ...] = ()
    """Limits of which a shard was short."""

    @property
    def reported(self) -> list[str]:
        """The rules that would have refused, had they been enforced."""
        return [result.rule for result in self.rules if result.refused is not None and result.mode is Mode.REPORT]


def price_of(snapshot: Snapshot) -> Price | None:
    """What the call is charged by; None where rating gave nothing."""
    quote = snapshot.quote
    if quote is None:
        currency = snapshot.account.currency
        return _FREE.get(currency) or _FREE.setdefault(currency, free(currency))
    return quote.price if isinstance(quote, Quote) else None


def decide(snapshot: Snapshot, request: CallRequest, policy: AdmissionPolicy, rules: Sequence[Rule] = RULES) -> Decided:
    """May this call be placed, and for how long at first? Pure; every rule is asked, even after one has refused."""
    price = price_of(snapshot)
    answers = (request.start_s,) if price is None else possible_answers(price, request.start_s, policy.setup_s_max)
    quote = snapshot.quote
    free_call = quote is None or (isinstance(quote, Quote) and quote.is_free)
    question = Question(request.destination, request.local, price, free_call, answers, policy.slice.minimum_s)
    results, refusal, bounds = _ask(snapshot, question, policy, rules)
    if refusal is not None or price is None:
        return Decided(refusal or _unpriced(), results)
    part = cut_to_size(price, answers, 0, FREE_LEASE_S if free_call else policy.slice.first_s, bounds)
    if part is None:  # the rules have each found room for the least talk time
        raise AssertionError("no talk time within bounds that the rules have let through")
    routes = quote.routes if isinstance(quote, Quote) else ()
    return Decided(Admit(part.granted_s, part.held_micros, part.final, bounds.talk_s_max, price), results, routes)


def decide_extension(
    snapshot: Snapshot, hold: Hold, request: ExtendRequest, policy: AdmissionPolicy, rules: Sequence[Rule] = RULES
) -> Decided:
    """May this running call go on? `snapshot` is without what the call itself holds and counts.

    Granted are seconds in total. Only the rules that extend are asked; the call's own longest duration, fixed at its
    admission, bounds it besides.
    """
    answered_at_s = request.answered_at_s if hold.answered_at_s is None else hold.answered_at_s
    answers = (answered_at_s,)
    price = hold.price
    free_call = is_free(price)
    question = Question("", False, price, free_call, answers, hold.granted_s + 1)
    results, refusal, bounds = _ask(snapshot, question, policy, tuple(rule for rule in rules if rule.extends))
    if refusal is not None:
        return Decided(refusal, results)
    bounds.talk_s_max = min(bounds.talk_s_max, hold.max_duration_s)
    wanted_s = hold.granted_s + (FREE_LEASE_S if free_call else policy.slice.next_s)
    part = cut_to_size(price, answers, hold.granted_s, wanted_s, bounds)
    if part is None:
        return Decided(
            Refuse(
                Reason.DURATION, "duration", "seconds", hold.granted_s, hold.max_duration_s, "call",
                f"The call has had the {hold.max_duration_s} s that one may last.",
            ),
            results,
        )  # fmt: skip
    # What was held for a dearer moment of answer stays held: it is settled by what the call really costs.
    held_micros = max(part.held_micros, hold.held_micros)
    return Decided(Admit(part.granted_s, held_micros, part.final, hold.max_duration_s, price), results)


# Looked up once: an Enum's attribute costs 0.1 µs, and there are nine rules.
_MODE_ENFORCE: Final = Mode.ENFORCE
_MODE_OFF: Final = Mode.OFF


def _ask(
    snapshot: Snapshot, question: Question, policy: AdmissionPolicy, rules: Sequence[Rule]
) -> tuple[tuple[RuleResult, ...], Refuse | None, Bounds]:
    modes = policy.modes
    results = []
    refusal: Refuse | None = None
    budget_micros: int | None = None
    talk_s_max = policy.talk_s_max
    for rule in rules:
        mode = modes.get(rule.name, _MODE_ENFORCE)
        if mode is _MODE_OFF:
            results.append(_off(rule.name).result)
            continue
        finding = rule.find(snapshot, question, policy, mode)
        results.append(finding.result)
        if mode is not _MODE_ENFORCE:
            continue
        if finding.result.refused is not None:
            refusal = refusal or finding.result.refused
        if finding.budget_micros is not None and (budget_micros is None or finding.budget_micros < budget_micros):
            budget_micros = finding.budget_micros
        if finding.talk_s_max is not None and finding.talk_s_max < talk_s_max:
            talk_s_max = finding.talk_s_max
    # Whatever the rules' modes, prepaid money that isn't there is never held or charged.
    cap_micros = snapshot.available_micros if snapshot.account.prepaid else None
    return tuple(results), refusal, Bounds(budget_micros, cap_micros, talk_s_max)


_OFF: Final[dict[str, Finding]] = {}


def _off(rule: str) -> Finding:
    return _OFF.get(rule) or _OFF.setdefault(rule, Finding(RuleResult(rule, Mode.OFF, skipped="off by policy")))


def _unpriced() -> Refuse:
    return Refuse(Reason.NO_RATE, "rate", text="The call has no price.")


__all__ = ["Admit", "Decided", "decide", "decide_extension", "price_of"]
