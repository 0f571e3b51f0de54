"""The resources next to policies: bans, trunks and price lists, declared instead of created by a command, and which
namespaces may declare what.

In: their fields, as `callwarden ban`, `trunk` and `rates` have them. Out: what becomes of them (the operator), their
schemas (callwarden.policy.crd). They aren't layered: fields that aren't written have their defaults.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from callwarden.policy.bundle import BadPolicy, Problem, name_of, open_resource, problems_of
from callwarden.policy.fields import FieldGroup, Many, Rule, camel
from callwarden.policy.values import Address, Duration, Moment, NumberPrefix, PeakHours, TimeZone, text

NAME_MAX: Final = 64
"""Of a trunk, an account and a price list, and so of the resource with the same name."""

Name = Annotated[str, Field(max_length=NAME_MAX, pattern=r"^[A-Za-z0-9._-]+$")]
_TARGET = r"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}$"


class BanSpec(FieldGroup):
    """An address that every edge drops, as long as the resource exists and hasn't expired."""

    RULES = (
        Rule(
            ("duration", "until"),
            "!has(self.duration) || !has(self.until) || dyn(self.duration) == null || dyn(self.until) == null",
            "is set as well as until: set only one of them",
            lambda ban: ban.duration is None or ban.until is None,
        ),
    )
    FIXED = ("address",)

    address: Address = Field(description="The IPv4 or IPv6 address that is dropped.")
    reason: str = Field(default="operator", min_length=1, max_length=200, description="Why; shown in lists and events.")
    until: Moment | None = Field(
        default=None,
        description="When it ends (RFC 3339), such as 2026-12-24T20:00:00Z; without it and duration: never.",
    )
    duration: Duration | None = Field(
        default=None, ge=1, description="How long it lasts from the resource's creation, such as 1h or 2d."
    )


class TrunkSpec(FieldGroup):
    """A peer that calls go out to, or come in from. The trunk has the resource's name."""

    RULES = (
        Rule(
            ("only_local", "direction"),
            "!has(self.onlyLocal) || !self.onlyLocal || (has(self.direction) && self.direction == 'traffic-sender')",
            "is for traffic senders: calls don't come in from a carrier",
            lambda trunk: not trunk.only_local or trunk.direction == "traffic-sender",
        ),
    )
    FIXED = ("direction", "account")

    address: str = Field(
        max_length=300, pattern=_TARGET, description="host:port of the SIP peer, such as 192.0.2.10:5060."
    )
    direction: Literal["carrier", "traffic-sender"] = Field(
        default="carrier", description="Calls go out to a carrier, and come in from a traffic sender."
    )
    account: Annotated[str, Field(max_length=320), text(320)] = Field(
        default="", description="The account it belongs to, as name or name@realm; empty: one with its name is created."
    )
    realm: Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9._-]*$")] = Field(
        default="callwarden.local", description="Realm of the account created for it."
    )
    currency: Annotated[str, Field(max_length=3, pattern=r"^[A-Z]{3}$")] = Field(
        default="EUR", description="Currency of the account created for it (ISO 4217)."
    )
    deck: Annotated[str, Field(max_length=NAME_MAX, pattern=r"^[A-Za-z0-9._-]*$")] = Field(
        default="", description="Price list of the account created for it."
    )
    tech_prefix: Annotated[str, Field(max_length=16, pattern=r"^[0-9*#]*$")] = Field(
        default="", description="Digits before the number that identify this peer."
    )
    strip_digits: int = Field(default=0, ge=0, le=15, description="Digits removed from the front of the number.")
    add_prefix: Annotated[str, Field(max_length=15, pattern=r"^[0-9]*$")] = Field(
        default="", description="Digits then added in front of it."
    )
    enabled: bool = Field(default=True, description="Whether the trunk is used.")
    only_local: bool = Field(
        default=False, description="A traffic sender's calls reach local users only, never a carrier."
    )
    allow_prefixes: Many[NumberPrefix] = Field(
        default=(), max_length=1_000, description="When not empty, its calls go to numbers with these prefixes only."
    )
    block_prefixes: Many[NumberPrefix] = Field(
        default=(), max_length=1_000, description="Its calls never go to numbers with these prefixes."
    )


class ConfigMapKey(FieldGroup):
    """A file in a ConfigMap of the same namespace."""

    name: Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")] = Field(
        description="Name of the ConfigMap."
    )
    key: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9._-]+$")] = Field(
        default="rates.csv", description="Name of the file in it."
    )


class DeckRounding(FieldGroup):
    """How the total of a call (connect fee, talk and minimum) is rounded, once."""

    method: Literal["up", "middle", "down"] = Field(default="up", description="Direction of rounding.")
    decimals: int = Field(default=6, ge=0, le=6, description="Decimals that are kept.")


class DeckHours(FieldGroup):
    """Hours of the week for which the CSV may have other prices."""

    name: Annotated[str, Field(max_length=32, pattern=r"^[a-z0-9-]{1,32}$")] = Field(
        description="Names its columns, such as rate.saturday for saturday. Not peak, off-peak or other."
    )
    hours: Annotated[PeakHours, Field(min_length=1)] = Field(description='When it applies, such as "Sat 09:00-13:00".')


class RateDeckSpec(FieldGroup):
    """A price list, imported as a whole whenever it or its CSV changes. It has the resource's name."""

    config_map: ConfigMapKey = Field(
        description="The CSV, with the columns of deploy/examples/rates.csv, in data or binaryData of a ConfigMap."
    )
    currency: Annotated[str, Field(max_length=3, pattern=r"^[A-Z]{3}$")] = Field(
        default="EUR", description="Currency of its prices (ISO 4217)."
    )
    peak_hours: PeakHours = Field(
        default="", description='Peak hours, such as "Mon-Fri 08:00-20:00"; empty: the same prices at all times.'
    )
    windows: Many[DeckHours] = Field(
        default=(),
        max_length=8,
        description="Hours with prices of their own. Of overlapping ones the first applies, and any before peak hours.",
    )
    time_zone: TimeZone = Field(default="UTC", description="Time zone of windows and peak hours (IANA name).")
    rounding: DeckRounding = Field(
        default=DeckRounding(), description="How the total of a call (connect fee, talk and minimum) is rounded, once."
    )


ANY: Final = "*"
"""In a RealmBinding: every one."""


def _alone(name: str) -> Rule:
    """That "*" is the only item of a list."""
    path = f"self.{camel(name)}"

    def holds(binding: Any) -> bool:
        items = getattr(binding, name)
        return ANY not in items or len(items) == 1

    cel = f"!has({path}) || !{path}.exists(item, item == '{ANY}') || size({path}) == 1"
    return Rule((name,), cel, f'has "{ANY}" and other items: "{ANY}" includes all', holds)


class RealmBindingSpec(FieldGroup):
    """Which realms the resources in some namespaces may act on. The release's namespace may act on all of them."""

    RULES = (_alone("namespaces"), _alone("realms"), _alone("rate_decks"))

    # By name only: who may edit a namespace may label it, and reading labels takes the right to read all namespaces.
    namespaces: Many[Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?|\*)$")]] = Field(
        min_length=1, max_length=1_000, description='Names of namespaces, or "*": every namespace.'
    )
    realms: Many[Annotated[str, Field(max_length=255, pattern=r"^([A-Za-z0-9._-]+|\*)$")]] = Field(
        min_length=1,
        max_length=1_000,
        description='Realms that their policies and trunks may act on, or "*": all, which bans, and policies without a '
        "realm, need.",
    )
    rate_decks: Many[Annotated[str, Field(max_length=NAME_MAX, pattern=r"^([A-Za-z0-9._-]+|\*)$")]] = Field(
        default=(),
        max_length=1_000,
        description='Price lists that they may import, or "*": any; with all realms they may import any.',
    )


SPECS: Final[dict[str, type[FieldGroup]]] = {
    "Ban": BanSpec,
    "Trunk": TrunkSpec,
    "RateDeck": RateDeckSpec,
    "RealmBinding": RealmBindingSpec,
}
NAMED: Final = frozenset({"Trunk", "RateDeck"})
"""Kinds that declare something with the resource's own name."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One of them, validated."""

    kind: str
    name: str
    namespace: str
    spec: FieldGroup


def parse_resource(value: object) -> Resource:
    """A decoded Ban, Trunk, RateDeck or RealmBinding. Raises BadPolicy with every problem it has."""
    kind, metadata, spec, problems = open_resource(value, SPECS)
    if spec is not None and kind in SPECS:
        problems += problems_of(SPECS[kind], spec, "spec")
    if metadata is not None and kind in NAMED and len(metadata.name) > NAME_MAX:
        problems.append(Problem("metadata.name", f"has more than {NAME_MAX} characters"))
    if problems or spec is None or metadata is None:
        raise BadPolicy(name_of(value), problems)
    return Resource(kind, metadata.name, metadata.namespace, SPECS[kind].model_validate(spec))
