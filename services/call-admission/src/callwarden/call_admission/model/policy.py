"""A realm's policy as admission uses it: compiled once when it is swapped, so that a call only looks things up.

Out: the fields' meaning and defaults (callwarden.policy.model), how a bundle comes here (callwarden.common.policy).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from callwarden.call_admission.model.lists import DYNAMIC, SMART
from callwarden.kernel.verdict import Mode
from callwarden.policy.bundle import PolicySet
from callwarden.policy.model import DynamicList, PolicySpec, SmartList, VelocityLevel, VelocityRule

_MODES: Final = {"Enforce": Mode.ENFORCE, "Report": Mode.REPORT, "Off": Mode.OFF}
PREFIX_DIGITS_MAX: Final = 15  # E.164's longest number


@dataclass(frozen=True, slots=True)
class SlicePolicy:
    """Sizes of the pieces in which talk time is paid for."""

    first_s: int
    next_s: int
    minimum_s: int
    low_below_micros: int | None
    """Below this credit they are `low_s`."""
    low_s: int


@dataclass(frozen=True, slots=True)
class DynamicDailyPolicy:
    """Which accounts' spend of a day is held to a multiple of the largest so far."""

    traffic_senders: bool
    floor_enduser_micros: int
    floor_traffic_sender_micros: int
    multiplier: int


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What calls from one address may come to; None: no limit."""

    calls_max: int | None
    talk_s_max: int | None
    micros_max: int | None
    period_ms: int
    account: str | None
    """Only this account's calls are held to it; None: all."""

    @property
    def limits(self) -> bool:
        return not (self.calls_max is None and self.talk_s_max is None and self.micros_max is None)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Calls at once and new calls within a second; None: no ceiling."""

    calls_max: int | None
    per_second_max: int | None

    @property
    def limits(self) -> bool:
        return self.calls_max is not None or self.per_second_max is not None


@dataclass(frozen=True, slots=True)
class VelocityLimits:
    """What a velocity rule's warning or critical level allows; None: it isn't counted."""

    per_second: int | None
    per_minute: int | None
    total: int | None
    at_once: int | None
    in_sequence: int | None
    duration_s: int | None
    spend_micros: int | None


@dataclass(frozen=True, slots=True)
class VelocityPolicy:
    """How quickly one account may call one group of destinations."""

    name: str
    prefixes: frozenset[str]
    hours: str
    period_ms: int
    warning: VelocityLimits
    critical: VelocityLimits
    counts_second: bool
    counts_minute: bool
    counts_period: bool
    counts_leases: bool
    counts_sequence: bool

    def matched(self, destination: str) -> str:
        """The longest of the rule's prefixes that the number begins with, or ""."""
        prefixes = self.prefixes
        for length in range(min(len(destination), PREFIX_DIGITS_MAX), 0, -1):
            if destination[:length] in prefixes:
                return destination[:length]
        return ""

    def covers(self, destination: str) -> bool:
        return not self.prefixes or bool(self.matched(destination))


@dataclass(frozen=True, slots=True)
class BaselinePolicy:
    """When a call is out of line with what its account usually does."""

    learn_days: int
    half_life_s: int
    spend_factor: int


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What one realm's policy says about calls."""

    revision: int
    modes: Mapping[str, Mode]
    """By rule name; a rule that isn't named is enforced."""
    lines_max: int
    lines_max_off_peak: int | None
    peak_hours: str
    peak_zone: str
    """Empty: the account's."""
    per_second_max: int | None
    daily_enduser_micros: int | None
    daily_traffic_sender_micros: int | None
    daily_per_account: bool
    """Whether an account's own daily limit holds."""
    dynamic_daily: DynamicDailyPolicy | None
    check_postpaid: bool
    talk_time: bool
    """Whether accounts' limits of talk time hold."""
    slice: SlicePolicy
    talk_s_max: int
    setup_s_max: int
    """From the admission to the answer, at most."""
    grace_s: int
    reject_status: int
    block_premium: bool
    block_satellite: bool
    allowed_prefixes: frozenset[str]
    blocked_prefixes: frozenset[str]
    allowed_countries: frozenset[str]
    blocked_countries: frozenset[str]
    home_only: bool
    address: AddressPolicy
    system: Ceiling
    realm: Ceiling
    accounts_max: int | None
    """In the whole system; None: no ceiling."""
    realm_accounts_max: int | None
    not_billed: int
    not_profitable: int
    minute_cost_micros_max: int
    """0: no limit."""
    velocity: tuple[VelocityPolicy, ...]
    velocity_names: frozenset[str]
    new_countries_max: int | None
    """In a day; None: no limit."""
    remember_days: int
    """A country not called for so long is new again."""
    baseline: BaselinePolicy | None
    thresholds: tuple[int, ...]
    """Percents of a limit at which there are notices, falling."""
    owners: frozenset[str]
    """Kinds of scopes, other than accounts and resellers, that some limit needs."""
    lists: tuple[str, ...]
    """Number lists that hold for all calls."""
    own_lists: frozenset[str]
    """Which of the lists that make themselves hold."""
    dynamic_list: DynamicList
    smart_list: SmartList
    reports: bool
    """Whether some rule is only reported."""
    plans: dict[bool, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    """Which rules are to be asked: decide keeps it here, once for each policy."""

    @property
    def counts_seconds(self) -> bool:
        """Whether an account's calls of a second are counted even if it has no limit of its own."""
        return self.per_second_max is not None

    @property
    def learns(self) -> bool:
        """Whether the countries and hours of an account's calls are remembered."""
        return self.baseline is not None or self.new_countries_max is not None

    @classmethod
    def of(cls, spec: PolicySpec, revision: int, general: PolicySpec | None = None) -> "AdmissionPolicy":
        """`general` is the policy of no realm, whose ceilings are the whole system's."""
        session, spend, fraud, system = spec.session, spec.spend, spec.fraud, (general or spec).system
        modes = {name: _MODES[getattr(spec.modes, name)] for name in type(spec.modes).model_fields}
        dynamic, slice_, per_address = spend.dynamic_daily, spend.slice, spec.calls_per_address
        baseline = fraud.baseline
        address = AddressPolicy(
            per_address.max_calls,
            per_address.max_duration,
            per_address.max_cost,
            round(per_address.period * 86_400_000),
            per_address.account,
        )
        system_ceiling = Ceiling(system.max_calls, system.max_calls_per_second)
        realm_ceiling = Ceiling(spec.system.per_realm.max_calls, spec.system.per_realm.max_calls_per_second)
        needed = {"address": address.limits, "system": system_ceiling.limits, "realm": realm_ceiling.limits}
        velocity = tuple(_velocity(rule) for rule in fraud.velocity)
        return cls(
            revision=revision,
            modes=modes,
            lines_max=spec.lines.max,
            lines_max_off_peak=spec.lines.max_off_peak,
            peak_hours=spec.lines.peak_hours,
            peak_zone=spec.lines.time_zone,
            per_second_max=spec.lines.max_per_second,
            daily_enduser_micros=spend.daily.end_user,
            daily_traffic_sender_micros=spend.daily.traffic_sender,
            daily_per_account=spend.daily.per_account is not False,
            dynamic_daily=DynamicDailyPolicy(
                dynamic.mode == 2, dynamic.floor_end_user, dynamic.floor_traffic_sender, dynamic.multiplier
            )
            if dynamic.mode
            else None,
            check_postpaid=spend.check_postpaid,
            talk_time=spec.duration.enforce != 0,
            slice=SlicePolicy(slice_.first, slice_.next, slice_.minimum, slice_.low_below, slice_.low),
            talk_s_max=min(session.call_timeout, session.absolute_timeout),
            setup_s_max=session.ring_timeout + session.call_init_timeout,
            grace_s=spend.grace,
            reject_status=spend.reject_status,
            block_premium=fraud.block_premium,
            block_satellite=fraud.block_satellite,
            allowed_prefixes=frozenset(fraud.destinations.allow),
            blocked_prefixes=frozenset(fraud.destinations.block),
            allowed_countries=frozenset(fraud.destinations.allow_countries),
            blocked_countries=frozenset(fraud.destinations.block_countries),
            home_only=fraud.destinations.home_only,
            address=address,
            system=system_ceiling,
            realm=realm_ceiling,
            accounts_max=system.max_accounts,
            realm_accounts_max=spec.system.per_realm.max_accounts,
            not_billed=spec.billing.block_not_billed,
            not_profitable=spec.billing.block_not_profitable,
            minute_cost_micros_max=spec.billing.max_cost_per_minute,
            velocity=velocity,
            velocity_names=frozenset(rule.name for rule in velocity),
            new_countries_max=fraud.new_destination.max_per_day if fraud.new_destination.enabled else None,
            remember_days=-(-fraud.new_destination.remember // 86_400),
            baseline=BaselinePolicy(-(-baseline.learn // 86_400), baseline.half_life, baseline.spend_factor)
            if baseline.enabled
            else None,
            thresholds=tuple(sorted(spec.notifications.thresholds, reverse=True)),
            owners=frozenset(owner for owner, is_needed in needed.items() if is_needed),
            lists=fraud.lists,
            own_lists=frozenset(
                name for name, on in ((DYNAMIC, fraud.dynamic_list.enabled), (SMART, fraud.smart_list.enabled)) if on
            ),
            dynamic_list=fraud.dynamic_list,
            smart_list=fraud.smart_list,
            reports=Mode.REPORT in modes.values(),
        )


def _velocity(rule: VelocityRule) -> VelocityPolicy:
    warning, critical = _level(rule.warning), _level(rule.critical)

    def counts(*names: str) -> bool:
        return any(getattr(level, name) is not None for level in (warning, critical) for name in names)

    return VelocityPolicy(
        rule.name, frozenset(rule.prefixes), rule.hours, rule.period * 1_000, warning, critical,
        counts("per_second"), counts("per_minute"), counts("total", "spend_micros"), counts("at_once"),
        counts("in_sequence"),
    )  # fmt: skip


def _level(level: VelocityLevel) -> VelocityLimits:
    return VelocityLimits(
        level.per_second, level.per_minute, level.total, level.at_once, level.in_sequence, level.duration, level.spend
    )


class AdmissionPolicies:
    """One revision for all realms: what is swapped whole."""

    def __init__(self, policies: PolicySet) -> None:
        self.revision = policies.revision
        self._policies = policies
        self._compiled: dict[str, AdmissionPolicy] = {}

    def for_realm(self, realm: str) -> AdmissionPolicy:
        found = self._compiled.get(realm)
        if found is None:
            # Realms are those of accounts in our database, not what a packet says: bounded by it.
            policies = self._policies
            found = AdmissionPolicy.of(policies.for_realm(realm), self.revision, policies.for_realm(""))
            self._compiled[realm] = found
        return found
