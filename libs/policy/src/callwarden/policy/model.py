"""The SecurityPolicy resource (callwarden.io/v1) as one typed model: its fields, defaults, ranges and what they do.

In: every field that a service enforces, each with the id of its row in the settings catalogue. Out: how several
policies become one (callwarden.policy.bundle) and how they travel (callwarden.common.policy). A field stands here from
the day a service enforces it, not before: nobody may believe in a protection that isn't there.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from callwarden.policy.values import (
    NETWORKS_MAX,
    Amount,
    Country,
    Duration,
    ListName,
    Network,
    NumberPrefix,
    PeakHours,
    TimeZone,
)

API_VERSION: Final = "callwarden.io/v1"
KIND: Final = "SecurityPolicy"


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


class Part(BaseModel):
    """A group of fields: frozen, camelCase outside, unknown ones refused (a slip must not switch off a limit)."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_camel, populate_by_name=True, strict=False)


def row(*ids: str, unit: str = "") -> dict[str, Any]:
    """Links a field to the settings catalogue; shown in `policy explain` and the reference."""
    return {"catalogue": list(ids), **({"unit": unit} if unit else {})}


Mode = Literal["Enforce", "Report", "Off"]


class AddressWindow(Part):
    """So many events from one address within a sliding period."""

    max: int = Field(ge=1, le=100_000_000, description="More than this within the period bans the address.")
    period: Duration = Field(ge=1, description="Length of the sliding period.")


class Messages(Part):
    """Messages of any kind, per source address."""

    per_address: AddressWindow = Field(
        default=AddressWindow(max=39_000, period=180),
        description="SIP messages from one address.",
        json_schema_extra=row("maxsubsmsgcount", "maxsubsmsgperiod"),
    )
    wrong_per_address: AddressWindow = Field(
        default=AddressWindow(max=4_000, period=3_600),
        description="Malformed or meaningless messages from one address.",
        json_schema_extra=row("maxwrongmsgallowed", "maxwrongmsgperiod"),
    )
    reset_after: Duration = Field(
        default=21_600,
        ge=1,
        description="How long a ban that a counter caused lasts.",
        json_schema_extra=row("reenabledosblocked"),
    )


class FailureLimit(Part):
    max: int = Field(ge=1, le=10_000_000, description="More failures than this within the period ban.")


class AuthFailures(Part):
    """Wrong credentials. The first challenge, a stale nonce and a retransmission never count."""

    period: Duration = Field(
        default=3_600,
        ge=1,
        description="The sliding period of these counters.",
        json_schema_extra=row("maxsubfailauthperiod"),
    )
    per_address: FailureLimit = Field(
        default=FailureLimit(max=2_500),
        description="From one address that no account has authenticated from.",
        json_schema_extra=row("maxwrongauthfromip"),
    )
    per_known_address: FailureLimit = Field(
        default=FailureLimit(max=800),
        description="From one address that some account has authenticated from.",
        json_schema_extra=row("maxfailedauthenabledip"),
    )
    per_known_endpoint: FailureLimit = Field(
        default=FailureLimit(max=50),
        description="From one address and port that some account has authenticated from.",
        json_schema_extra=row("maxfailedauthenabledipport"),
    )


class Firewall(Part):
    """Static lists; allow goes before deny, and an allowed address is never banned by a counter."""

    allow: tuple[Network, ...] = Field(
        default=(), max_length=NETWORKS_MAX, description="Never banned.", json_schema_extra=row("firewall-static")
    )
    deny: tuple[Network, ...] = Field(
        default=(), max_length=NETWORKS_MAX, description="Always dropped.", json_schema_extra=row("firewall-static")
    )


class Digest(Part):
    algorithms: Literal[0, 1, 2] = Field(
        default=1,
        description="0: MD5 only. 1: SHA-256 offered first, MD5 behind it. 2: SHA-256 or better only.",
        json_schema_extra=row("useshadigestauh"),
    )
    nonce_lifetime: Duration = Field(
        default=300,
        ge=10,
        le=86_400,
        description="After this a nonce is answered with stale=true, which counts as nothing.",
    )


class Authentication(Part):
    digest: Digest = Field(default=Digest(), description="Digest authentication (RFC 7616, RFC 8760).")


class Sip(Part):
    """Screening of messages by what they say of themselves."""

    scanners: tuple[Annotated[str, Field(min_length=3, max_length=64)], ...] = Field(
        default=(
            "friendly-scanner",
            "sipvicious",
            "sipcli",
            "sundayddr",
            "pplsip",
            "sip-scan",
            "VaxSIPUserAgent",
            "iWar",
            "sipsak",
            "eyeBeam-scan",
        ),
        max_length=256,
        description="Parts of a User-Agent (any case) whose requests are dropped unanswered; the source is banned.",
        json_schema_extra=row("scanner-agents"),
    )
    blocked_user_agents: tuple[Annotated[str, Field(min_length=3, max_length=64)], ...] = Field(
        default=(),
        max_length=256,
        description="Parts of a User-Agent (any case) whose requests are dropped without an answer.",
        json_schema_extra=row("blockua"),
    )


class Session(Part):
    """How long a call may take to come about and to last."""

    absolute_timeout: Duration = Field(
        default=14_400, ge=60, description="No call outlives this.", json_schema_extra=row("absolute-timeout")
    )
    call_timeout: Duration = Field(
        default=7_200, ge=1, description="Longest talk time of one call.", json_schema_extra=row("call-timeout")
    )
    ring_timeout: Duration = Field(
        default=120,
        ge=5,
        le=600,
        description="A call that rings longer is cancelled.",
        json_schema_extra=row("ring-timeout"),
    )
    call_init_timeout: Duration = Field(
        default=20,
        ge=1,
        le=120,
        description="A call without any provisional answer for this long is cancelled; the next route is tried.",
        json_schema_extra=row("call-init-timeout"),
    )


class Lines(Part):
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
        max_length=255,
        description='Peak hours, such as "Mon-Fri 08:00-20:00"; empty: always peak.',
        json_schema_extra=row("maxlinesoffpeak"),
    )
    time_zone: TimeZone = Field(
        default="", max_length=64, description="Zone of the peak hours (IANA name); empty: the account's."
    )
    max_per_second: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="New calls of one account within any second, where it has no limit of its own; null: no limit.",
    )


class Slice(Part):
    """Credit is taken slice by slice while a call runs."""

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

    @model_validator(mode="after")
    def _minimum_below_first(self) -> "Slice":
        if self.minimum > self.first:
            raise ValueError("minimum is above first: no call could ever start")
        return self


class DailySpend(Part):
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


class DynamicDaily(Part):
    """Today's spend may not exceed a multiple of the largest daily spend so far."""

    mode: Literal[0, 1, 2] = Field(
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


class Spend(Part):
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
        json_schema_extra=row("quotadiscreason"),
    )
    grace: Duration = Field(
        default=5,
        le=60,
        description="How long a call goes on past its slice while call-admission can't be reached.",
    )


class Destinations(Part):
    allow: tuple[NumberPrefix, ...] = Field(
        default=(),
        max_length=10_000,
        description="When not empty, only these prefixes may be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    block: tuple[NumberPrefix, ...] = Field(
        default=(),
        max_length=10_000,
        description="Prefixes that may not be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    allow_countries: tuple[Country, ...] = Field(
        default=(),
        max_length=300,
        description="When not empty, only these countries (ISO 3166 alpha-2, such as DE) may be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    block_countries: tuple[Country, ...] = Field(
        default=(),
        max_length=300,
        description="Countries that may not be called.",
        json_schema_extra=row("blocked-destinations"),
    )
    home_only: bool = Field(
        default=False,
        description="Only the account's own country (its profile's) may be called; without one, none is home.",
        json_schema_extra=row("blocked-destinations"),
    )


class VelocityLevel(Part):
    """Limits of one velocity rule; null: not counted. `inSequence` is calls one after another to one prefix."""

    per_second: int | None = Field(default=None, ge=1, le=1_000_000, description="New calls within a second.")
    per_minute: int | None = Field(default=None, ge=1, le=1_000_000, description="New calls within 60 s.")
    total: int | None = Field(default=None, ge=1, le=100_000_000, description="New calls within the rule's period.")
    at_once: int | None = Field(default=None, ge=1, le=1_000_000, description="Calls at the same time.")
    in_sequence: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Calls in a row with no other destination between them."
    )
    duration: Duration | None = Field(default=None, ge=1, description="Talk time of one call.")
    spend: Amount | None = Field(default=None, description="Spend within the rule's period.")


class VelocityRule(Part):
    """How quickly one account may call one group of destinations."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="Shown in refusals.")
    prefixes: tuple[NumberPrefix, ...] = Field(
        default=(), max_length=1_000, description="Destinations that are counted together; empty: all."
    )
    hours: PeakHours = Field(
        default="", max_length=255, description='When the rule holds, such as "Mon-Fri 22:00-24:00"; empty: always.'
    )
    period: Duration = Field(default=3_600, ge=60, le=86_400, description="Sliding period of `total` and `spend`.")
    warning: VelocityLevel = Field(default=VelocityLevel(), description="Above this a warning is raised.")
    critical: VelocityLevel = Field(default=VelocityLevel(), description="A call above this is refused.")


class Baseline(Part):
    """What an account usually does, learnt and slowly forgotten: destinations, hours, spend of a day."""

    enabled: bool = Field(
        default=False, description="Whether calls out of line with the account's history are flagged."
    )
    learn: Duration = Field(
        default=7 * 86_400, ge=86_400, description="History that an account needs before anything is out of line."
    )
    half_life: Duration = Field(default=14 * 86_400, ge=86_400, description="After this a memory has half its weight.")
    spend_factor: int = Field(
        default=5, ge=2, le=1_000, description="Spend of a day above so many times the usual is out of line."
    )


class NewDestination(Part):
    """Calls to a country that the account hasn't called before."""

    enabled: bool = Field(default=False, description="Whether first calls to a country are limited.")
    max_per_day: int = Field(
        default=3, ge=0, le=1_000_000, description="Countries that are new to an account, in one day."
    )
    remember: Duration = Field(
        default=90 * 86_400, ge=86_400, description="A country not called for this long is new again."
    )


class DynamicList(Part):
    """Called numbers that keep failing, or were part of a detected attack, are listed for a time."""

    enabled: bool = Field(
        default=True, description="Whether such numbers are listed.", json_schema_extra=row("blacklist-dynamic")
    )
    failures: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="More failed calls to one number within the period list it.",
        json_schema_extra=row("blacklist-dynamic"),
    )
    period: Duration = Field(default=600, ge=1, le=86_400, description="Sliding period of `failures`.")
    listed: Duration = Field(default=3_600, ge=1, description="How long a number stays listed.")


class SmartList(Part):
    """Callers and targets whose call statistics fall out of line are listed for a time."""

    enabled: bool = Field(
        default=True, description="Whether statistics are scored.", json_schema_extra=row("blacklist-smart")
    )
    min_calls: int = Field(default=200, ge=10, le=1_000_000, description="Calls before anything is scored.")
    min_answered_percent: int = Field(
        default=5, ge=0, le=100, description="Answered calls of 100 (answer-seizure ratio) below this add to the score."
    )
    min_average: Duration = Field(default=5, description="Average talk time of a call below this adds to the score.")
    max_short_percent: int = Field(
        default=80, ge=0, le=100, description="Answered calls under 6 s of 100 above this add to the score."
    )
    listed: Duration = Field(default=3_600, ge=1, description="How long a caller or target stays listed.")


class Fraud(Part):
    block_premium: bool = Field(
        default=True,
        description="Refuse premium-rate and shared-cost numbers of any country, by number-plan data.",
        json_schema_extra=row("blockpremiumnumbers"),
    )
    block_satellite: bool = Field(
        default=True,
        description="Refuse satellite networks (+870, +881, +882, +883).",
        json_schema_extra=row("blocksatellitecalls"),
    )
    destinations: Destinations = Field(default=Destinations(), description="Prefixes and countries allowed or blocked.")
    lists: tuple[ListName, ...] = Field(
        default=(),
        max_length=64,
        description="Number lists (`callwarden list import`) whose numbers may neither call nor be called.",
        json_schema_extra=row("blacklist-fixed"),
    )
    velocity: tuple[VelocityRule, ...] = Field(
        default=(), max_length=32, description="How quickly accounts may call groups of destinations."
    )
    baseline: Baseline = Field(default=Baseline(), description="What is new for an account.")
    new_destination: NewDestination = Field(default=NewDestination(), description="Countries new to an account.")
    dynamic_list: DynamicList = Field(default=DynamicList(), description="Numbers listed because calls to them fail.")
    smart_list: SmartList = Field(default=SmartList(), description="Callers and targets out of line.")


class CallsPerAddress(Part):
    """What calls from one source address may come to within a sliding period; null or -1: no limit."""

    max_calls: Annotated[int, Field(ge=0, le=100_000_000)] | None = Field(
        default=None, description="Calls.", json_schema_extra=row("maxcallperip")
    )
    max_duration: Duration | None = Field(
        default=None, description="Talk time.", json_schema_extra=row("maxdurationperip")
    )
    max_cost: Amount | None = Field(
        default=None, description="Cost of the calls.", json_schema_extra=row("maxcostperip", unit="currency")
    )
    period: Annotated[float, Field(gt=0, le=31)] = Field(
        default=1.0, description="Length of the period in days.", json_schema_extra=row("maxcallperperiod", unit="days")
    )
    account: str | None = Field(
        default=None,
        max_length=255,
        description="The limits hold for this account's calls only (its name); null or -1: for all.",
        json_schema_extra=row("maxcallperuserid"),
    )

    @field_validator("max_calls", "max_duration", "max_cost", "account", mode="before")
    @classmethod
    def _no_limit(cls, value: Any) -> Any:
        return None if value in (-1, "-1") else value


class TalkTime(Part):
    """Talk time of accounts by day and month (account.limits.duration)."""

    enforce: Literal[-1, 0, 1] = Field(
        default=-1,
        description="-1: on as soon as one account has a limit. 0: off. 1: on.",
        json_schema_extra=row("calcmaxsl"),
    )


class Ceilings(Part):
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


class System(Ceilings):
    """Ceilings over all realms (taken from policies that name no realm), and over each."""

    per_realm: Ceilings = Field(
        default=Ceilings(),
        description="Ceilings of the policy's realm, or of each.",
        json_schema_extra=row("licensecfg"),
    )


class Billing(Part):
    """Calls that nobody would pay, or that cost more than they bring."""

    block_not_billed: Literal[0, 1, 2, 3, 4, 5] = Field(
        default=0,
        description="0: no. 1: no price in the account's list. 2: no rate for the very prefix that the call is routed "
        "by. 3: a price list that isn't its own. 4: checks the list's prefix, too. 5: the reseller's, too.",
        json_schema_extra=row("blocknotbilledcalls"),
    )
    block_not_profitable: Literal[0, 1, 2, 3] = Field(
        default=0,
        description="No route that costs: 1 more than the price, 2 as much, 3 nobody knows how much.",
        json_schema_extra=row("blocknotprofitablecalls"),
    )
    exact_match: Literal[0, 1, 2] = Field(
        default=0,
        description="0: the longest prefix prices a call. 1: the exact prefix for accounts of resellers. 2: for all.",
        json_schema_extra=row("vgetpriceexactmatch"),
    )
    not_billed_severity: Literal[0, 1, 2] = Field(
        default=0,
        description="Severity of the event for a call without a price. 0: low. 1: error. 2: critical.",
        json_schema_extra=row("notbilledcallerr"),
    )
    max_cost_per_minute: Amount = Field(
        default=0,
        description="No route that costs more a minute; 0: no limit.",
        json_schema_extra=row("blockhighcostcalls", unit="currency"),
    )


class Notices(Part):
    """Events that tell of limits before and when they hit."""

    thresholds: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(
        default=(50, 80, 100),
        max_length=8,
        description="Percent of a limit at which an event is raised, once for each account, rule and day.",
    )


class Modes(Part):
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


class PolicySpec(Part):
    """The effective settings of one realm. Frozen: services swap the whole."""

    profile: Literal["Default", "Hardened"] = Field(
        default="Default",
        description="The values that hold where the policy says nothing.",
        json_schema_extra=row("stress-test"),
    )
    realm: str = Field(
        default="",
        max_length=255,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="The SIP domain that this policy is for; empty: all.",
    )
    priority: int = Field(
        default=0,
        ge=-1_000_000,
        le=1_000_000,
        description="Of several policies for one realm the higher one's fields win.",
    )
    messages: Messages = Field(default=Messages(), description="Message counters per address.")
    auth_failures: AuthFailures = Field(default=AuthFailures(), description="Failed authentication per address.")
    firewall: Firewall = Field(default=Firewall(), description="Static address lists.")
    authentication: Authentication = Field(default=Authentication(), description="How callers prove who they are.")
    sip: Sip = Field(default=Sip(), description="Screening of messages.")
    session: Session = Field(default=Session(), description="Time limits of a call.")
    lines: Lines = Field(default=Lines(), description="Calls at the same time.")
    spend: Spend = Field(default=Spend(), description="What accounts may spend.")
    duration: TalkTime = Field(default=TalkTime(), description="Limits of talk time.")
    calls_per_address: CallsPerAddress = Field(
        default=CallsPerAddress(), description="What calls from one source address may come to."
    )
    system: System = Field(default=System(), description="Ceilings over the system and its realms.")
    billing: Billing = Field(default=Billing(), description="Price and profit.")
    fraud: Fraud = Field(default=Fraud(), description="Where calls may not go, and how quickly.")
    notifications: Notices = Field(default=Notices(), description="Events about limits.")
    modes: Modes = Field(default=Modes(), description="What each rule's verdict does.")


class Metadata(BaseModel):
    """Kubernetes object metadata; what we don't read is let through."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Name of the resource (RFC 1123).",
    )


# What profile Hardened changes, as the document that a user would write.
HARDENED: Final[dict[str, Any]] = {
    "messages": {"perAddress": {"max": 6_000, "period": "3m"}, "wrongPerAddress": {"max": 400, "period": "1h"}},
    "authFailures": {"perAddress": {"max": 100}, "perKnownAddress": {"max": 100}, "perKnownEndpoint": {"max": 20}},
    "authentication": {"digest": {"algorithms": 2}},
    "spend": {"dynamicDaily": {"mode": 2, "multiplier": 4}},
    "callsPerAddress": {"maxCalls": 500},
    "billing": {"blockNotBilled": 1, "blockNotProfitable": 1},
}
