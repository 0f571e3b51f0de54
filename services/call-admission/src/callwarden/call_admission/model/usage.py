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
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil
from typing import TYPE_CHECKING, Final

import msgspec

from callwarden.call_admission.model.calls import CallRequest, Hold
from callwarden.call_admission.model.days import hour_of
from callwarden.call_admission.model.number_plan import country_of
from callwarden.call_admission.model.policy import AdmissionPolicy, VelocityPolicy
from callwarden.call_admission.model.settle import Settlement

if TYPE_CHECKING:
    from callwarden.call_admission.model.account import Account

ACCOUNT: Final = "account"
RESELLER: Final = "reseller"
REALM: Final = "realm"
SYSTEM: Final = "system"
ADDRESS: Final = "address"
CARRIER: Final = "carrier"
OWNERS: Final = (ACCOUNT, RESELLER, REALM, SYSTEM, ADDRESS, CARRIER)

LEASE_STEP_S: Final = 8  # A hold that nobody ends counts so much longer at most; the reaper is quicker (2 s).
LEASES_MAX: Final = 4_096  # 9 h ahead in steps of 8 s; holds are extended slice by slice, an hour at most.
SPANS_MAX: Final = 400  # A call may run a year (policy's longest timeout), and each day have one that began then.
WINDOW_BUCKETS: Final = 100  # A second in steps of 10 ms, a minute of 0.6 s, a day of about a quarter of an hour.
COUNTRIES_MAX: Final = 512  # phonenumbers knows about 250; what is called is one of them.
WEIGHT: Final = 1_000  # of one call in the baseline, so that decay has something to halve
BLOCKED: Final = 102  # the level of a notice that tells of a block: above every percent
WARNED: Final = 101  # of a velocity rule's warning

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000


class CalendarSpan(msgspec.Struct, array_like=True, gc=False):
    """A calendar day or month: `key` is the day's ordinal, or year × 12 + month - 1."""

    key: int
    spent_micros: int = 0
    held_micros: int = 0
    talk_s: int = 0
    granted_s: int = 0
    """Of calls that are running."""
    calls: int = 0
    running: int = 0


class WindowBucket(msgspec.Struct, array_like=True, gc=False):
    """The calls that began in one step of a window; `micros` and `talk_s` are held or granted while they run."""

    index: int
    calls: int = 0
    micros: int = 0
    talk_s: int = 0


class SlidingWindow(msgspec.Struct, array_like=True):
    """A sliding window of calls by the moment at which they began."""

    width_ms: int
    buckets: list[WindowBucket] = msgspec.field(default_factory=list)
    dropped: int = -1
    """Every bucket up to this index is gone for good."""

    @staticmethod
    def width(span_ms: int) -> int:
        return max(ceil(span_ms / WINDOW_BUCKETS), 1)

    def begin(self, at_s: float, micros: int, talk_s: int) -> None:
        index = int(at_s * 1_000) // self.width_ms
        if self.buckets and self.buckets[-1].index > index + WINDOW_BUCKETS:
            self._step_back(index)
        self._drop(index - WINDOW_BUCKETS - 1)
        bucket = self._bucket(index, make=True)
        assert bucket is not None
        bucket.calls += 1
        bucket.micros += micros
        bucket.talk_s += talk_s

    def move(self, began_s: float, micros: int, talk_s: int) -> None:
        """A call that began then has cost or talked so much more (or less) than was known; nothing, if it counts no
        more."""
        bucket = self.at(began_s)
        if bucket is not None:
            bucket.micros += micros
            bucket.talk_s += talk_s

    def at(self, began_s: float) -> WindowBucket | None:
        """What a call that began then is counted in; None: it counts no more."""
        return self._bucket(int(began_s * 1_000) // self.width_ms, make=False)

    def sums(self, now_s: float) -> WindowBucket:
        """All that began within the span before now; its index says nothing."""
        now = int(now_s * 1_000) // self.width_ms
        total = WindowBucket(0)
        for bucket in reversed(self.buckets):
            if bucket.index < now - WINDOW_BUCKETS:
                break
            if bucket.index > now + WINDOW_BUCKETS:  # from before the clock stepped back
                continue
            total.calls += bucket.calls
            total.micros += bucket.micros
            total.talk_s += bucket.talk_s
        return total

    def calls(self, now_s: float) -> int:
        now = int(now_s * 1_000) // self.width_ms
        calls = 0
        for bucket in reversed(self.buckets):
            if bucket.index < now - WINDOW_BUCKETS:
                break
            if bucket.index <= now + WINDOW_BUCKETS:
                calls += bucket.calls
        return calls

    def _step_back(self, index: int) -> None:
        """The clock has stepped back by more than the window: what lies in its future would count until then."""
        del self.buckets[bisect_left(self.buckets, index + WINDOW_BUCKETS + 1, key=_index) :]
        self.dropped = min(self.dropped, index - WINDOW_BUCKETS - 1)

    def _drop(self, until: int) -> None:
        buckets = self.buckets
        if buckets and buckets[0].index <= until:
            del buckets[: bisect_left(buckets, until + 1, key=_index)]
        if until > self.dropped:
            self.dropped = until

    def _bucket(self, index: int, *, make: bool) -> WindowBucket | None:
        if index <= self.dropped:
            return None
        buckets = self.buckets
        if buckets and buckets[-1].index == index:
            return buckets[-1]
        position = bisect_left(buckets, index, key=_index)
        if position < len(buckets) and buckets[position].index == index:
            return buckets[position]
        if not make:
            return None
        bucket = WindowBucket(index)
        buckets.insert(position, bucket)
        return bucket


def _index(bucket: WindowBucket) -> int:
    return bucket.index


class Leases(msgspec.Struct, array_like=True):
    """Calls at the same time, by the step in which their holds expire."""

    steps: list[list[int]] = msgspec.field(default_factory=list)
    """[step, calls], in order."""
    swept: int = -1
    """Everything up to this step has expired and is gone."""

    def begin(self, expires_at_s: float, now_s: float) -> None:
        now = int(now_s) // LEASE_STEP_S
        if now < self.swept:
            self.swept = now  # The clock has stepped back: new calls are to count all the same.
        self._sweep(now_s)
        self._add(_step(expires_at_s), 1)

    def extend(self, before_s: float, after_s: float, now_s: float) -> None:
        before, after = _step(before_s), _step(after_s)
        if before != after:
            self._add(before, -1)
            self._sweep(now_s)
            self._add(after, 1)

    def end(self, expires_at_s: float, now_s: float) -> None:
        self._add(_step(expires_at_s), -1)
        self._sweep(now_s)

    def count(self, now_s: float) -> int:
        now = int(now_s) // LEASE_STEP_S
        return sum([calls for step, calls in self.steps if step > now])

    def _sweep(self, now_s: float) -> None:
        now = int(now_s) // LEASE_STEP_S
        steps = self.steps
        gone = 0
        while gone < len(steps) and steps[gone][0] <= now:
            gone += 1
        if gone:
            del steps[:gone]
        if now > self.swept:
            self.swept = now

    def _add(self, step: int, calls: int) -> None:
        if step <= self.swept:  # It has expired, and so counts no more.
            return
        steps = self.steps
        position = bisect_left(steps, step, key=_first)
        if position < len(steps) and steps[position][0] == step:
            steps[position][1] += calls
            if steps[position][1] <= 0:
                del steps[position]
        elif calls > 0:
            if len(steps) >= LEASES_MAX:  # Then the two that expire last count as one: longer, never shorter.
                steps[-1][1] += calls
            else:
                steps.insert(position, [step, calls])


def _step(at_s: float) -> int:
    return ceil(at_s / LEASE_STEP_S)


def _first(step: list[int]) -> int:
    return step[0]


class VelocityCounts(msgspec.Struct, array_like=True):
    """One velocity rule's counts; None: it doesn't limit that."""

    second: SlidingWindow | None = None
    minute: SlidingWindow | None = None
    period: SlidingWindow | None = None
    leases: Leases | None = None
    last: str = ""
    """What was called last: a prefix of the rule, or the number where it has none."""
    in_sequence: int = 0
    last_at_s: int = 0


class AccountBaseline(msgspec.Struct, array_like=True):
    """What the account usually does; weights lose half of themselves in policy's half-life."""

    since: int
    """Day (ordinal) of the first call that was learnt."""
    day: int
    """Weights are those of this day."""
    hours: list[int] = msgspec.field(default_factory=lambda: [0] * 24)
    spent_micros: int = 0
    """Weighted sum of the spend of past days with calls, in WEIGHTs."""
    days: int = 0
    """Their weights."""


class Country(msgspec.Struct, array_like=True, gc=False):
    """When a country was called."""

    first: int
    """Days (ordinals)."""
    last: int
    weight: int = 0


@dataclass(slots=True)
class TransitionContext:
    """What a transition needs to know besides the call. `account`: the owner's own, if it is an account, a reseller or
    a carrier; the paying account otherwise."""

    owner: str
    policy: AdmissionPolicy
    account: "Account"
    now_s: float
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
    """The monthly limit that has grown by `month_grown_micros`; another one begins anew."""
    month_grown_micros: int = 0
    month_grown: int = 0
    """Month up to whose start growth is counted."""
    notice_day: int = 0
    notices: dict[str, int] = msgspec.field(default_factory=dict)
    """By rule: the highest level told on that day."""

    def copy(self) -> "Usage":
        return _DECODER.decode(_ENCODER.encode(self))

    # ------------------------------------------------------------------ a call's life

    def begin(self, call: CallRequest, hold: Hold, context: TransitionContext) -> None:
        """An admission is placed. It counts for every carrier that it may go by: which one takes it isn't known yet."""
        owner, policy, now_s = context.owner, context.policy, context.now_s
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
            self._leases().begin(hold.expires_at_s, now_s)
        if owner != ACCOUNT or policy.counts_seconds or context.account.max_per_second is not None:
            if self.second is None:
                self.second = SlidingWindow(SlidingWindow.width(SECOND_MS))
            self.second.begin(now_s, 0, 0)
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
            self.leases.extend(before.expires_at_s, after.expires_at_s, context.now_s)
        for mark in before.marks:
            group = self.groups.get(mark)
            if group is None:
                continue
            if group.leases is not None:
                group.leases.extend(before.expires_at_s, after.expires_at_s, context.now_s)
            if group.period is not None:
                group.period.move(before.created_at_s, micros, 0)

    def end(self, hold: Hold, settlement: Settlement, context: TransitionContext) -> None:
        """The call is settled, or its hold has expired; for a carrier: one that it took."""
        owner = context.owner
        if owner == CARRIER:
            self.leave(hold)
            for spans, key in zip((self.days, self.months), keys_of(hold), strict=True):
                span = self._span(spans, key)
                span.calls += 1
                span.talk_s += settlement.duration_s
            return
        micros = settlement.price_micros
        if owner == ADDRESS:
            if self.period is not None:
                self.period.move(hold.created_at_s, micros - hold.held_micros, settlement.duration_s - hold.granted_s)
            return
        if owner in _WITH_SPANS:
            self.held_micros -= hold.held_micros
            self.spent_micros += micros
            for spans, key in zip((self.days, self.months), keys_of(hold), strict=True):
                span = self._span(spans, key)
                span.running -= 1
                span.held_micros -= hold.held_micros
                span.granted_s -= hold.granted_s
                span.spent_micros += micros
                span.talk_s += settlement.duration_s
        if self.leases is not None:
            self.leases.end(hold.expires_at_s, context.now_s)
        for mark in hold.marks:
            group = self.groups.get(mark)
            if group is None:
                continue
            if group.leases is not None:
                group.leases.end(hold.expires_at_s, context.now_s)
            if group.period is not None:
                group.period.move(hold.created_at_s, micros - hold.held_micros, 0)

    def leave(self, hold: Hold) -> None:
        """The call has gone by another carrier than this one."""
        self._reserve(hold, -1, -hold.granted_s)

    # ------------------------------------------------------------------ what it comes to

    def used(self, quantity: str, now_s: float) -> int:
        """What counts against a bounded quantity (see `day_spend` and its neighbours for their names)."""
        name, _, key = quantity.partition(".")
        match name:
            case "calls":
                return self.leases.count(now_s) if self.leases is not None else 0
            case "calls_per_second":
                return self.second.calls(now_s) if self.second is not None else 0
            case "credit":
                return self.held_micros + self.spent_micros
            case "day_spend" | "day_talk":
                span = self.day(int(key))
            case "month_spend" | "month_talk":
                span = self.month(int(key))
            case "period_calls" | "period_talk" | "period_cost":
                if self.period is None:
                    return 0
                sums = self.period.sums(now_s)
                return sums.calls if name == "period_calls" else sums.talk_s if name == "period_talk" else sums.micros
            case _:
                raise ValueError(f"nobody counts {quantity!r}")
        return span.spent_micros + span.held_micros if name.endswith("spend") else span.talk_s + span.granted_s

    def day(self, key: int) -> CalendarSpan:
        """That day's counts; of zeros where nothing is known."""
        return _find(self.days, key)

    def month(self, key: int) -> CalendarSpan:
        return _find(self.months, key)

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
        if month > self.month_grown and _find(self.months, self.month_grown).calls:
            grown += increment
        ceiling = account.monthly_ceiling_micros
        return grown if ceiling is None else max(min(grown, ceiling - base), 0)

    # ------------------------------------------------------------------ notices

    def is_notice_due(self, rule: str, level: int, day: int) -> bool:
        """Whether that level (percent, or BLOCKED) of a rule is still to be told on this day."""
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
        position = bisect_left(spans, key, key=_key)
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
        if not calls and not granted_s:
            return
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
        rules, now_s = context.policy.velocity, context.now_s
        if len(self.groups) > len(rules) or any(name not in context.policy.velocity_names for name in self.groups):
            names = context.policy.velocity_names
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
            _begin_group(group, rule, call, hold, now_s)

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
        baseline.hours = [weight * factor >> _FACTOR_BITS for weight in baseline.hours]
        baseline.spent_micros = baseline.spent_micros * factor >> _FACTOR_BITS
        baseline.days = baseline.days * factor >> _FACTOR_BITS
        for country in self.countries.values():
            country.weight = country.weight * factor >> _FACTOR_BITS


def _begin_group(group: VelocityCounts, rule: VelocityPolicy, call: CallRequest, hold: Hold, now_s: float) -> None:
    if rule.counts_second:
        group.second = fitted(group.second, SECOND_MS)
        group.second.begin(now_s, 0, 0)
    if rule.counts_minute:
        group.minute = fitted(group.minute, MINUTE_MS)
        group.minute.begin(now_s, 0, 0)
    if rule.counts_period:
        group.period = fitted(group.period, rule.period_ms)
        group.period.begin(hold.created_at_s, hold.held_micros, 0)
    if rule.counts_leases:
        if group.leases is None:
            group.leases = Leases()
        group.leases.begin(hold.expires_at_s, now_s)
    if rule.counts_sequence:
        called = rule.matched(call.destination) or call.destination
        group.in_sequence = in_sequence(group, called, rule, now_s)
        group.last = called
        group.last_at_s = int(now_s)


def in_sequence(group: VelocityCounts | None, called: str, rule: VelocityPolicy, now_s: float) -> int:
    """Which call in a row it is: 1 where another destination was called last, or this one longer ago than the
    period."""
    if group is None or group.last != called or now_s - group.last_at_s > rule.period_ms / 1_000:
        return 1
    return group.in_sequence + 1


def fitted(window: SlidingWindow | None, span_ms: int) -> SlidingWindow:
    """The window in buckets for this span; what it holds is taken along when policy changes the span."""
    width_ms = SlidingWindow.width(span_ms)
    if window is None:
        return SlidingWindow(width_ms)
    if window.width_ms == width_ms:
        return window
    # To the bucket in which the old one begins. A running call's share may then lie in the bucket beside the one that
    # its end is counted in; the sum over both is right.
    fresh = SlidingWindow(width_ms)
    if window.dropped >= 0:
        fresh.dropped = (window.dropped + 1) * window.width_ms // width_ms - 1
    for old in window.buckets:
        bucket = fresh._bucket(old.index * window.width_ms // width_ms, make=True)
        if bucket is not None:
            bucket.calls += old.calls
            bucket.micros += old.micros
            bucket.talk_s += old.talk_s
    fresh._drop((fresh.buckets[-1].index if fresh.buckets else -1) - WINDOW_BUCKETS - 1)
    return fresh


def correct(usages: Sequence[Usage], day: date, micros: int) -> None:
    """A call that began on that day has cost so much more (or less) than it was settled at: counted by whoever of them
    counts that day and month, and never below nothing. What was charged in all stays: a correction is no charge."""
    for key, spans_of in (
        (day.toordinal(), [usage.days for usage in usages]),
        (day.year * 12 + day.month - 1, [usage.months for usage in usages]),
    ):
        left = micros
        for span in (span for spans in spans_of for span in spans if span.key == key):
            moved = max(left, -span.spent_micros)
            span.spent_micros += moved
            left -= moved


def correct_in_all(usages: Sequence[Usage], micros: int) -> None:
    """A call has cost so much more (or less): of what counts against a reseller's credit, and never below nothing."""
    left = micros
    for usage in usages:
        moved = max(left, -usage.spent_micros)
        usage.spent_micros += moved
        left -= moved


def correct_period(usage: Usage, began_s: float, micros: int) -> None:
    """A call that began then has cost so much more (or less): nothing, if it counts no more, and never below
    nothing."""
    if usage.period is not None:
        counted = usage.period.at(began_s)
        if counted is not None:
            counted.micros = max(counted.micros + micros, 0)


def merged(usages: Sequence[Usage]) -> Usage:
    """What several shards count for one owner, as one."""
    total = Usage()
    for usage in usages:
        total.held_micros += usage.held_micros
        total.spent_micros += usage.spent_micros
        total.days = _merged_spans(total.days, usage.days)
        total.months = _merged_spans(total.months, usage.months)
        total.peak_day_micros = max(total.peak_day_micros, usage.peak_day_micros)
        total.leases = _merged_leases(total.leases, usage.leases)
        total.second = _merged_windows(total.second, usage.second)
        total.period = _merged_windows(total.period, usage.period)
        for name, group in usage.groups.items():
            total.groups[name] = _merged_groups(total.groups.get(name, VelocityCounts()), group)
        for country, seen in usage.countries.items():
            known = total.countries.get(country)
            total.countries[country] = (
                Country(seen.first, seen.last, seen.weight)
                if known is None
                else Country(min(known.first, seen.first), max(known.last, seen.last), known.weight + seen.weight)
            )
        total.baseline = _merged_baselines(total.baseline, usage.baseline)
        if usage.month_base_micros is not None and usage.month_grown >= total.month_grown:
            total.month_base_micros = usage.month_base_micros
            total.month_grown_micros = max(usage.month_grown_micros, total.month_grown_micros)
            total.month_grown = usage.month_grown
        for rule, level in usage.notices.items():
            if total.is_notice_due(rule, level, usage.notice_day):
                total.record_notice(rule, level, usage.notice_day)
    return total


def _merged_spans(one: list[CalendarSpan], other: list[CalendarSpan]) -> list[CalendarSpan]:
    by_key: dict[int, CalendarSpan] = {}
    for span in (*one, *other):
        known = by_key.get(span.key)
        if known is None:
            known = by_key[span.key] = CalendarSpan(span.key)
        known.spent_micros += span.spent_micros
        known.held_micros += span.held_micros
        known.talk_s += span.talk_s
        known.granted_s += span.granted_s
        known.calls += span.calls
        known.running += span.running
    return [by_key[key] for key in sorted(by_key)]


def _merged_leases(one: Leases | None, other: Leases | None) -> Leases | None:
    if one is None or other is None:
        found = one or other
        return None if found is None else Leases([list(step) for step in found.steps], found.swept)
    total = Leases(swept=max(one.swept, other.swept))
    for step, calls in (*one.steps, *other.steps):
        total._add(step, calls)
    return total


def _merged_windows(one: SlidingWindow | None, other: SlidingWindow | None) -> SlidingWindow | None:
    if one is None or other is None:
        found = one or other
        return None if found is None else msgspec.convert(msgspec.to_builtins(found), SlidingWindow)
    other = fitted(other, one.width_ms * WINDOW_BUCKETS)
    total = SlidingWindow(one.width_ms, dropped=max(one.dropped, other.dropped))
    for old in (*one.buckets, *other.buckets):
        bucket = total._bucket(old.index, make=True)
        if bucket is not None:
            bucket.calls += old.calls
            bucket.micros += old.micros
            bucket.talk_s += old.talk_s
    return total


def _merged_groups(one: VelocityCounts, other: VelocityCounts) -> VelocityCounts:
    latest = other if other.last_at_s >= one.last_at_s else one
    return VelocityCounts(
        _merged_windows(one.second, other.second),
        _merged_windows(one.minute, other.minute),
        _merged_windows(one.period, other.period),
        _merged_leases(one.leases, other.leases),
        latest.last,
        latest.in_sequence,
        latest.last_at_s,
    )


def _merged_baselines(one: AccountBaseline | None, other: AccountBaseline | None) -> AccountBaseline | None:
    if one is None or other is None:
        found = one or other
        return (
            None
            if found is None
            else AccountBaseline(found.since, found.day, list(found.hours), found.spent_micros, found.days)
        )
    hours = [mine + theirs for mine, theirs in zip(one.hours, other.hours, strict=True)]
    # The spend of one day lies in several shards, the day itself is one.
    days, spent = max(one.days, other.days), one.spent_micros + other.spent_micros
    return AccountBaseline(min(one.since, other.since), max(one.day, other.day), hours, spent, days)


def keys_of(hold: Hold) -> tuple[int, int]:
    """Day and month in which a call counts, for all owners: the paying account's, when it began."""
    day = hold.spend_day
    return day.toordinal(), day.year * 12 + day.month - 1


def day_spend(day: int) -> str:
    return f"day_spend.{day}"


def month_spend(month: int) -> str:
    return f"month_spend.{month}"


def day_talk(day: int) -> str:
    return f"day_talk.{day}"


def month_talk(month: int) -> str:
    return f"month_talk.{month}"


def decay_factor(days: int, half_life_s: int) -> int:
    """What is left of a weight after so many days, in 2^-16."""
    return int(0.5 ** (days * 86_400 / half_life_s) * (1 << _FACTOR_BITS))


def _find(spans: list[CalendarSpan], key: int) -> CalendarSpan:
    for span in reversed(spans):
        if span.key == key:
            return span
    return CalendarSpan(key)


def _key(span: CalendarSpan) -> int:
    return span.key


_WITH_SPANS: Final = frozenset({ACCOUNT, RESELLER})
_FACTOR_BITS: Final = 16
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Usage)
