"""What rating needs of the world: a store of decks and routes, somebody who tells the others of a change, the policy,
and somebody who hears of calls that nobody pays.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from callwarden.policy.model import PolicySpec
from callwarden.rating.core.deck import DeckHead, DeckRow
from callwarden.rating.core.routes import Route, RouteRow
from callwarden.rating.core.unbilled import Unbilled


class Store(Protocol):
    """Decks and routes, kept. Every method may raise Unavailable; what one wrote the next reads."""

    async def heads(self) -> list[DeckHead]:
        """All decks with the version that holds, by name."""
        ...

    def rows(self, name: str, version: int) -> AsyncIterator[Sequence[DeckRow]]:
        """The rows of one version in pages, in the order of their prefixes.

        A version that was replaced meanwhile may end early: who reads looks at `heads` again afterwards.
        """
        ...

    async def replace(self, head: DeckHead, pages: AsyncIterator[Sequence[DeckRow]]) -> int:
        """Make these rows (at least one) the deck of that name; the new version's number, above all before.

        All or nothing: until the end readers get the version before, and whatever fails leaves it in place.
        `head.version` is ignored. Conflict when another import of the deck came in between.
        """
        ...

    async def routes(self) -> list[Route]:
        """All routes with their carriers, by prefix, priority and trunk."""
        ...

    async def set_route(self, row: RouteRow) -> None:
        """Write the route of that prefix and trunk, new or changed.

        NotFound where there is no such trunk (field "trunk") or deck ("cost_deck"); Invalid where the trunk takes no
        calls from us; Exhausted beyond `ROUTE_ROWS_MAX`.
        """
        ...

    async def delete_route(self, prefix: str, trunk: str) -> bool:
        """Take it away; whether it was there."""
        ...


class Announcer(Protocol):
    """Tells all rating processes."""

    async def changed(self, deck: str, version: int) -> None:
        """A deck has a new version; an empty name and 0: the routes changed. May be lost, never raises."""
        ...


class Policies(Protocol):
    """The policy in force, swapped whole when it changes."""

    def for_realm(self, realm: str) -> PolicySpec:
        """The effective settings of one realm, now; those for all realms where it has none of its own."""
        ...


class Events(Protocol):
    """Tells everybody, through JetStream."""

    def unbilled(self, event: Unbilled) -> None:
        """Calls came that have no price. Never waits, never raises; kept in memory while NATS is away."""
        ...
