"""What is counted for one owner of limits: an account, a reseller, a realm, the system, a source address, a carrier.

In: how each call moves the counts on, what they come to in a moment, which notices were raised. Out: limits (rules/),
how it is kept as bytes (codecs.usage_bytes), which counters a call touches (admission.core.counting).

Everything is an integer, and exact: what a call has reserved is given back by the same hold, and what it cost in the
end is added once. Every part is bounded, whatever calls come (a test pushes each to its bound):

- days and months: those of now and before, and any in which a running call began: at most SPANS_MAX;
- windows: a width of bucket for each span, WINDOW_BUCKETS before now and as many ahead (where a clock has stepped
  back), only those in which calls began;
- calls at once: by the moment at which their holds expire, in steps of LEASE_STEP_S, so at most as many as steps
  between now and the end of the longest lease;
- countries and hours: there are no more than about 250, and 24; velocity: a group for each rule of policy;
- notices: one small number for each rule.

A sliding window counts by buckets and includes the bucket in which it begins: never fewer calls than there were within
the span, and one may count a bucket's width longer.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from callwarden.call_admission.model.calls import CallRequest, Hold
from callwarden.call_admission.model.days import hour_of
from callwarden.call_admission.model.habits import (
    COUNTRIES_MAX,
    FACTOR_BITS,
    WEIGHT,
    AccountBaseline,
    Country,
    VelocityCounts,
    begin_velocity,
    decay_factor,
)
from callwarden.call_admission.model.leases import Leases
from callwarden.call_admission.model.number_plan import country_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT, ADDRESS, CARRIER, RESELLER
from callwarden.call_admission.model.settle import Settlement
from callwarden.call_admission.model.spans import CalendarSpan, keys_of, span_key, span_of
from callwarden.call_admission.model.windows import SECOND_MS, SlidingWindow, fitted
from callwarden.kernel.clock import UnixS

if TYPE_CHECKING:
    from callwarden.call_admission.model.account import Account


SPANS_MAX: Final = 400  # A call may run a year (policy's longest timeout), and each day have one that began then.
BLOCKED: Final = 102  # the level of a notice about a blocked call: above every percentage
WARNED: Final = 101  # of a velocity rule's warning


@dataclass(slots=True)
class TransitionContext:
    """What a transition needs in addition to the call. `account`: the owner's own, if it is an account, a reseller or
    a carrier; the paying account otherwise."""

    owner: str
    policy: AdmissionPolicy
    account: "Account"
    unix_s: UnixS
    leases: bool = False
    """Whether an account's calls at once are counted here: only where it is sharded. Other owners' always are."""


class Usage(msgspec.Struct, omit_defaults=True):
    """Every field may be missing in what was written before there was such a field."""

    held_micros: int = 0
    spent_micros: int = 0
    """In all, ever: what counts against a reseller's credit."""
    days: list[CalendarSpan] = msgspec.field(default_factory=list)
    months: list[CalendarSpan] = msgspec.field(default_factory=list)
    peak_day_micros: int = 0
    """Largest spend of a day among those that are in `days` no more."""
    leases: Leases | None = None
    second: SlidingWindow | None = None
    period: SlidingWindow | None = None
    groups: dict[str, VelocityCounts] = msgspec.field(default_factory=dict)
    countries: dict[str, Country] = msgspec.field(default_factory=dict)
    baseline: AccountBaseline | None = None
    month_base_micros: int | None = None
    """The monthly limit that has grown by `month_grown_micros`; another limit restarts the growth."""
    month_grown_micros: int = 0
    month_grown: int = 0
    """Month up to whose start growth is counted."""
    notice_day: int = 0
    notices: dict[str, int] = msgspec.field(default_factory=dict)
    """By rule: the highest level that was published on that day."""

    def copy(self) -> "Usage":
        return _DECODER.decode(_ENCODER.encode(self))

    # ------------------------------------------------------------------ a call's life

    def begin(self, call: CallRequest, hold: Hold, context: TransitionContext) -> None:
        """An admission is placed. It counts for every carrier that it may go by: which one takes it isn't known yet."""
        owner, policy, unix_s = context.owner, context.policy, context.unix_s
        if owner == CARRIER:
            self._reserve(hold, 1, hold.granted_s)
            return
        micros, granted_s = hold.held_micros, hold.granted_s
        if owner == ADDRESS:
            period = self._period(policy.address.period_ms)
            period.begin(hold.created_at_s, micros, granted_s)
            return
        if owner in _WITH_SPANS:
            self.held_micros += micros
            day, month = keys_of(hold)
            if context.account.monthly_micros is not None:
                self._grow(context.account, month)  # before months are dropped: it looks at the last one that grew
            for spans, key in ((self.days, day), (self.months, month)):
                span = self._span(spans, key)
                span.calls += 1
                span.running += 1
                span.held_micros += micros
                span.granted_s += granted_s
        if owner != ACCOUNT or context.leases:
            self._leases().begin(hold.expires_at_s, unix_s)
        if owner != ACCOUNT or policy.counts_seconds or context.account.max_per_second is not None:
            if self.second is None:
                self.second = SlidingWindow(SlidingWindow.width(SECOND_MS))
            self.second.begin(unix_s, 0, 0)
        if owner == ACCOUNT:
            if policy.velocity or self.groups:
                self._begin_groups(call, hold, context)
            if policy.learns and not call.local:
                self._learn(country_of(call.destination), hold, context)

    def extend(self, before: Hold, after: Hold, context: TransitionContext) -> None:
        """More was granted, or the callee has answered."""
        owner = context.owner
        micros = after.held_micros - before.held_micros
        granted_s = after.granted_s - before.granted_s
        if owner == CARRIER:
            self._reserve(before, 0, granted_s)
            return
        if owner == ADDRESS:
            if self.period is not None:
                self.period.move(before.created_at_s, micros, granted_s)
            return
        if owner in _WITH_SPANS and (micros or granted_s):
            self.held_micros += micros
            for spans, key in zip((self.days, self.months), keys_of(before), strict=True):
                span = self._span(spans, key)
                span.held_micros += micros
                span.granted_s += granted_s
        if self.leases is not None:
            self.leases.extend(before.expires_at_s, after.expires_at_s, context.unix_s)
        for mark in before.marks:
            group = self.groups.get(mark)
            if group is None:
                continue
            if group.leases is not None:
                group.leases.extend(before.expires_at_s, after.expires_at_s, context.unix_s)
            if group.period is not None:
                group.period.move(before.created_at_s, micros, 0)

    def end(self, hold: Hold, settlement: Settlement, context: TransitionContext) -> None:
        """The call is settled, or its hold has expired; for a carrier: one that it took."""
        if context.owner == CARRIER:
            self.leave(hold)
            for spans, key in zip((self.days, self.months), keys_of(hold), strict=True):
                span = self._span(spans, key)
                span.calls += 1
                span.talk_s += settlement.duration_s
            return
        self._end(hold, settlement.price_micros, settlement.duration_s, context)

    def release(self, hold: Hold, context: TransitionContext) -> None:
        """The hold has lapsed: what was reserved for the call is free again, as if it had ended without any talk."""
        if context.owner == CARRIER:
            self.leave(hold)
        else:
            self._end(hold, 0, 0, context)

    def charge(self, hold: Hold, micros: int, duration_s: int, context: TransitionContext, calls: int = 0) -> None:
        """A call whose hold has lapsed was talked and charged so much more (or less, where it was booked too high).
        `calls`: by so many a carrier has carried more."""
        owner = context.owner
        if owner == ADDRESS:
            if self.period is not None:
                self.period.move(hold.created_at_s, micros, duration_s)
            return
        if owner == CARRIER or owner in _WITH_SPANS:
            for spans, key in zip((self.days, self.months), keys_of(hold), strict=True):
                span = self._span(spans, key)
                span.talk_s += duration_s
                if owner == CARRIER:
                    span.calls += calls
                else:
                    span.spent_micros += micros
        if owner in _WITH_SPANS:
            self.spent_micros += micros
        for mark in hold.marks:
            group = self.groups.get(mark)
            if group is not None and group.period is not None:
                group.period.move(hold.created_at_s, micros, 0)

    def leave(self, hold: Hold) -> None:
        """The call has gone by another carrier than this one."""
        self._reserve(hold, -1, -hold.granted_s)

    def _end(self, hold: Hold, micros: int, duration_s: int, context: TransitionContext) -> None:
        """The call counts no longer as one that runs, and for so much."""
        if context.owner == ADDRESS:
            if self.period is not None:
                self.period.move(hold.created_at_s, micros - hold.held_micros, duration_s - hold.granted_s)
            return
        if context.owner in _WITH_SPANS:
            self.held_micros -= hold.held_micros
            self.spent_micros += micros
            for spans, key in zip((self.days, self.months), keys_of(hold), strict=True):
                span = self._span(spans, key)
                span.running -= 1
                span.held_micros -= hold.held_micros
                span.granted_s -= hold.granted_s
                span.spent_micros += micros
                span.talk_s += duration_s
        if self.leases is not None:
            self.leases.end(hold.expires_at_s, context.unix_s)
        for mark in hold.marks:
            group = self.groups.get(mark)
            if group is None:
                continue
            if group.leases is not None:
                group.leases.end(hold.expires_at_s, context.unix_s)
            if group.period is not None:
                group.period.move(hold.created_at_s, micros - hold.held_micros, 0)

    # ------------------------------------------------------------------ what it comes to

    def used(self, quantity: str, unix_s: UnixS) -> int:
        """What counts against a bounded quantity (see `day_spend` and its neighbours for their names)."""
        name, _, key = quantity.partition(".")
        match name:
            case "calls":
                return self.leases.count(unix_s) if self.leases is not None else 0
            case "calls_per_second":
                return self.second.calls(unix_s) if self.second is not None else 0
            case "credit":
                return self.held_micros + self.spent_micros
            case "day_spend" | "day_talk":
                span = self.day(int(key))
            case "month_spend" | "month_talk":
                span = self.month(int(key))
            case "period_calls" | "period_talk" | "period_cost":
                if self.period is None:
                    return 0
                sums = self.period.sums(unix_s)
                return sums.calls if name == "period_calls" else sums.talk_s if name == "period_talk" else sums.micros
            case _:
                raise ValueError(f"unknown quantity {quantity!r}")
        return span.spent_micros + span.held_micros if name.endswith("spend") else span.talk_s + span.granted_s

    def day(self, key: int) -> CalendarSpan:
        """That day's counts; of zeros where nothing is known."""
        return span_of(self.days, key)

    def month(self, key: int) -> CalendarSpan:
        return span_of(self.months, key)

    def peak_before(self, day: int) -> int:
        """The largest spend of a day before that one."""
        peak = self.peak_day_micros
        for span in self.days:
            if span.key < day and span.spent_micros > peak:
                peak = span.spent_micros
        return peak

    def monthly_limit(self, account: "Account", month: int) -> int | None:
        """The account's limit in that month, as grown by its increments; None: it has none.

        It grows at the start of a month whose predecessor had a call that was admitted, and never beyond the ceiling.
        """
        base = account.monthly_micros
        return None if base is None else base + self._grown(account, month)

    def _grown(self, account: "Account", month: int) -> int:
        base, increment = account.monthly_micros, account.monthly_increment_micros
        if base is None or not increment or self.month_base_micros != base:
            return 0
        grown = self.month_grown_micros
        # Months between had no call, or they would have been counted: only the first of them follows an active one.
        if month > self.month_grown and span_of(self.months, self.month_grown).calls:
            grown += increment
        ceiling = account.monthly_ceiling_micros
        return grown if ceiling is None else max(min(grown, ceiling - base), 0)

    # ------------------------------------------------------------------ notices

    def is_notice_due(self, rule: str, level: int, day: int) -> bool:
        """Whether that level (percent, or BLOCKED) of a rule is still to be published on this day."""
        return day > self.notice_day or (day == self.notice_day and self.notices.get(rule, 0) < level)

    def record_notice(self, rule: str, level: int, day: int) -> None:
        if day > self.notice_day:
            self.notice_day = day
            self.notices = {}
        self.notices[rule] = max(self.notices.get(rule, 0), level)

    # ------------------------------------------------------------------ parts

    def _span(self, spans: list[CalendarSpan], key: int) -> CalendarSpan:
        """The span to be counted in; those before the last two in which no call runs any more are dropped."""
        if spans and spans[-1].key == key:  # nearly always
            return spans[-1]
        position = bisect_left(spans, key, key=span_key)
        if position < len(spans) and spans[position].key == key:
            return spans[position]
        span = CalendarSpan(key)
        spans.insert(position, span)
        newest = spans[-1].key
        if len(spans) > 2:
            kept = [old for old in spans if old.key >= newest - 1 or old.running > 0 or old is span]
            while len(kept) > SPANS_MAX:
                del kept[0 if kept[0] is not span else 1]
            if len(kept) < len(spans):
                if spans is self.days:
                    known = {old.key for old in kept}
                    self._fold([old for old in spans if old.key not in known])
                spans[:] = kept
        return span

    def _fold(self, days: list[CalendarSpan]) -> None:
        """Days that are counted no longer leave their largest spend, and their part in what is usual."""
        for day in days:
            self.peak_day_micros = max(self.peak_day_micros, day.spent_micros)
            if self.baseline is not None and day.calls:
                self.baseline.spent_micros += day.spent_micros * WEIGHT
                self.baseline.days += WEIGHT

    def _reserve(self, hold: Hold, calls: int, granted_s: int) -> None:
        """So many more calls like this one run, and so much more talk is granted to them."""
        for spans, key in zip((self.days, self.months), keys_of(hold), strict=True):
            span = self._span(spans, key)
            span.running += calls
            span.granted_s += granted_s

    def _leases(self) -> Leases:
        if self.leases is None:
            self.leases = Leases()
        return self.leases

    def _period(self, span_ms: int) -> SlidingWindow:
        self.period = fitted(self.period, span_ms)
        return self.period

    def _grow(self, account: "Account", month: int) -> None:
        if self.month_base_micros != account.monthly_micros:
            self.month_base_micros = account.monthly_micros
            self.month_grown_micros = 0
            self.month_grown = month
        elif month > self.month_grown:
            self.month_grown_micros = self._grown(account, month)
            self.month_grown = month

    def _begin_groups(self, call: CallRequest, hold: Hold, context: TransitionContext) -> None:
        rules, unix_s = context.policy.velocity, context.unix_s
        names = context.policy.velocity_names
        if any(name not in names for name in self.groups):
            self.groups = {name: group for name, group in self.groups.items() if name in names}
        for rule in rules:
            group = self.groups.get(rule.name)
            if rule.name not in hold.marks:
                if group is not None and group.in_sequence and not rule.matched(call.destination):
                    group.in_sequence = 0
                    group.last = ""
                continue
            if group is None:
                group = self.groups[rule.name] = VelocityCounts()
            begin_velocity(group, rule, call, hold, unix_s)

    def _learn(self, country: str, hold: Hold, context: TransitionContext) -> None:
        policy, day = context.policy, keys_of(hold)[0]
        baseline = self.baseline
        if policy.baseline is not None:
            if baseline is None:
                baseline = self.baseline = AccountBaseline(day, day)
            if day > baseline.day:
                self._decay(baseline, day, policy.baseline.half_life_s)
            baseline.hours[hour_of(hold.created_at_s, context.account.time_zone)] += WEIGHT
        if not country:
            return
        known = self.countries.get(country)
        if known is not None and known.last >= day - policy.remember_days:
            known.last = max(known.last, day)
            known.weight += WEIGHT
            return
        oldest = day - policy.remember_days
        self.countries = {name: entry for name, entry in self.countries.items() if entry.last >= oldest}
        if len(self.countries) >= COUNTRIES_MAX:
            del self.countries[min(self.countries, key=lambda name: self.countries[name].last)]
        self.countries[country] = Country(day, day, WEIGHT)

    def _decay(self, baseline: AccountBaseline, day: int, half_life_s: int) -> None:
        factor = decay_factor(day - baseline.day, half_life_s)
        baseline.day = day
        baseline.hours = [weight * factor >> FACTOR_BITS for weight in baseline.hours]
        baseline.spent_micros = baseline.spent_micros * factor >> FACTOR_BITS
        baseline.days = baseline.days * factor >> FACTOR_BITS
        for country in self.countries.values():
            country.weight = country.weight * factor >> FACTOR_BITS


_WITH_SPANS: Final = frozenset({ACCOUNT, RESELLER})
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Usage)
