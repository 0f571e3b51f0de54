"""Trunks: what a resource asks for, against what call-admission has."""

from dataclasses import dataclass, replace
from typing import Final

from callwarden.policy.resources import TrunkSpec


@dataclass(frozen=True, slots=True)
class TrunkAccount:
    """The account that a trunk belongs to."""

    id: str
    type: str
    name: str
    realm: str


@dataclass(frozen=True, slots=True)
class TrunkState:
    """A trunk of call-admission."""

    name: str
    address: str
    direction: str
    tech_prefix: str = ""
    strip_digits: int = 0
    add_prefix: str = ""
    enabled: bool = True
    only_local: bool = False
    allow_prefixes: frozenset[str] = frozenset()
    block_prefixes: frozenset[str] = frozenset()
    account: str = ""
    """Its account: the id where it is to be created, the name where call-admission reports it."""
    realm: str = ""
    """Its account's realm."""


@dataclass(frozen=True, slots=True)
class TrunkDifference:
    """What makes one trunk the other."""

    before: TrunkState
    after: TrunkState

    @property
    def fields(self) -> tuple[str, ...]:
        """Those that are different, as TrunkState has them; never empty."""
        return tuple(name for name in CHANGEABLE if getattr(self.before, name) != getattr(self.after, name))

    @property
    def written_fields(self) -> list[str]:
        """The same as the resource's spec calls them."""
        return [TrunkSpec.model_fields[name].alias or name for name in self.fields]


CHANGEABLE: Final = (
    "address",
    "tech_prefix",
    "strip_digits",
    "add_prefix",
    "enabled",
    "only_local",
    "allow_prefixes",
    "block_prefixes",
)
"""Direction and account never change."""


def trunk_of(name: str, spec: TrunkSpec) -> TrunkState:
    """What a resource asks for, without the account."""
    return TrunkState(
        name=name,
        address=spec.address,
        direction=spec.direction,
        tech_prefix=spec.tech_prefix,
        strip_digits=spec.strip_digits,
        add_prefix=spec.add_prefix,
        enabled=spec.enabled,
        only_local=spec.only_local,
        allow_prefixes=frozenset(spec.allow_prefixes),
        block_prefixes=frozenset(spec.block_prefixes),
    )


def change_of(existing: TrunkState, wanted: TrunkState) -> TrunkDifference | None:
    """None: nothing to do."""
    change = TrunkDifference(existing, replace(wanted, account=existing.account, realm=existing.realm))
    return change if change.fields else None
