"""Answers: admitted or refused, why, and with which numbers. How a rule decides is in the rule."""

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why something was refused. The value is what events, CDRs, metrics and the CLI show; it never changes meaning.

    Each edge maps every reason to its status in one table (SIP: callwarden.edge_proxy.core.statuses), proved total.
    """

    # who
    CREDENTIALS = "credentials"  # unknown user and wrong password alike
    UNAUTHENTICATED = "unauthenticated"  # no credentials where they are required
    ACCOUNT_DISABLED = "account-disabled"
    ACCOUNT_UNKNOWN = "account-unknown"
    CALLER_ID = "caller-id"  # shows a number that isn't its own
    CALLER_LISTED = "caller-listed"  # calls with a number that is on a list
    # how much traffic
    BANNED = "banned"
    RATE = "rate"
    SCANNER = "scanner"
    MALFORMED = "malformed"
    OVERLOAD = "overload"
    # how many, how much, how long
    LINES = "lines"
    CREDIT = "credit"
    DAILY_SPEND = "daily-spend"
    MONTHLY_SPEND = "monthly-spend"
    TALK_TIME = "talk-time"  # of a day or month
    DURATION = "duration"
    ADDRESS_QUOTA = "address-quota"  # calls, talk time or cost of a source address
    RESELLER_QUOTA = "reseller-quota"  # of all accounts of a reseller together
    CEILING = "ceiling"  # calls at once of a realm or the whole system
    VELOCITY = "velocity"
    BASELINE = "baseline"  # out of line with the account's history
    # where to
    DESTINATION = "destination"  # blocked country, prefix or list
    PREMIUM = "premium"
    SATELLITE = "satellite"
    NEW_DESTINATION = "new-destination"  # a country that the account hasn't called before
    ONLY_LOCAL = "only-local"  # a trunk that reaches local numbers only
    NOT_BILLED = "not-billed"  # priced, but not by a price list that is right for the call
    NOT_PROFITABLE = "not-profitable"  # every route costs more than the call brings
    ROUTE_COST = "route-cost"  # every route costs more a minute than policy allows
    NO_RATE = "no-rate"
    NO_ROUTE = "no-route"
    NOT_FOUND = "not-found"  # a local user who isn't registered
    NOT_REGISTERED = "not-registered"  # a number of ours whose owner has neither a phone registered nor a trunk
    FOREIGN_DOMAIN = "foreign-domain"
    BAD_NUMBER = "bad-number"
    TRANSFER = "transfer"  # a REFER that policy lets nobody send
    # what we couldn't know
    UNAVAILABLE = "unavailable"  # a dependency is dead and policy says refuse


class Mode(Enum):
    """What a rule's verdict does: refuses, is only recorded, or isn't even evaluated."""

    ENFORCE = "enforce"
    REPORT = "report"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Refuse:
    """A refusal with all that explains it.

    `value` and `limit` are in the counter's unit (calls, micros, seconds); `window` names the span that was counted
    ("now", "60 s", "day 2026-11-23 Europe/Berlin"); `text` is one sentence for people.
    """

    reason: Reason
    rule: str
    counter: str = ""
    value: int = 0
    limit: int = 0
    window: str = ""
    text: str = ""
    retry_after_s: int = 0


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule's part in a decision: what `callwarden explain` prints a line of."""

    rule: str
    mode: Mode
    refused: Refuse | None = None
    counter: str = ""
    value: int = 0
    limit: int | None = None
    window: str = ""
    skipped: str = ""
    """Why the rule didn't apply to this call; empty where it was evaluated."""
