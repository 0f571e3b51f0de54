"""Fields about what is told to whom, payments, and what each rule's verdict does.

Out: the limits that events and modes speak of (limits, fraud).
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from callwarden.policy.fields import ADMISSION, FieldGroup, Level, Many, at_most, row
from callwarden.policy.values import Amount, Duration, text

_MAIL = r"^[^@ ]{1,64}@[A-Za-z0-9.-]{1,189}$"
_URL = r"^https?://[^ ]+$"


def _quoted(value: object) -> object:
    if value is False:
        raise ValueError('write "Off" in quotes: YAML reads it as false')
    return value


Mode = Annotated[Literal["Enforce", "Report", "Off"], BeforeValidator(_quoted)]


Recipient = Annotated[str, Field(max_length=254, pattern=_MAIL), text(254, _MAIL)]
Url = Annotated[str, Field(max_length=2_048, pattern=_URL), text(2_048, _URL)]


class Email(FieldGroup):
    """What is told by mail. The mail server and its password belong to the deployment, not to a policy."""

    level: Level[Literal[0, 1, 2, 3]] = Field(
        default=0,
        description="0: nothing. 1: critical events. 2: also blocked users. 3: also warnings.",
        json_schema_extra=row("sendadminemailnotifications"),
    )
    to: Many[Recipient] = Field(default=(), max_length=32, description="Who gets the mails.")
    group: Duration = Field(
        default=300,
        ge=10,
        le=86_400,
        description="Events within this time go into one message, so that a storm is one.",
    )


class Notices(FieldGroup):
    """Events that tell of limits before and when they hit, and who hears of them."""

    thresholds: Many[Annotated[int, Field(ge=1, le=100)]] = Field(
        default=(50, 80, 100),
        max_length=8,
        description="Percent of a limit at which an event is raised, once for each account, rule and day.",
        json_schema_extra=row(by=(ADMISSION,)),
    )
    email: Email = Field(default=Email(), description="What is told by mail.")
    webhooks: Many[Url] = Field(
        default=(),
        max_length=16,
        description="Where the same is posted as JSON.",
    )
    report: Literal["Never", "Daily", "Weekly"] = Field(
        default="Daily",
        description="How often a report of abnormal traffic is sent (by account, destination and address, against "
        "what is usual).",
        json_schema_extra=row("daily-analysis"),
    )


class PaymentLimits(FieldGroup):
    """Payments of one account, payer and card; a payment beyond is refused."""

    RULES = (at_most("min_amount", "max_amount", money=True, reason="is above maxAmount: nothing could be paid"),)

    per_day: int | None = Field(
        default=3,
        ge=0,
        le=100_000,
        description="Payments a day; null: no limit.",
        json_schema_extra=row("payment-limits"),
    )
    min_amount: Amount | None = Field(
        default=None,
        description="Smallest payment; null: no limit.",
        json_schema_extra=row("payment-limits", unit="currency"),
    )
    max_amount: Amount | None = Field(
        default=200_000_000,
        description="Largest payment; null: no limit.",
        json_schema_extra=row("payment-limits", unit="currency"),
    )
    max_amount_per_day: Amount | None = Field(
        default=None,
        description="Sum of a day's payments; null: no limit.",
        json_schema_extra=row("payment-limits", unit="currency"),
    )


class Payment(FieldGroup):
    """Payments by a gateway; card data never enters the product."""

    enabled: bool = Field(
        default=True,
        description="Whether accounts are credited by a gateway's signed messages, each once however often it comes.",
        json_schema_extra=row("payment-offload"),
    )
    review: bool = Field(
        default=True,
        description="Whether suspicious payments, and the first one of an unverified payer, wait for a person.",
        json_schema_extra=row("payment-review"),
    )
    limits: PaymentLimits = Field(
        default=PaymentLimits(), description="Number and amount of payments.", json_schema_extra=row("payment-limits")
    )


class Modes(FieldGroup):
    """What an admission rule's verdict does: Enforce refuses, Report records and lets through, Off doesn't evaluate."""

    lines: Mode = Field(default="Enforce", description="Calls at the same time.")
    credit: Mode = Field(
        default="Enforce",
        description="Prepaid credit. Report lets calls on that can't be paid, at zero balance and no charge beyond it.",
    )
    daily_spend: Mode = Field(default="Enforce", description="Spend of the day.")
    premium: Mode = Field(default="Enforce", description="Premium-rate and shared-cost numbers.")
    satellite: Mode = Field(default="Enforce", description="Satellite networks.")
    destinations: Mode = Field(default="Enforce", description="Allowed and blocked prefixes and countries.")
    billing: Mode = Field(default="Enforce", description="Calls without a price list that is right for them.")
    profit: Mode = Field(default="Enforce", description="Routes that cost more than they bring.")
    cost: Mode = Field(default="Enforce", description="Routes whose minute costs too much.")
    lists: Mode = Field(default="Enforce", description="Fixed, dynamic and smart lists of numbers.")
    only_local: Mode = Field(default="Enforce", description="Traffic senders that may reach local numbers only.")
    calls_per_second: Mode = Field(default="Enforce", description="New calls of an account within a second.")
    address_calls: Mode = Field(default="Enforce", description="Calls of a source address.")
    address_duration: Mode = Field(default="Enforce", description="Talk time of a source address.")
    address_cost: Mode = Field(default="Enforce", description="Cost of a source address's calls.")
    system_calls: Mode = Field(default="Enforce", description="The system's calls at the same time.")
    system_rate: Mode = Field(default="Enforce", description="The system's calls per second.")
    realm_calls: Mode = Field(default="Enforce", description="A realm's calls at the same time.")
    realm_rate: Mode = Field(default="Enforce", description="A realm's calls per second.")
    reseller_lines: Mode = Field(default="Enforce", description="Calls at the same time over a reseller's accounts.")
    reseller_spend: Mode = Field(default="Enforce", description="Spend over a reseller's accounts.")
    talk_time: Mode = Field(default="Enforce", description="Talk time by day and month.")
    carrier_talk_time: Mode = Field(
        default="Enforce", description="Talk time that a carrier terminates, by day and month."
    )
    dynamic_daily: Mode = Field(default="Enforce", description="Spend of the day against the largest so far.")
    monthly_spend: Mode = Field(default="Enforce", description="Spend of the month.")
    velocity: Mode = Field(default="Enforce", description="How quickly an account calls.")
    new_destination: Mode = Field(default="Enforce", description="Countries new to an account.")
    baseline: Mode = Field(default="Report", description="What is out of line with an account's history.")
