"""The SecurityPolicy resource (callwarden.io/v1) as one typed model: its fields, defaults, ranges and what they do.

In: every field of the settings catalogue, each with the ids of its rows and the services that enforce it, and what the
profiles set. A field that no service enforces yet says so (callwarden.policy.fields.row), and setting it gives a
warning: no one must rely on a protection that isn't enforced. The groups of fields are in traffic, access, limits,
fraud and operation. Out: how several policies become one (callwarden.policy.bundle), how they travel
(callwarden.common.policy), the other resources (callwarden.policy.resources).
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from callwarden.policy.access import Api, Authentication
from callwarden.policy.fields import ADMISSION, EDGE, GUARD, FieldGroup, Level, Rule, row
from callwarden.policy.fraud import DynamicList, Fraud, SmartList, VelocityLevel, VelocityRule
from callwarden.policy.limits import Billing, CallsPerAddress, Lines, Spend, System, TalkTime
from callwarden.policy.operation import Mode, Modes, Notifications, Payment
from callwarden.policy.traffic import (
    AuthFailures,
    AutoBan,
    Firewall,
    Messages,
    Registrations,
    Routing,
    Session,
    Sip,
    Traffic,
    Transport,
)
from callwarden.policy.values import Duration, Moment

__all__ = [
    "API_VERSION",
    "CLUSTER_KIND",
    "HARDENED",
    "KIND",
    "STRESS_TEST",
    "DynamicList",
    "Metadata",
    "Mode",
    "Modes",
    "PolicySpec",
    "SmartList",
    "StressTest",
    "VelocityLevel",
    "VelocityRule",
]

API_VERSION: Final = "callwarden.io/v1"
KIND: Final = "SecurityPolicy"
CLUSTER_KIND: Final = "ClusterSecurityPolicy"
"""The base for all realms: like a SecurityPolicy, but below all of them and without a realm."""


class StressTest(FieldGroup):
    """When profile StressTest applies; outside this time the profile below it does."""

    starts_at: Moment | None = Field(
        default=None, description="When it begins (RFC 3339), such as 2026-12-24T20:00:00Z."
    )
    duration: Duration = Field(default=3_600, ge=60, le=86_400, description="How long it lasts.")


class PolicySpec(FieldGroup):
    """The effective settings of one realm. Frozen: services swap the whole."""

    RULES = (
        Rule(
            ("profile",),
            "!has(self.profile) || self.profile != 'StressTest' || "
            "(has(self.stressTest) && has(self.stressTest.startsAt) && dyn(self.stressTest.startsAt) != null)",
            "StressTest needs stressTest.startsAt, from which it is limited in time",
            lambda spec: spec.profile != "StressTest" or spec.stress_test.starts_at is not None,
        ),
    )

    profile: Literal["Default", "Hardened", "StressTest"] = Field(
        default="Default",
        description="The values that apply where no policy sets a field. StressTest turns off firewall.level, "
        "autoBan.mode, autoBan.scanningThreshold and session.maxPendingPerAddress, whatever policies set, from "
        "stressTest.startsAt for stressTest.duration; below and after it the profile of the policies below applies.",
        json_schema_extra=row("stress-test", by=(EDGE, "auth", GUARD, ADMISSION, "rating", "payment")),
    )
    stress_test: StressTest = Field(
        default=StressTest(),
        description="When profile StressTest applies.",
        json_schema_extra=row("stress-test", by=(EDGE, "auth", GUARD, ADMISSION, "rating", "payment")),
    )
    realm: str = Field(
        default="",
        max_length=255,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="The SIP domain that this policy applies to, in any case; empty: all.",
        json_schema_extra=row(by=(EDGE, "auth", GUARD, ADMISSION, "rating")),
    )
    priority: int = Field(
        default=0,
        ge=-1_000_000,
        le=1_000_000,
        description="Where several policies of a realm set a field, the one with the highest priority wins.",
        json_schema_extra=row(by=(EDGE, "auth", GUARD, ADMISSION, "rating")),
    )
    network: Traffic = Field(
        default=Traffic(),
        description="How much traffic is accepted, and whose media.",
        json_schema_extra=row(enforced=False),
    )
    messages: Messages = Field(
        default=Messages(), description="Message counters per address.", json_schema_extra=row(by=(EDGE, GUARD))
    )
    auth_failures: AuthFailures = Field(
        default=AuthFailures(),
        description="Failed authentication per address.",
        json_schema_extra=row(by=(GUARD, EDGE)),
    )
    firewall: Firewall = Field(
        default=Firewall(), description="Which addresses are dropped.", json_schema_extra=row(by=(EDGE, GUARD))
    )
    auto_ban: AutoBan = Field(
        default=AutoBan(), description="Callers that are rejected for a time.", json_schema_extra=row(enforced=False)
    )
    authentication: Authentication = Field(
        default=Authentication(), description="How callers authenticate.", json_schema_extra=row(enforced=False)
    )
    registrar: Registrations = Field(
        default=Registrations(), description="How registrations may be used.", json_schema_extra=row(enforced=False)
    )
    sip: Sip = Field(default=Sip(), description="Screening of messages.", json_schema_extra=row(by=(EDGE,)))
    transport: Transport = Field(
        default=Transport(), description="Transports of signalling and media.", json_schema_extra=row(enforced=False)
    )
    session: Session = Field(
        default=Session(), description="The course of a call.", json_schema_extra=row(by=(EDGE, ADMISSION))
    )
    routing: Routing = Field(
        default=Routing(),
        description="Where requests may go, and what they reveal to the other side.",
        json_schema_extra=row(enforced=False),
    )
    lines: Lines = Field(default=Lines(), description="Concurrent calls.", json_schema_extra=row(by=(ADMISSION,)))
    spend: Spend = Field(
        default=Spend(), description="What accounts may spend.", json_schema_extra=row(by=(ADMISSION,))
    )
    duration: TalkTime = Field(
        default=TalkTime(), description="Limits of talk time.", json_schema_extra=row(by=(ADMISSION,))
    )
    calls_per_address: CallsPerAddress = Field(
        default=CallsPerAddress(),
        description="Limits of the calls from one source address.",
        json_schema_extra=row(by=(ADMISSION,)),
    )
    system: System = Field(
        default=System(), description="Ceilings of the system and its realms.", json_schema_extra=row(by=(ADMISSION,))
    )
    billing: Billing = Field(default=Billing(), description="Price and profit.", json_schema_extra=row(by=(ADMISSION,)))
    fraud: Fraud = Field(
        default=Fraud(), description="Where calls must not go, and how fast.", json_schema_extra=row(by=(ADMISSION,))
    )
    payment: Payment = Field(
        default=Payment(), description="Payments by a gateway.", json_schema_extra=row(enforced=False)
    )
    notifications: Notifications = Field(
        default=Notifications(), description="Who is notified of what.", json_schema_extra=row(enforced=False)
    )
    api: Api = Field(default=Api(), description="Access to the HTTP interfaces.", json_schema_extra=row(enforced=False))
    modes: Modes = Field(
        default=Modes(), description="What each rule's verdict does.", json_schema_extra=row(by=(ADMISSION,))
    )
    auto_tune: Level[Literal[0, 1]] = Field(
        default=1,
        description="1: limits derived from load adapt to it. 0: they stay constant.",
        json_schema_extra=row("autofinetune", enforced=False, always=0),
    )


class Metadata(BaseModel):
    """Kubernetes object metadata; fields that aren't read are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Name of the resource (RFC 1123).",
    )
    namespace: str = Field(
        default="", max_length=63, pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$", description="On Kubernetes."
    )


# What profile Hardened changes, as the document that a user would write.
HARDENED: Final[dict[str, Any]] = {
    "network": {"media": {"sourceCheck": 2}},
    "messages": {"perAddress": {"max": 6_000}, "wrongPerAddress": {"max": 400}},
    "authFailures": {"perAddress": {"max": 100}, "perKnownAddress": {"max": 100}, "perKnownEndpoint": {"max": 20}},
    "firewall": {"level": 5},
    "autoBan": {"mode": 2, "scanningThreshold": 10},
    "authentication": {
        "digest": {"algorithms": 2, "strictness": 3},
        "passwords": {"minLength": 12},
        "pin": 9,
        "trustedAddresses": {"mode": 0},
    },
    "transport": {"strict": 2},
    "routing": {"earlyMedia": {"toCaller": 1}},
    "spend": {"dynamicDaily": {"mode": 2, "multiplier": 4}},
    "callsPerAddress": {"maxCalls": 500},
    "billing": {"blockNotBilled": 2, "blockNotProfitable": 1},
    "notifications": {"email": {"level": 2}},
    "api": {"inputValidation": 4, "login": 3, "adminTrust": 4, "sipAuth": 1, "remoteAdmin": 1},
    "autoTune": 0,
}

# What profile StressTest turns off, whatever policies set.
STRESS_TEST: Final[dict[str, Any]] = {
    "firewall": {"level": 0},
    "autoBan": {"mode": 0, "scanningThreshold": 0},
    "session": {"maxPendingPerAddress": 0},
}
