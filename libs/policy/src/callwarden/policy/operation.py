"""Fields about notifications, payments, and what each rule's verdict does.

Out: the limits that events and modes are about (limits, fraud).
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
    """Notifications by mail. The mail server and its password belong to the deployment, not to a policy."""

    level: Level[Literal[0, 1, 2, 3]] = Field(
        default=0,
        description="0: nothing. 1: critical events. 2: also blocked users. 3: also warnings.",
        json_schema_extra=row("sendadminemailnotifications"),
    )
    to: Many[Recipient] = Field(default=(), max_length=32, description="Recipients of the mails.")
    group: Duration = Field(
        default=300,
        ge=10,
        le=86_400,
        description="Events within this time go into one message.",
    )


class Notifications(FieldGroup):
    """Events about limits before and when they are reached, and who is notified."""

    thresholds: Many[Annotated[int, Field(ge=1, le=100)]] = Field(
        default=(50, 80, 100),
        max_length=8,
        description="Percentages of a limit at which an event is raised, once per account, rule and day.",
        json_schema_extra=row(by=(ADMISSION,)),
    )
    email: Email = Field(default=Email(), description="Notifications by mail.")
    webhooks: Many[Url] = Field(
        default=(),
        max_length=16,
        description="URLs to which the same notifications are posted as JSON.",
    )
    report: Literal["Never", "Daily", "Weekly"] = Field(
        default="Daily",
        description="How often a report of abnormal traffic is sent (by account, destination and address, compared "
        "with usual traffic).",
        json_schema_extra=row("daily-analysis"),
    )


class PaymentLimits(FieldGroup):
    """Limits per account, payer and card; payments beyond them are refused."""

    RULES = (
        at_most("min_amount", "max_amount", money=True, reason="is above maxAmount: no payment would be possible"),
    )

    per_day: int | None = Field(
        default=3,
        ge=0,
        le=100_000,
        description="Payments per day; null: no limit.",
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
        description="Sum of payments per day; null: no limit.",
        json_schema_extra=row("payment-limits", unit="currency"),
    )


class Payment(FieldGroup):
    """Payments by a gateway; card data never enters the product."""

    enabled: bool = Field(
        default=True,
        description="Whether a gateway's signed messages credit accounts, each once however often it arrives.",
        json_schema_extra=row("payment-offload"),
    )
    review: bool = Field(
        default=True,
        description="Whether suspicious payments, and the first payment of an unverified payer, wait for approval.",
        json_schema_extra=row("payment-review"),
    )
    limits: PaymentLimits = Field(
        default=PaymentLimits(), description="Number and amount of payments.", json_schema_extra=row("payment-limits")
    )


class Modes(FieldGroup):
    """What an admission rule's verdict does: Enforce refuses, Report records and allows, Off doesn't evaluate."""

    lines: Mode = Field(default="Enforce", description="Concurrent calls.")
    credit: Mode = Field(
        default="Enforce",
        description="Prepaid credit. Report lets unpaid calls continue at zero balance, without a charge beyond it.",
    )
    daily_spend: Mode = Field(default="Enforce", description="Daily spend.")
    premium: Mode = Field(default="Enforce", description="Premium-rate and shared-cost numbers.")
    satellite: Mode = Field(default="Enforce", description="Satellite networks.")
    destinations: Mode = Field(default="Enforce", description="Allowed and blocked prefixes and countries.")
    billing: Mode = Field(default="Enforce", description="Calls without a suitable price list.")
    profit: Mode = Field(default="Enforce", description="Routes that cost more than they earn.")
    cost: Mode = Field(default="Enforce", description="Routes that cost too much per minute.")
    lists: Mode = Field(default="Enforce", description="Fixed, dynamic and smart lists of numbers.")
    only_local: Mode = Field(default="Enforce", description="Traffic senders that may reach local numbers only.")
    calls_per_second: Mode = Field(default="Enforce", description="New calls of an account per second.")
    address_calls: Mode = Field(default="Enforce", description="Calls of a source address.")
    address_duration: Mode = Field(default="Enforce", description="Talk time of a source address.")
    address_cost: Mode = Field(default="Enforce", description="Cost of a source address's calls.")
    system_calls: Mode = Field(default="Enforce", description="The system's concurrent calls.")
    system_rate: Mode = Field(default="Enforce", description="The system's calls per second.")
    realm_calls: Mode = Field(default="Enforce", description="A realm's concurrent calls.")
    realm_rate: Mode = Field(default="Enforce", description="A realm's calls per second.")
    reseller_lines: Mode = Field(default="Enforce", description="Concurrent calls of a reseller's accounts.")
    reseller_spend: Mode = Field(default="Enforce", description="Spend of a reseller's accounts.")
    talk_time: Mode = Field(default="Enforce", description="Talk time by day and month.")
    carrier_talk_time: Mode = Field(
        default="Enforce", description="Talk time that a carrier terminates, by day and month."
    )
    dynamic_daily: Mode = Field(default="Enforce", description="Daily spend compared with the largest so far.")
    monthly_spend: Mode = Field(default="Enforce", description="Monthly spend.")
    velocity: Mode = Field(default="Enforce", description="How fast an account calls.")
    new_destination: Mode = Field(default="Enforce", description="Countries that are new to an account.")
    baseline: Mode = Field(default="Report", description="Deviations from an account's history.")
