"""One counted limit, and what is used of it: what rules that count share.

In: use and room of an owner's counter, or of the shard of it that is here; findings about numbers of calls and about
money. Out: which limits there are (the rules), how shards borrow (callwarden.limits.shards, sharing).

A shard only knows its own part. Where that part refuses the call or shortens the slice, the finding says so
(ShardDemand), and the call is decided again with more room. Findings show the owner's numbers where all of its shards
are known, the shard's otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from callwarden.call_admission.admission.core.rules.rule import (
    ACCOUNT,
    LimitUsage,
    Question,
    RuleFinding,
    ShardDemand,
    refused,
)
from callwarden.call_admission.admission.core.slices import cost_max
from callwarden.call_admission.admission.core.snapshot import CounterView
from callwarden.call_admission.model.account import Account
from callwarden.kernel.clock import UnixS
from callwarden.kernel.money import format_amount
from callwarden.kernel.verdict import Mode, Reason, RuleResult

CALLS: Final = "calls"
MICROS: Final = "micros"
SECONDS: Final = "s"
_ENFORCE: Final = Mode.ENFORCE  # Looked up once: an Enum's attribute costs 0.1 µs.


@dataclass(slots=True)
class CountedLimit:
    """Made for each limit that a call meets, so not frozen."""

    counter: str
    unit: str
    used: int
    limit: int
    """Shown with `used`: the owner's, or the shard's part where the others aren't known."""
    room: int
    """What may still be used here; negative where more is used than may be."""
    window: str
    source: str
    whole: int
    """The owner's limit."""
    owner: str = ""
    """Kind of an owner that is sharded; empty: `room` is all there is."""
    quantity: str = ""

    def use(self, resets_at_s: float = 0.0) -> LimitUsage:
        return LimitUsage(self.counter, self.unit, self.used, self.whole, self.window, resets_at_s, self.source)

    def short(self, needed: int) -> tuple[ShardDemand, ...]:
        """What its shard is to be lent so that `needed` more can be used."""
        if not self.owner or needed <= self.room:
            return ()
        return (ShardDemand(self.owner, self.quantity, self.whole, needed - self.room),)


def measure(
    counted: CounterView, quantity: str, limit: int, unix_s: UnixS, counter: str, unit: str, window: str, source: str
) -> CountedLimit:
    """What is used of an owner's limit."""
    here = counted.usage.used(quantity, unix_s)
    if not counted.is_sharded:
        return CountedLimit(counter, unit, here, limit, limit - here, window, source, limit)
    part = counted.allowance(quantity, limit)
    if counted.total is None:
        used, shown = here, part
    else:
        used, shown = counted.total.used(quantity, unix_s), limit
    return CountedLimit(counter, unit, used, shown, part - here, window, source, limit, counted.owner, quantity)


@lru_cache(16_384)  # 0.3 KB each; most accounts have few lines, and few of them in use.
def _within(rule: str, is_enforced: bool, counter: str, used: int, limit: int, window: str) -> RuleFinding:
    """Shared, since nothing in it changes (0.4 instead of 2 µs)."""
    return RuleFinding(
        RuleResult(rule, Mode.ENFORCE if is_enforced else Mode.REPORT, None, counter, used, limit, window)
    )


def part_of(counted: CounterView, limit: int) -> int:
    """A shard's part of a limit that shards don't lend each other: rounded up, so that every shard has some."""
    shard = counted.shard
    return limit if shard is None else -(-limit // shard.count)


def source_of(account: Account) -> str:
    return f"reseller {account.name}" if account.type.value == "reseller" else ACCOUNT


def counts(
    rule: str, mode: Mode, reason: Reason, measured: CountedLimit, text: str, *, retry_after_s: int = 0, needed: int = 1
) -> RuleFinding:
    """Whether one more (or `needed`) may come. `text` is said where not."""
    if measured.room >= needed:
        return _within(rule, mode is _ENFORCE, measured.counter, measured.used, measured.limit, measured.window)
    finding = refused(
        rule, mode, reason, text,
        counter=measured.counter, value=measured.used, limit=measured.limit, window=measured.window,
        retry_after_s=retry_after_s,
    )  # fmt: skip
    finding.bounded = measured.short(needed)
    return finding


def spends(
    rule: str,
    mode: Mode,
    reason: Reason,
    measured: CountedLimit,
    question: Question,
    text: Callable[[CountedLimit], str],
) -> RuleFinding:
    """Whether the least talk time can still be paid within the limit, and what the call may cost. `question.price` is
    known, and isn't free."""
    price = question.price
    assert price is not None
    room = measured.room
    if cost_max(price, question.answers, question.least_s) > room:
        finding = refused(
            rule, mode, reason, text(measured),
            counter=measured.counter, value=measured.used, limit=measured.limit, window=measured.window,
        )  # fmt: skip
    else:
        result = RuleResult(rule, mode, None, measured.counter, measured.used, measured.limit, measured.window)
        finding = RuleFinding(result, budget_micros=room)
    if measured.owner:
        finding.bounded = measured.short(cost_max(price, question.answers, question.wanted_s))
    return finding


def nearest(findings: list[RuleFinding]) -> RuleFinding:
    """Several limits of one rule as one finding: the first refusal, or the numbers of the limit that is used most, and
    the tightest bounds."""
    if len(findings) == 1:
        return findings[0]
    shown = next((finding for finding in findings if finding.result.refused is not None), None)
    if shown is None:
        shown = max(findings, key=_share)
    budgets = [finding.budget_micros for finding in findings if finding.budget_micros is not None]
    longest = [finding.talk_s_max for finding in findings if finding.talk_s_max is not None]
    return RuleFinding(
        shown.result,
        min(budgets, default=None),
        min(longest, default=None),
        None,
        tuple(bounded for finding in findings for bounded in finding.bounded),
        tuple(warning for finding in findings for warning in finding.warnings),
    )


def _share(finding: RuleFinding) -> float:
    result = finding.result
    return result.value / result.limit if result.limit else -1.0  # compared, never shown


def spent_text(whose: str, span: str, currency: str) -> Callable[[CountedLimit], str]:
    """Of a limit on spend: "The account has spent 1.00 EUR of the 1.00 EUR it may spend in a day."."""

    def text(measured: CountedLimit) -> str:
        used, limit = format_amount(measured.used, currency), format_amount(measured.limit, currency)
        return f"{whose} spent {used} of the {limit} allowed {span}."

    return text


def needs_money(question: Question) -> str:
    """Why a limit on money says nothing of this call; empty: it does."""
    if question.price is None:
        return "no price"
    return "free call" if question.is_free else ""
