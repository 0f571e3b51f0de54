"""Fields about what accounts and addresses may use: lines, money, talk time, and the ceilings of a whole system.

Enforced by call-admission, in part by rating. Out: where calls may go, and how fast (fraud).
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from callwarden.policy.fields import ADMISSION, EDGE, RATING, FieldGroup, Level, Rule, camel, given, row, seconds
from callwarden.policy.values import (
    AMOUNT_WIRE,
    DURATION_WIRE,
    Amount,
    Duration,
    PeakHours,
    TimeZone,
    Wire,
    or_minus_one,
    text,
)


class Lines(FieldGroup):
    """Concurrent calls, and the rate of new ones."""

    max: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="Concurrent calls of an account that has no limit of its own.",
        json_schema_extra=row("maxlines"),
    )
    max_off_peak: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="The same outside peak hours; null: as in peak hours.",
        json_schema_extra=row("maxlinesoffpeak"),
    )
    peak_hours: PeakHours = Field(
        default="",
        description='Peak hours, such as "Mon-Fri 08:00-20:00"; empty: always peak.',
        json_schema_extra=row("maxlinesoffpeak"),
    )
    time_zone: TimeZone = Field(default="", description="Zone of the peak hours (IANA name); empty: the account's.")
    max_per_second: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="New calls per second of an account that has no limit of its own; null: no limit.",
    )


class Slice(FieldGroup):
    """Credit is reserved slice by slice during a call."""

    RULES = (
        Rule(
            ("minimum", "first"),
            f"!has(self.minimum) || !has(self.first) || {seconds('self.minimum')} <= {seconds('self.first')}",
            "is above first: no call could ever start",
            lambda slices: slices.minimum <= slices.first,
        ),
    )

    first: Duration = Field(default=60, ge=1, le=3_600, description="Talk time reserved when a call is admitted.")
    next: Duration = Field(default=60, ge=1, le=3_600, description="Talk time that each extension reserves.")
    minimum: Duration = Field(
        default=1, ge=1, le=3_600, description="A call is refused when the credit allows less talk time than this."
    )
    low_below: Amount | None = Field(
        default=None,
        description="Accounts with less free credit use slices of length `low`, so that several calls can share the "
        "rest; null: never.",
        json_schema_extra=row("credit", unit="currency"),
    )
    low: Duration = Field(default=10, ge=1, le=3_600, description="Slice length for accounts with little credit.")


class DailySpend(FieldGroup):
    """Spend allowed in one calendar day, in the account's time zone; an account's own limit takes precedence."""

    end_user: Amount | None = Field(
        default=None,
        description="For each enduser; null: no limit.",
        json_schema_extra=row("maxdailycreditforenduser", unit="currency"),
    )
    traffic_sender: Amount | None = Field(
        default=None,
        description="For each traffic sender; null: no limit.",
        json_schema_extra=row("maxdailycreditforts", unit="currency"),
    )
    per_account: bool | None = Field(
        default=None,
        description="Whether accounts' own daily limits apply; null: as soon as one account has one.",
        json_schema_extra=row("maxdailycreditperuser"),
    )


class DynamicDaily(FieldGroup):
    """Today's spend must not exceed a multiple of the largest daily spend so far."""

    mode: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="0: off. 1: endusers. 2: endusers and traffic senders.",
        json_schema_extra=row("checkmaxdyndailycredit"),
    )
    floor_end_user: Amount = Field(
        default=10_000_000,
        description="An enduser is never blocked below this spend.",
        json_schema_extra=row("maxdyndailycreditforenduser_min", unit="currency"),
    )
    floor_traffic_sender: Amount = Field(
        default=100_000_000,
        description="A traffic sender is never blocked below this spend.",
        json_schema_extra=row("maxdynmaxdailycreditforts_min", unit="currency"),
    )
    multiplier: int = Field(
        default=7,
        ge=1,
        le=1_000,
        description="The growth allowed within one day; below 4 the policy gets a warning.",
        json_schema_extra=row("maxdyndailycredit_multiplier"),
    )


class Spend(FieldGroup):
    slice: Slice = Field(
        default=Slice(),
        description="Length of the slices in which credit is reserved.",
        json_schema_extra=row("credit"),
    )
    check_postpaid: bool = Field(
        default=True,
        description="Whether monthly limits of postpaid accounts are enforced.",
        json_schema_extra=row("creditcheckforpostp"),
    )
    daily: DailySpend = Field(default=DailySpend(), description="Daily limits by type of account.")
    dynamic_daily: DynamicDaily = Field(
        default=DynamicDaily(), description="Daily limits that grow with what the account has spent before."
    )
    reject_status: int = Field(
        default=403,
        ge=400,
        le=699,
        description="SIP status for calls refused for credit or a quota.",
        json_schema_extra=row("quotadiscreason", by=(EDGE,)),
    )
    grace: Duration = Field(
        default=5,
        le=60,
        description="How long a call continues past its slice while call-admission can't be reached.",
        json_schema_extra=row(by=(ADMISSION, EDGE)),
    )


def _no_limit(value: Any) -> Any:
    return None if type(value) is int and value == -1 else value


def _no_limit_text(value: Any) -> Any:
    return None if value == "-1" else _no_limit(value)


class CallsPerAddress(FieldGroup):
    """Limits of the calls from one source address within a sliding period; null or -1: no limit."""

    max_calls: Annotated[
        Annotated[int, Field(ge=0, le=100_000_000)] | None,
        BeforeValidator(_no_limit),
        Wire({"type": "integer", "minimum": -1, "maximum": 100_000_000, "nullable": True}),
    ] = Field(default=None, description="Calls.", json_schema_extra=row("maxcallperip"))
    max_duration: Annotated[Duration | None, BeforeValidator(_no_limit_text), or_minus_one(DURATION_WIRE)] = Field(
        default=None, description="Talk time.", json_schema_extra=row("maxdurationperip")
    )
    max_cost: Annotated[Amount | None, BeforeValidator(_no_limit_text), or_minus_one(AMOUNT_WIRE)] = Field(
        default=None, description="Cost of the calls.", json_schema_extra=row("maxcostperip", unit="currency")
    )
    period: Annotated[float, Field(gt=0, le=31)] = Field(
        default=1.0, description="Length of the period in days.", json_schema_extra=row("maxcallperperiod", unit="days")
    )
    account: Annotated[
        Annotated[str, Field(max_length=255)] | None, BeforeValidator(_no_limit_text), or_minus_one(text(255))
    ] = Field(
        default=None,
        description="The limits apply to this account's calls only (its name); null or -1: to all.",
        json_schema_extra=row("maxcallperuserid"),
    )


class TalkTime(FieldGroup):
    """Talk time of accounts by day and month (account.limits.duration)."""

    enforce: Level[Literal[-1, 0, 1]] = Field(
        default=-1,
        description="-1: on as soon as one account has a limit. 0: off. 1: on.",
        json_schema_extra=row("calcmaxsl"),
    )


class Ceilings(FieldGroup):
    """Ceilings of the whole system or a realm; null: no ceiling."""

    max_calls: int | None = Field(
        default=None, ge=0, le=10_000_000, description="Concurrent calls.", json_schema_extra=row("licensecfg")
    )
    max_accounts: int | None = Field(
        default=None, ge=0, le=100_000_000, description="Accounts.", json_schema_extra=row("licensecfg")
    )
    max_calls_per_second: int | None = Field(
        default=None, ge=0, le=1_000_000, description="New calls per second.", json_schema_extra=row("licensecfg")
    )


def _realm_within_system(name: str) -> Rule:
    one, other = f"self.perRealm.{camel(name)}", f"self.{camel(name)}"

    def holds(system: "System") -> bool:
        each, all_ = getattr(system.per_realm, name), getattr(system, name)
        return each is None or all_ is None or each <= all_

    return Rule(
        ("per_realm", name),
        f"!({given(one)} && {given(other)}) || {one} <= {other}",
        f"{camel(name)} is above that of the whole system: it could never be reached",
        holds,
    )


class System(Ceilings):
    """Ceilings over all realms (from policies without a realm), and over each."""

    RULES = tuple(map(_realm_within_system, Ceilings.model_fields))

    per_realm: Ceilings = Field(
        default=Ceilings(),
        description="Ceilings of the policy's realm, or of each realm.",
        json_schema_extra=row("licensecfg"),
    )


class Billing(FieldGroup):
    """Calls without a price, or that cost more than they earn."""

    block_not_billed: Level[Literal[0, 1, 2, 3, 4, 5]] = Field(
        default=1,
        description="Calls that are refused. 0 and 1: without a price in the account's list or its reseller's. 2: "
        "without a rate for exactly the route's prefix. 3: priced by a list that isn't the account's. 4: also checks "
        "the list's prefix. 5: also the reseller's.",
        json_schema_extra=row("blocknotbilledcalls"),
    )
    block_not_profitable: Level[Literal[0, 1, 2, 3]] = Field(
        default=0,
        description="Routes that aren't used. 0: none. 1: those that cost more than the price. 2: also those that cost "
        "as much. 3: also those without a known cost.",
        json_schema_extra=row("blocknotprofitablecalls"),
    )
    exact_match: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="How the rate of a call is found. 0: by the longest prefix. 1: by the exact prefix, for accounts "
        "of resellers. 2: for all.",
        json_schema_extra=row("vgetpriceexactmatch", by=(RATING,)),
    )
    not_billed_severity: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="Severity of the event for a call without a price. 0: low. 1: error. 2: critical.",
        json_schema_extra=row("notbilledcallerr", by=(RATING,)),
    )
    max_cost_per_minute: Amount = Field(
        default=0,
        description="Routes that cost more per minute aren't used; 0: no limit.",
        json_schema_extra=row("blockhighcostcalls", unit="currency"),
    )
