"""What the operator needs of the world."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol

from callwarden.policy.bundle import PolicySet
from callwarden.security_policy_operator.core.status import Ack, Event


class Standing(NamedTuple):
    """The bundle as it stands: what it holds, when it was written (Unix time, 0: not known), and by what to replace
    it."""

    policies: PolicySet
    written_s: float
    sequence: int


class Cluster(Protocol):
    """The Kubernetes API. Raises Unavailable, Denied, NotFound, Conflict, Invalid."""

    async def list(self, plural: str) -> list[dict[str, Any]]:
        """All resources of one of our kinds, in all namespaces."""
        ...

    async def patch(
        self, plural: str, namespace: str, name: str, body: dict[str, Any], *, status: bool = False
    ) -> dict[str, Any]:
        """A merge patch of a resource, or of its status."""
        ...

    async def tell(self, about: Mapping[str, Any], event: Event, at: str, by: str) -> None:
        """A Kubernetes Event about a resource. `at`: RFC 3339."""
        ...


class Bundles(Protocol):
    """Where services take their policies from, and say which they run."""

    async def read(self) -> Standing:
        """Raises Unavailable."""
        ...

    async def write(self, policies: PolicySet, now_s: float, sequence: int) -> None:
        """Only if nobody has written since: Conflict. Raises Unavailable."""
        ...

    def acks(self) -> AsyncIterator[tuple[str, Ack | None] | None]:
        """By process what it says, None for one that is gone; None alone once all that stood there is told."""
        ...


class Others(Protocol):
    """Resources beside policies."""

    async def reconcile(self) -> None:
        """Carry out what is declared. Raises Unavailable."""
        ...
