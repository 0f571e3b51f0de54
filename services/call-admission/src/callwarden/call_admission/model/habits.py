"""What an account usually does and how quickly it calls: velocity groups, a baseline of hours and spend, countries."""

from typing import Final

import msgspec

from callwarden.call_admission.model.calls import CallRequest, Hold
from callwarden.call_admission.model.leases import Leases, merged_leases
from callwarden.call_admission.model.policy import VelocityPolicy
from callwarden.call_admission.model.windows import MINUTE_MS, SECOND_MS, SlidingWindow, fitted, merged_windows
from callwarden.kernel.clock import UnixS

COUNTRIES_MAX: Final = 512  # phonenumbers knows about 250; what is called is one of them.


WEIGHT: Final = 1_000  # of one call in the baseline, so that decay has something to halve


FACTOR_BITS: Final = 16


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


def begin_velocity(group: VelocityCounts, rule: VelocityPolicy, call: CallRequest, hold: Hold, unix_s: UnixS) -> None:
    if rule.counts_second:
        group.second = fitted(group.second, SECOND_MS)
        group.second.begin(unix_s, 0, 0)
    if rule.counts_minute:
        group.minute = fitted(group.minute, MINUTE_MS)
        group.minute.begin(unix_s, 0, 0)
    if rule.counts_period:
        group.period = fitted(group.period, rule.period_ms)
        group.period.begin(hold.created_at_s, hold.held_micros, 0)
    if rule.counts_leases:
        if group.leases is None:
            group.leases = Leases()
        group.leases.begin(hold.expires_at_s, unix_s)
    if rule.counts_sequence:
        called = rule.matched(call.destination) or call.destination
        group.in_sequence = in_sequence(group, called, rule, unix_s)
        group.last = called
        group.last_at_s = int(unix_s)


def in_sequence(group: VelocityCounts | None, called: str, rule: VelocityPolicy, unix_s: UnixS) -> int:
    """Which call in a row it is: 1 where another destination was called last, or this one longer ago than the
    period."""
    if group is None or group.last != called or unix_s - group.last_at_s > rule.period_ms / 1_000:
        return 1
    return group.in_sequence + 1


def decay_factor(days: int, half_life_s: int) -> int:
    """What is left of a weight after so many days, in 2^-16."""
    return int(0.5 ** (days * 86_400 / half_life_s) * (1 << FACTOR_BITS))


def merged_velocity(one: VelocityCounts, other: VelocityCounts) -> VelocityCounts:
    latest = other if other.last_at_s >= one.last_at_s else one
    return VelocityCounts(
        merged_windows(one.second, other.second),
        merged_windows(one.minute, other.minute),
        merged_windows(one.period, other.period),
        merged_leases(one.leases, other.leases),
        latest.last,
        latest.in_sequence,
        latest.last_at_s,
    )


def merged_baselines(one: AccountBaseline | None, other: AccountBaseline | None) -> AccountBaseline | None:
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
