"""The SecurityPolicy resource (callwarden.io/v1) as one typed model: its fields, defaults, ranges and what they do.

In: every field that a service enforces, each with the id of its row in the settings catalogue. Out: how several
policies become one (callwarden.policy.bundle) and how they travel (callwarden.common.policy). A field stands here from
the day a service enforces it, not before: nobody may believe in a protection that isn't there.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from callwarden.policy.values import NETWORKS_MAX, Amount, Duration, Network, NumberPrefix

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
    max: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="Calls at the same time for an account that has no limit of its own.",
        json_schema_extra=row("maxlines"),
    )


class Slice(Part):
    """Credit is taken slice by slice while a call runs."""

    first: Duration = Field(default=60, ge=1, le=3_600, description="Talk time that is paid for before a call goes on.")
    next: Duration = Field(default=60, ge=1, le=3_600, description="Talk time that each extension pays for.")
    minimum: Duration = Field(
        default=1, ge=1, le=3_600, description="A call that credit allows less than this is refused."
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


class Spend(Part):
    slice: Slice = Field(
        default=Slice(), description="Size of the slices in which credit is held.", json_schema_extra=row("credit")
    )
    daily: DailySpend = Field(default=DailySpend(), description="Daily limits by type of account.")
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
    destinations: Destinations = Field(default=Destinations(), description="Prefixes allowed or blocked.")


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
    destinations: Mode = Field(default="Enforce", description="Allowed and blocked prefixes.")


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
    fraud: Fraud = Field(default=Fraud(), description="Where calls may not go.")
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
}
