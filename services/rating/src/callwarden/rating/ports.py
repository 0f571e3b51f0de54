"""What rating needs of the outside world: a store of decks and routes, someone to do the long work on decks, a notifier
of changes, the policy, and a publisher of unbilled calls.
"""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Protocol

from callwarden.kernel.csv_rows import LineError
from callwarden.policy.model import PolicySpec
from callwarden.rating.core.deck import DeckHead, DeckRow, ImportedDeck, PackedRows
from callwarden.rating.core.routes import RatingRoute, RouteRow
from callwarden.rating.core.unbilled import Unbilled


class DeckStore(Protocol):
    """Keeps decks and routes. Every method may raise Unavailable; a read sees every earlier write."""

    async def heads(self) -> list[DeckHead]:
        """All decks with their current versions, by name."""
        ...

    def rows(self, name: str, version: int) -> AsyncIterator[Sequence[DeckRow]]:
        """The rows of one version in pages, in the order of their prefixes.

        A version that is replaced meanwhile may end early: read `heads` again afterwards.
        """
        ...

    async def replace(self, head: DeckHead, pages: AsyncIterator[Sequence[DeckRow]]) -> int:
        """Replace the rows (at least one) of the deck of that name; returns the new version, above all earlier ones.

        Atomic: readers get the earlier version until the end, and a failure leaves it in place. `head.version` is
        ignored. Conflict if another import of the deck came in between.
        """
        ...

    async def routes(self) -> list[RatingRoute]:
        """All routes with their carriers, by prefix, priority and trunk."""
        ...

    async def set_route(self, row: RouteRow) -> None:
        """Create or replace the route of that prefix and trunk.

        NotFound if there is no such trunk (field "trunk") or deck ("cost_deck"); Invalid if the trunk takes no calls
        from us; Exhausted beyond `ROUTE_ROWS_MAX`.
        """
        ...

    async def delete_route(self, prefix: str, trunk: str) -> bool:
        """Delete the route; returns whether it existed."""
        ...


class DeckWork(Protocol):
    """Does what takes seconds for a large deck, without keeping quotes from being answered meanwhile.

    Either method raises Unavailable if the store doesn't answer, or if the work broke off."""

    async def replace(self, head: DeckHead, content: AsyncIterable[bytes]) -> ImportedDeck | list[LineError]:
        """Replace the deck by the rows of a CSV file, or return the errors in its lines (the first `ERRORS_MAX`).

        Reads the whole file before writing anything. Invalid, Conflict if another import of the deck came in between;
        an error of `content` is raised as it is, with nothing written.
        """
        ...

    async def pack(self, head: DeckHead) -> PackedRows:
        """The rows of that version of the deck. One that is replaced meanwhile may lack some: see `DeckStore.rows`."""
        ...


class DeckNotifier(Protocol):
    """Notifies all rating processes of changes."""

    async def changed(self, deck: str, version: int) -> None:
        """A deck has a new version; an empty name and 0: the routes changed. May be lost; never raises."""
        ...


class RatingPolicies(Protocol):
    """The policy in force, swapped whole when it changes."""

    def for_realm(self, realm: str) -> PolicySpec:
        """The effective settings of a realm; those for all realms if it has none of its own."""
        ...


class UnbilledEventPublisher(Protocol):
    """Publishes events through JetStream."""

    def unbilled(self, event: Unbilled) -> None:
        """Calls without a price came. Never blocks, never raises; waits in memory while NATS is unavailable."""
        ...
