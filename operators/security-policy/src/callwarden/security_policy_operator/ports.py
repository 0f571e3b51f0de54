"""What the operator needs of the world."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from callwarden.kernel.clock import UnixS
from callwarden.policy.bundle import PolicySet
from callwarden.policy.resources import RateDeckSpec, TrunkSpec
from callwarden.security_policy_operator.core.bans import AppliedBan, BanOrder
from callwarden.security_policy_operator.core.decks import DeckImport, DeckLineError
from callwarden.security_policy_operator.core.status import Ack, ResourceEvent
from callwarden.security_policy_operator.core.trunks import TrunkAccount, TrunkDifference, TrunkState


class AppliedBundle(NamedTuple):
    """The bundle in force: what it holds, when it was written (Unix time, 0: not known), and by what to replace it."""

    policies: PolicySet
    written_s: float
    sequence: int


class ClusterApi(Protocol):
    """The Kubernetes API. Raises Unavailable, Denied, NotFound, Conflict, Invalid."""

    async def list(self, plural: str) -> list[dict[str, Any]]:
        """All resources of one of our kinds, in all namespaces."""
        ...

    async def patch(
        self, plural: str, namespace: str, name: str, body: dict[str, Any], *, status: bool = False
    ) -> dict[str, Any]:
        """A merge patch of a resource, or of its status."""
        ...

    async def notify(self, about: Mapping[str, Any], event: ResourceEvent, at: str, by: str) -> None:
        """A Kubernetes Event about a resource. `at`: RFC 3339."""
        ...


class ConfigMaps(Protocol):
    """ConfigMaps whose names are known. Raises NotFound, Denied, Unavailable."""

    async def config_map(self, namespace: str, name: str) -> dict[str, Any]: ...

    async def config_map_version(self, namespace: str, name: str) -> str:
        """Its resourceVersion, without its files."""
        ...


class BundleStore(Protocol):
    """Where services read their policies, and report which revision they enforce."""

    async def read(self) -> AppliedBundle:
        """Raises Unavailable."""
        ...

    async def write(self, policies: PolicySet, written_s: UnixS, sequence: int) -> None:
        """Only if no one has written since: Conflict. Raises Unavailable."""
        ...

    def acks(self) -> AsyncIterator[tuple[str, Ack | None] | None]:
        """By process what it reports, None for one that is gone; None alone once everything stored was passed on."""
        ...


class ResourceReconciler(Protocol):
    """Resources that a service carries out."""

    plural: str
    """As the Kubernetes API calls the kind."""

    async def reconcile(self) -> None:
        """Carry out what is declared. Raises Unavailable."""
        ...

    def states(self) -> Iterable[str]:
        """What the last round came to, of each resource: applied, refused, pending."""
        ...

    def pause_s(self) -> float:
        """After the last round: until something may be different that causes no notification; inf: never."""
        ...


class BanRegistry(Protocol):
    """rate-guard's bans."""

    async def get(self, address: str) -> AppliedBan | None:
        """The ban in force on an address. Raises Unavailable."""
        ...

    async def add(self, order: BanOrder, unix_s: UnixS) -> None:
        """In place of another one. Raises Invalid for an own or allowed address, Exhausted, Unavailable."""
        ...

    async def remove(self, address: str) -> bool:
        """Whether there was one. Raises Unavailable."""
        ...


class TrunkRegistry(Protocol):
    """call-admission's trunks and their accounts. Raises Unavailable, and what call-admission refuses: Invalid,
    NotFound, Conflict, Denied, Exhausted."""

    async def list(self) -> list[TrunkState]: ...

    async def find_account(self, account: str) -> TrunkAccount | None:
        """By name or name@realm."""
        ...

    async def create_account(self, name: str, spec: TrunkSpec) -> TrunkAccount:
        """One of the trunk's own, with the realm, currency and price list of its resource."""
        ...

    async def create(self, trunk: TrunkState) -> None: ...

    async def update(self, change: TrunkDifference) -> None: ...

    async def delete(self, name: str) -> bool:
        """Whether there was one. Conflict while a route leads to it."""
        ...


class DeckRegistry(Protocol):
    """rating's price lists."""

    async def import_deck(self, name: str, spec: RateDeckSpec, csv: bytes) -> DeckImport | list[DeckLineError]:
        """All or nothing: the lines that are wrong, if any. Invalid, Denied: rating refuses the terms. Conflict:
        another import came in between. Raises Unavailable."""
        ...
