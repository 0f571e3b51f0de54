"""Fields about where calls must not go, how fast, and which numbers are listed.

Enforced by call-admission. Out: what accounts may spend (limits).
"""

from typing import Any

from pydantic import Field

from callwarden.policy.fields import FieldGroup, Many, Rule, camel, given, row
from callwarden.policy.values import Amount, Country, Duration, ListName, NumberPrefix, PeakHours


class Destinations(FieldGroup):
    allow: Many[NumberPrefix] = Field(
        default=(),
        max_length=10_000,
        description="When not empty, only these prefixes may be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    block: Many[NumberPrefix] = Field(
        default=(),
        max_length=10_000,
        description="Prefixes that must not be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    allow_countries: Many[Country] = Field(
        default=(),
        max_length=300,
        description="When not empty, only these countries (ISO 3166 alpha-2, such as DE) may be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    block_countries: Many[Country] = Field(
        default=(),
        max_length=300,
        description="Countries that must not be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    home_only: bool = Field(
        default=False,
        description="Only the account's own country (of its profile) may be called; without one, none.",
        json_schema_extra=row("blocked-destinations"),
    )


class VelocityLevel(FieldGroup):
    """Limits of one velocity rule; null: not counted. `inSequence` counts consecutive calls to one prefix."""

    per_second: int | None = Field(default=None, ge=1, le=1_000_000, description="New calls per second.")
    per_minute: int | None = Field(default=None, ge=1, le=1_000_000, description="New calls per minute.")
    total: int | None = Field(default=None, ge=1, le=100_000_000, description="New calls within the rule's period.")
    at_once: int | None = Field(default=None, ge=1, le=1_000_000, description="Concurrent calls.")
    in_sequence: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Consecutive calls with no other destination in between."
    )
    duration: Duration | None = Field(default=None, ge=1, description="Talk time of one call.")
    spend: Amount | None = Field(default=None, description="Spend within the rule's period.")


def _warning_below_critical(name: str) -> Rule:
    written = camel(name)

    def holds(rule: "VelocityRule") -> bool:
        warning, critical = getattr(rule.warning, name), getattr(rule.critical, name)
        return warning is None or critical is None or warning <= critical

    one, other = f"self.warning.{written}", f"self.critical.{written}"
    return Rule(
        ("warning", "critical"),
        f"!({given(one)} && {given(other)}) || {one} <= {other}",
        f"{written} is above that of critical: there would never be a warning",
        holds,
    )


class VelocityRule(FieldGroup):
    """How fast one account may call one group of destinations."""

    RULES = tuple(
        _warning_below_critical(name) for name in ("per_second", "per_minute", "total", "at_once", "in_sequence")
    )

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="Shown in refusals.")
    prefixes: Many[NumberPrefix] = Field(
        default=(), max_length=1_000, description="Destinations counted together; empty: all."
    )
    hours: PeakHours = Field(
        default="", description='When the rule applies, such as "Mon-Fri 22:00-24:00"; empty: always.'
    )
    period: Duration = Field(default=3_600, ge=60, le=86_400, description="Sliding period of `total` and `spend`.")
    warning: VelocityLevel = Field(default=VelocityLevel(), description="Above these a warning is raised.")
    critical: VelocityLevel = Field(default=VelocityLevel(), description="A call above these is refused.")


class Baseline(FieldGroup):
    """An account's usual behaviour, learned and slowly forgotten: destinations, hours, daily spend."""

    enabled: bool = Field(
        default=False, description="Whether calls that deviate from the account's history are flagged."
    )
    learn: Duration = Field(
        default=7 * 86_400, ge=86_400, description="History that an account needs before deviations are flagged."
    )
    half_life: Duration = Field(
        default=14 * 86_400, ge=86_400, description="After this time an observation has half its weight."
    )
    spend_factor: int = Field(
        default=5, ge=2, le=1_000, description="Daily spend above this multiple of the usual is a deviation."
    )


class NewDestination(FieldGroup):
    """Calls to a country that the account hasn't called before."""

    enabled: bool = Field(default=False, description="Whether calls to new countries are limited.")
    max_per_day: int = Field(default=3, ge=0, le=1_000_000, description="New countries of an account in one day.")
    remember: Duration = Field(
        default=90 * 86_400, ge=86_400, description="A country not called for this long is new again."
    )


def min_accounts() -> Any:
    return Field(
        default=3,
        ge=1,
        le=20,
        description="A called number is listed for the realm only for calls of so many accounts, each counting for no "
        "more than its share; before that for the account that stands out.",
    )


def min_addresses() -> Any:
    return Field(
        default=2,
        ge=1,
        le=20,
        description="As `minAccounts`, of addresses (of IPv6 the /64) that the calls come from.",
    )


class DynamicList(FieldGroup):
    """Called numbers that keep failing, or were part of a detected attack, are listed for a time."""

    enabled: bool = Field(
        default=True, description="Whether these numbers are listed.", json_schema_extra=row("blacklist-dynamic")
    )
    failures: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="A number with more failed calls within the period is listed.",
        json_schema_extra=row("blacklist-dynamic"),
    )
    period: Duration = Field(default=600, ge=1, le=86_400, description="Sliding period of `failures`.")
    min_accounts: int = min_accounts()
    min_addresses: int = min_addresses()
    listed: Duration = Field(default=3_600, ge=1, description="How long a number stays listed.")


class SmartList(FieldGroup):
    """Callers and targets with abnormal call statistics are listed for a time."""

    enabled: bool = Field(
        default=True, description="Whether statistics are scored.", json_schema_extra=row("blacklist-smart")
    )
    min_calls: int = Field(default=200, ge=10, le=1_000_000, description="Calls needed before anything is scored.")
    min_answered_percent: int = Field(
        default=5,
        ge=0,
        le=100,
        description="An answer-seizure ratio (answered calls in percent) below this adds to the score.",
    )
    min_average: Duration = Field(default=5, description="An average talk time below this adds to the score.")
    max_short_percent: int = Field(
        default=80, ge=0, le=100, description="A share of answered calls under 6 s above this adds to the score."
    )
    min_accounts: int = min_accounts()
    min_addresses: int = min_addresses()
    listed: Duration = Field(default=3_600, ge=1, description="How long a caller or target stays listed.")


class Fraud(FieldGroup):
    """Where calls must not go, how fast they may come, which numbers are listed."""

    RULES = (
        Rule(
            ("velocity",),
            "!has(self.velocity) || self.velocity.all(a, self.velocity.exists_one(b, b.name == a.name))",
            "has two rules with the same name",
            lambda fraud: len({rule.name for rule in fraud.velocity}) == len(fraud.velocity),
        ),
    )

    block_premium: bool = Field(
        default=True,
        description="Whether premium-rate and shared-cost numbers of all countries are refused, by number-plan data.",
        json_schema_extra=row("blockpremiumnumbers"),
    )
    block_satellite: bool = Field(
        default=True,
        description="Whether satellite networks (+870, +881, +882, +883) are refused.",
        json_schema_extra=row("blocksatellitecalls"),
    )
    destinations: Destinations = Field(default=Destinations(), description="Prefixes and countries allowed or blocked.")
    lists: Many[ListName] = Field(
        default=(),
        max_length=64,
        description="Number lists (`callwarden list import`) whose numbers must neither call nor be called.",
        json_schema_extra=row("blacklist-fixed"),
    )
    velocity: Many[VelocityRule] = Field(
        default=(), max_length=32, description="How fast accounts may call groups of destinations."
    )
    baseline: Baseline = Field(default=Baseline(), description="Deviations from an account's usual behaviour.")
    new_destination: NewDestination = Field(
        default=NewDestination(), description="Countries that are new to an account."
    )
    dynamic_list: DynamicList = Field(
        default=DynamicList(), description="Numbers that are listed because calls to them fail."
    )
    smart_list: SmartList = Field(default=SmartList(), description="Callers and targets with abnormal statistics.")
