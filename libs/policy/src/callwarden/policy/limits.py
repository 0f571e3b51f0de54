"""Fields about what accounts and addresses may use: lines, money, talk time, and the ceilings of a whole system.

Enforced by call-admission, in part by rating. Out: where calls may go and how quickly (fraud).
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
    """Calls at the same time, and how quickly new ones may come."""

    max: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="Calls at the same time for an account that has no limit of its own.",
        json_schema_extra=row("maxlines"),
    )
    max_off_peak: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="The same outside peak hours; null: as in them.",
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
        description="New calls of one account within any second, where it has no limit of its own; null: no limit.",
    )


class Slice(FieldGroup):
    """Credit is taken slice by slice while a call runs."""

    RULES = (
        Rule(
            ("minimum", "first"),
            f"!has(self.minimum) || !has(self.first) || {seconds('self.minimum')} <= {seconds('self.first')}",
            "is above first: no call could ever start",
            lambda slices: slices.minimum <= slices.first,
        ),
    )

    first: Duration = Field(default=60, ge=1, le=3_600, description="Talk time that is paid for before a call goes on.")
    next: Duration = Field(default=60, ge=1, le=3_600, description="Talk time that each extension pays for.")
    minimum: Duration = Field(
        default=1, ge=1, le=3_600, description="A call that credit allows less than this is refused."
    )
    low_below: Amount | None = Field(
        default=None,
        description="Below this free credit slices are those of `low`, so that several calls can share what is left; "
        "null: never.",
        json_schema_extra=row("credit", unit="currency"),
    )
    low: Duration = Field(
        default=10, ge=1, le=3_600, description="First and further slices of an account with little credit."
    )


class DailySpend(FieldGroup):
    """Spend allowed in one calendar day, in the account's time zone; an account's own limit goes before these."""

    end_user: Amount | None = Field(
        default=None,
        description="For every enduser; null: no limit.",
        json_schema_extra=row("maxdailycreditforenduser", unit="currency"),
    )
    traffic_sender: Amount | None = Field(
        default=None,
        description="For every traffic sender; null: no limit.",
        json_schema_extra=row("maxdailycreditforts", unit="currency"),
    )
    per_account: bool | None = Field(
        default=None,
        description="Whether an account's own daily limit holds; null: it does as soon as one account has one.",
        json_schema_extra=row("maxdailycreditperuser"),
    )


class DynamicDaily(FieldGroup):
    """Today's spend may not exceed a multiple of the largest daily spend so far."""

    mode: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="0: off. 1: endusers. 2: endusers and traffic senders.",
        json_schema_extra=row("checkmaxdyndailycredit"),
    )
    floor_end_user: Amount = Field(
        default=10_000_000,
        description="No block of an enduser below this spend.",
        json_schema_extra=row("maxdyndailycreditforenduser_min", unit="currency"),
    )
    floor_traffic_sender: Amount = Field(
        default=100_000_000,
        description="No block of a traffic sender below this spend.",
        json_schema_extra=row("maxdynmaxdailycreditforts_min", unit="currency"),
    )
    multiplier: int = Field(
        default=7,
        ge=1,
        le=1_000,
        description="The growth allowed within one day; below 4 the policy is taken with a warning.",
        json_schema_extra=row("maxdyndailycredit_multiplier"),
    )


class Spend(FieldGroup):
    slice: Slice = Field(
        default=Slice(), description="Size of the slices in which credit is held.", json_schema_extra=row("credit")
    )
    check_postpaid: bool = Field(
        default=True,
        description="Whether postpaid accounts are held to their monthly limits.",
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
        description="SIP status of a call that is refused for credit or a quota.",
        json_schema_extra=row("quotadiscreason", by=(EDGE,)),
    )
    grace: Duration = Field(
        default=5,
        le=60,
        description="How long a call goes on past its slice while call-admission can't be reached.",
        json_schema_extra=row(by=(ADMISSION, EDGE)),
    )


def _no_limit(value: Any) -> Any:
    return None if type(value) is int and value == -1 else value


def _no_limit_text(value: Any) -> Any:
    return None if value == "-1" else _no_limit(value)


class CallsPerAddress(FieldGroup):
    """What calls from one source address may come to within a sliding period; null or -1: no limit."""

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
        description="The limits hold for this account's calls only (its name); null or -1: for all.",
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
    """Most that a whole system or realm may have; null: no ceiling."""

    max_calls: int | None = Field(
        default=None, ge=0, le=10_000_000, description="Calls at the same time.", json_schema_extra=row("licensecfg")
    )
    max_accounts: int | None = Field(
        default=None, ge=0, le=100_000_000, description="Accounts.", json_schema_extra=row("licensecfg")
    )
    max_calls_per_second: int | None = Field(
        default=None, ge=0, le=1_000_000, description="New calls within a second.", json_schema_extra=row("licensecfg")
    )


def _realm_within_system(name: str) -> Rule:
    one, other = f"self.perRealm.{camel(name)}", f"self.{camel(name)}"

    def holds(system: "System") -> bool:
        each, all_ = getattr(system.per_realm, name), getattr(system, name)
        return each is None or all_ is None or each <= all_

    return Rule(
        ("per_realm", name),
        f"!({given(one)} && {given(other)}) || {one} <= {other}",
        f"{camel(name)} is above that of the whole system, and could never be reached",
        holds,
    )


class System(Ceilings):
    """Ceilings over all realms (taken from policies that name no realm), and over each."""

    RULES = tuple(map(_realm_within_system, Ceilings.model_fields))

    per_realm: Ceilings = Field(
        default=Ceilings(),
        description="Ceilings of the policy's realm, or of each.",
        json_schema_extra=row("licensecfg"),
    )


class Billing(FieldGroup):
    """Calls that nobody would pay, or that cost more than they bring."""

    block_not_billed: Level[Literal[0, 1, 2, 3, 4, 5]] = Field(
        default=0,
        description="0: no. 1: no price in the account's list. 2: no rate for the very prefix that the call is routed "
        "by. 3: a price list that isn't its own. 4: checks the list's prefix, too. 5: the reseller's, too.",
        json_schema_extra=row("blocknotbilledcalls"),
    )
    block_not_profitable: Level[Literal[0, 1, 2, 3]] = Field(
        default=0,
        description="No route that costs: 1 more than the price, 2 as much, 3 nobody knows how much.",
        json_schema_extra=row("blocknotprofitablecalls"),
    )
    exact_match: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="0: the longest prefix prices a call. 1: the exact prefix for accounts of resellers. 2: for all.",
        json_schema_extra=row("vgetpriceexactmatch", by=(RATING,)),
    )
    not_billed_severity: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="Severity of the event for a call without a price. 0: low. 1: error. 2: critical.",
        json_schema_extra=row("notbilledcallerr", by=(RATING,)),
    )
    max_cost_per_minute: Amount = Field(
        default=0,
        description="No route that costs more a minute; 0: no limit.",
        json_schema_extra=row("blockhighcostcalls", unit="currency"),
    )
