"""Fields about traffic: addresses, messages, transports, media, the course of a call, routing.

Enforced by edge-proxy and rate-guard. Out: who callers are (access), what they may spend (limits), whom they may call
(fraud).
"""

from typing import Annotated, Literal

from pydantic import Field

from callwarden.policy.fields import AUTH, EDGE, FieldGroup, Level, Many, Rule, row, seconds
from callwarden.policy.values import NETWORKS_MAX, Auto, Duration, Network

AgentPart = Annotated[str, Field(min_length=3, max_length=64)]
"""A part of a User-Agent; shorter ones would match by accident."""


# ------------------------------------------------------------------ network and media


class Media(FieldGroup):
    """RTP and RTCP that rtpengine relays."""

    source_check: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="Whose packets are relayed. 0: any source's. 1: those of the first source. 2: those of the "
        "addresses that signalling announced.",
        json_schema_extra=row("checkrtpaddr"),
    )
    max_packets_per_second: Auto = Field(
        default=None,
        ge=1,
        le=100_000,
        description="A stream with more packets a second is throttled or its call closed; auto: the rate of its codec "
        "times `rateFactor`.",
        json_schema_extra=row("rtp-flood"),
    )
    rate_factor: int = Field(
        default=3, ge=1, le=100, description="maxPacketsPerSecond with auto, as a multiple of the codec's rate."
    )


class Traffic(FieldGroup):
    """How much traffic is accepted."""

    max_kbps: int = Field(
        default=800_000,
        ge=64,
        le=100_000_000,
        description="Signalling of one edge process above this rate is dropped and counted.",
        json_schema_extra=row("maxnetworkspeed", unit="kbit/s"),
    )
    max_source_percent: int = Field(
        default=25, ge=1, le=100, description="The share of maxKbps that one source address can use."
    )
    media: Media = Field(default=Media(), description="Relayed RTP and RTCP.")


# ------------------------------------------------------------------ messages and addresses


class MessageWindow(FieldGroup):
    """Messages from one address within a sliding period."""

    max: int = Field(
        default=39_000,
        ge=1,
        le=100_000_000,
        description="More than this within the period bans the address.",
        json_schema_extra=row("maxsubsmsgcount"),
    )
    period: Duration = Field(
        default=180, ge=1, description="Length of the sliding period.", json_schema_extra=row("maxsubsmsgperiod")
    )


class WrongWindow(FieldGroup):
    """Invalid messages from one address within a sliding period."""

    max: int = Field(
        default=4_000,
        ge=1,
        le=100_000_000,
        description="More than this within the period bans the address.",
        json_schema_extra=row("maxwrongmsgallowed"),
    )
    period: Duration = Field(
        default=3_600, ge=1, description="Length of the sliding period.", json_schema_extra=row("maxwrongmsgperiod")
    )


class Messages(FieldGroup):
    """Messages of any kind, per source address."""

    per_address: MessageWindow = Field(default=MessageWindow(), description="SIP messages from one address.")
    wrong_per_address: WrongWindow = Field(
        default=WrongWindow(), description="Malformed or meaningless messages from one address."
    )
    reset_after: Duration = Field(
        default=21_600,
        ge=1,
        description="How long a ban by a counter lasts, and the longest that a counter remembers.",
        json_schema_extra=row("reenabledosblocked"),
    )


class FailuresOfAddress(FieldGroup):
    max: int = Field(
        default=2_500,
        ge=1,
        le=10_000_000,
        description="More failures than this within the period cause a ban.",
        json_schema_extra=row("maxwrongauthfromip"),
    )


class FailuresOfKnownAddress(FieldGroup):
    max: int = Field(
        default=800,
        ge=1,
        le=10_000_000,
        description="More failures than this within the period cause a ban.",
        json_schema_extra=row("maxfailedauthenabledip"),
    )


class FailuresOfKnownEndpoint(FieldGroup):
    max: int = Field(
        default=50,
        ge=1,
        le=10_000_000,
        description="More failures than this within the period cause a ban.",
        json_schema_extra=row("maxfailedauthenabledipport"),
    )


class FailuresOfUser(FieldGroup):
    max: int = Field(
        default=50,
        ge=1,
        le=10_000_000,
        description="After this many failures within the period, credentials from addresses where the user never was "
        "are refused like wrong ones, until some of the failures are older than that. Addresses from which the user "
        "has authenticated are never slowed.",
        json_schema_extra=row(by=(AUTH,)),
    )


class Registrar(FieldGroup):
    max: int = Field(
        default=300,
        ge=1,
        le=10_000_000,
        description="Requests without credentials in 90 s from one address, and ten times as many from all together; "
        "the edge drops those beyond before it looks up any credential.",
        json_schema_extra=row("fastauthsubswrongusermsg"),
    )


class AuthFailures(FieldGroup):
    """Wrong credentials. The first challenge, a stale nonce and a retransmission never count."""

    period: Duration = Field(
        default=3_600,
        ge=1,
        description="The sliding period of these counters.",
        json_schema_extra=row("maxsubfailauthperiod"),
    )
    per_address: FailuresOfAddress = Field(
        default=FailuresOfAddress(), description="From one address that no account has authenticated from."
    )
    per_known_address: FailuresOfKnownAddress = Field(
        default=FailuresOfKnownAddress(), description="From one address that some account has authenticated from."
    )
    per_known_endpoint: FailuresOfKnownEndpoint = Field(
        default=FailuresOfKnownEndpoint(),
        description="From one address and port that some account has authenticated from.",
    )
    per_user: FailuresOfUser = Field(
        default=FailuresOfUser(),
        description="For one user, existing or not, from all addresses where that user never authenticated.",
    )
    unanswered_challenges: int = Field(
        default=-1,
        ge=-1,
        le=10_000_000,
        description="An address that gets more challenges in a row without a success is banned. -1: derived from the "
        "load; the higher the load, the lower the limit.",
        json_schema_extra=row("maxsubsipauthrequest", enforced=False),
    )
    registrar: Registrar = Field(
        default=Registrar(), description="Requests without credentials.", json_schema_extra=row(enforced=False)
    )


class Firewall(FieldGroup):
    """Which addresses are dropped. Allow takes precedence over deny, and counters never ban an allowed address."""

    level: Level[Literal[0, 1, 2, 3, 4, 5]] = Field(
        default=3,
        description="0: off. 1: static lists. 2: dynamic bans. 3: both. 4: also closes connections of banned peers. 5: "
        "also puts bans into the kernel's firewall where the pod may.",
        json_schema_extra=row("enablefirewall", enforced=False, always=3),
    )
    allow: Many[Network] = Field(
        default=(),
        max_length=NETWORKS_MAX,
        description="Addresses and networks that are never banned.",
        json_schema_extra=row("firewall-static"),
    )
    deny: Many[Network] = Field(
        default=(),
        max_length=NETWORKS_MAX,
        description="Addresses and networks that are always dropped.",
        json_schema_extra=row("firewall-static", by=(EDGE,)),
    )


class AutoBan(FieldGroup):
    """Callers with bad call statistics, and scanners of extensions, are rejected for a time."""

    mode: Level[Literal[0, 1, 2]] = Field(
        default=1,
        description="Who is rejected. 0: no one. 1: the caller's number. 2: number and address.",
        json_schema_extra=row("autoban"),
    )
    scanning_threshold: Auto = Field(
        default=None,
        ge=0,
        le=100_000,
        description="An address that tries more different users or extensions without a success is banned. 0: "
        "never. auto: derived from usual traffic.",
        json_schema_extra=row("blockscanning_treshold"),
    )


# ------------------------------------------------------------------ content of messages, transports


class Sip(FieldGroup):
    """Screening of messages by their content."""

    drop_malformed: bool = Field(
        default=True,
        description="Whether malformed, truncated, oversized and spoofed messages are dropped (or answered 400 where "
        "the RFC asks for it) and counted as wrong.",
        json_schema_extra=row("malformed", enforced=False, always=True),
    )
    scanners: Many[AgentPart] = Field(
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
        description="Requests whose User-Agent contains one of these (in any case) are dropped; a source that answers "
        "a challenge with one is banned.",
        json_schema_extra=row("scanner-agents"),
    )
    blocked_user_agents: Many[AgentPart] = Field(
        default=(),
        max_length=256,
        description="Requests whose User-Agent contains one of these (in any case) are dropped without an answer.",
        json_schema_extra=row("blockua"),
    )
    allowed_user_agents: Many[AgentPart] = Field(
        default=(),
        max_length=256,
        description="When not empty, only peers whose User-Agent or Server contains one of these (in any case) "
        "are served.",
        json_schema_extra=row("allowua", enforced=False),
    )


class Tls(FieldGroup):
    """SIP over TLS."""

    port: int = Field(
        default=5061,
        ge=0,
        le=65_535,
        description="Port of SIP over TLS; 0: off.",
        json_schema_extra=row("sips"),
    )
    min_version: Literal["TLSv1.2", "TLSv1.3"] = Field(
        default="TLSv1.2", description="The oldest version of TLS that is accepted."
    )
    client_certificates: Literal["None", "Trunks", "Required"] = Field(
        default="None", description="Which peers must present a certificate: none, trunks, or all."
    )


class Wss(FieldGroup):
    """SIP over secure WebSocket (RFC 7118)."""

    port: int = Field(
        default=5443,
        ge=0,
        le=65_535,
        description="Port of SIP over secure WebSocket; 0: off.",
        json_schema_extra=row("wss"),
    )


class Transport(FieldGroup):
    """Transports of signalling and media."""

    tls: Tls = Field(default=Tls(), description="SIP over TLS.")
    wss: Wss = Field(default=Wss(), description="SIP over secure WebSocket, for WebRTC.")
    media: Literal["PassThrough", "Bridge", "Required"] = Field(
        default="PassThrough",
        description="SRTP (SDES and DTLS): passed through, bridged to what the other side supports, or "
        "required on both sides.",
        json_schema_extra=row("srtp"),
    )
    strict: Level[Literal[0, 1, 2, 3]] = Field(
        default=0,
        description="0: any transport. 1: the one the account registered with. 2: encrypted signalling only. 3: "
        "encrypted signalling and media only.",
        json_schema_extra=row("stricttransport"),
    )


# ------------------------------------------------------------------ the course of a call


class Session(FieldGroup):
    """How long a call may take to set up and to last, and how many messages it may have."""

    RULES = (
        Rule(
            ("min_timer", "timers"),
            f"!has(self.timers) || !has(self.minTimer) || {seconds('self.timers')} == 0 || "
            f"{seconds('self.minTimer')} <= {seconds('self.timers')}",
            "is above timers: every session would be refused",
            lambda session: not session.timers or session.min_timer <= session.timers,
        ),
    )

    max_pending_per_address: int = Field(
        default=1,
        ge=0,
        le=1_000_000,
        description="An address with too many calls that stay in set-up gets 503. 0: never. 1: derived from usual "
        "traffic. Above 1: the limit.",
        json_schema_extra=row("blocktoomuchpendingsession", enforced=False),
    )
    absolute_timeout: Duration = Field(
        default=14_400,
        ge=60,
        description="Every call ends after this time at the latest.",
        json_schema_extra=row("absolute-timeout"),
    )
    call_timeout: Duration = Field(
        default=7_200, ge=1, description="Longest talk time of one call.", json_schema_extra=row("call-timeout")
    )
    media_timeout: Duration = Field(
        default=300,
        ge=5,
        le=86_400,
        description="A relayed call without media for this long is closed.",
        json_schema_extra=row("media-timeout", enforced=False),
    )
    ring_timeout: Duration = Field(
        default=120,
        ge=5,
        le=600,
        description="A call that rings longer is cancelled.",
        json_schema_extra=row("ring-timeout", by=(EDGE,)),
    )
    call_init_timeout: Duration = Field(
        default=20,
        ge=1,
        le=120,
        description="A call without any provisional answer for this long is cancelled; the next route is tried.",
        json_schema_extra=row("call-init-timeout", by=(EDGE,)),
    )
    probe: Duration = Field(
        default=60,
        le=3_600,
        description="How often both sides of an answered call are asked (OPTIONS inside the dialog) whether they still "
        "know it; if one doesn't, or is silent, the call is ended. 0: never.",
        json_schema_extra=row("session-probe", by=(EDGE,)),
    )
    timers: Duration = Field(
        default=1_800,
        le=86_400,
        description="Session-Expires that is negotiated (RFC 4028); a session that isn't refreshed is closed. 0: none.",
        json_schema_extra=row("session-timers", enforced=False),
    )
    min_timer: Duration = Field(
        default=90,
        ge=90,  # RFC 4028 section 5
        le=86_400,
        description="Min-SE: shorter session timers are answered with 422.",
        json_schema_extra=row("session-timers", enforced=False),
    )
    max_messages_per_call: Auto = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="A dialog with more messages than this is closed; auto: derived from rate and count.",
        json_schema_extra=row("session-message-rate", enforced=False),
    )
    max_invalid_per_call: Auto = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="A dialog with more invalid messages in a row than this is closed, and its source counted; auto: "
        "derived from usual traffic.",
        json_schema_extra=row("session-invalid-signalling", enforced=False),
    )


class Registrations(FieldGroup):
    """How registrations may be used."""

    reuse: Level[Literal[0, 1]] = Field(
        default=0,
        description="0: a registration is bound to the address, port and instance that made it. 1: another may use it.",
        json_schema_extra=row("reuseep"),
    )


# ------------------------------------------------------------------ routing


class EarlyMedia(FieldGroup):
    """Sound before a call is answered."""

    to_caller: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="From the callee to the caller. 0: passed. 1: blocked. 2: muted.",
        json_schema_extra=row("blockearlymedia"),
    )
    to_callee: Level[Literal[0, 1, 2]] = Field(
        default=0,
        description="From the caller to the callee. 0: passed. 1: blocked. 2: muted.",
        json_schema_extra=row("blockearlymedia"),
    )


class Routing(FieldGroup):
    """Where requests may go, and what they reveal to the other side."""

    forward_to_other_domains: Level[Literal[0, 1]] = Field(
        default=0,
        description="Requests for other domains. 0: refused. 1: forwarded, as an open relay does.",
        json_schema_extra=row("fwdtootherdomains", enforced=False, always=0),
    )
    block_other_domains: Level[Literal[0, 1]] = Field(
        default=1,
        description="Subscribers' requests from or for other domains. 1: refused. 0: allowed.",
        json_schema_extra=row("blockotherdomains", enforced=False, always=1),
    )
    restrict_to_local: Level[Literal[0, 1, 2, 3]] = Field(
        default=3,
        description="SIP URIs that point into local networks are refused as targets: 0 none, 1 loopback, 2 also "
        "link-local, 3 also private networks.",
        json_schema_extra=row("fs_restrictsiptolocal"),
    )
    topology_hiding: bool = Field(
        default=True,
        description="Whether the other side's address and internal addresses are hidden from each side "
        "(forwardclientaddress = 0).",
        json_schema_extra=row("forwardclientaddress"),
    )
    redirects: Level[Literal[0, 1, 2]] = Field(
        default=2,
        description="301 and 302. 0: followed. 1: to local users only. 2: never.",
        json_schema_extra=row("securemove", enforced=False, always=2),
    )
    transfers: Level[Literal[0, 1, 2]] = Field(
        default=1,
        description="REFER within a call, by which one side asks the other to call somebody. 0: refused. 1: between "
        "phones. 2: also to and from carriers and trunks, where a carrier then places that call itself. The number or "
        "user must be one that the account may call, and no number that was given to an account of ours.",
        json_schema_extra=row(by=(EDGE,)),
    )
    early_media: EarlyMedia = Field(default=EarlyMedia(), description="Sound before a call is answered.")
    dtmf_input: bool = Field(
        default=True,
        description="Whether digits from an IVR are validated before they become part of a dialled number.",
        json_schema_extra=row("dtmf-ivr"),
    )
