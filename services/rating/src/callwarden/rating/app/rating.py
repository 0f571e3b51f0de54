"""Rating: quotes from a catalogue in memory that follows the store; imports; routes.

In: the use cases. Out: how a quote is made (core), where decks are kept, and wire types (adapters).
"""

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Final

from callwarden.common.follower import Follower
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.errors import CallwardenError, Invalid
from callwarden.kernel.phone import DIGITS_MAX
from callwarden.kernel.tariff import BadPrice
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.policy.values import DURATION_S_MAX
from callwarden.rating.app.deck_work import check
from callwarden.rating.core import deck_csv, quotes
from callwarden.rating.core.deck import Deck, DeckHead, ImportedDeck, is_name, is_prefix
from callwarden.rating.core.quotes import Catalogue, RatingQuote, Simulation
from callwarden.rating.core.routes import PRIORITY_MAX, RouteRow, RouteTable
from callwarden.rating.core.unbilled import Unbilled, UnbilledCounts, UnbilledSeverity
from callwarden.rating.ports import DeckNotifier, DeckStore, DeckWork, RatingPolicies, UnbilledEventPublisher

log = get_logger(__name__)

SIMULATED_S_MAX: Final = DURATION_S_MAX  # The longest call that policy can allow.
AT_S_MAX: Final = 7_258_118_400.0  # The year 2200: still a valid date.
UNBILLED_EVERY_S: Final = 5.0  # How often counted calls without a price are checked for due events.
_READS_MAX: Final = 3  # Imports that may overtake one refresh; the next one reads the rest.


@dataclass(frozen=True, slots=True)
class DeckInfo:
    """A deck as loaded by this process."""

    head: DeckHead
    rows: int


class Rating:
    """One process's rating. Call `refresh` before the first quote; run `follow` in the background."""

    def __init__(
        self,
        store: DeckStore,
        work: DeckWork,
        notifier: DeckNotifier,
        events: UnbilledEventPublisher,
        policies: RatingPolicies,
        clock: Clock,
        *,
        quote_valid_s: float,
        refresh_every_s: float,
    ) -> None:
        self._store = store
        self._work = work
        self._notifier = notifier
        self._events = events
        self._policies = policies
        self._clock = clock
        self._quote_valid_s = quote_valid_s
        self._catalogue = Catalogue()
        # The last good catalogue stays while it can't be read.
        self._follower = Follower(self.refresh, lambda: refresh_every_s, self._failed)
        self._refreshing = asyncio.Lock()
        self._importing = asyncio.Lock()
        self._unbilled = UnbilledCounts()
        self.refresh_failures = 0
        self.unbilled = dict.fromkeys(UnbilledSeverity, 0)
        """Number of requests without a price, by severity."""

    # Quotes.

    def quote(
        self,
        deck: str,
        destination: str,
        at_s: float,
        *,
        parent_deck: str = "",
        realm: str = "",
        is_resellers: bool = False,
    ) -> RatingQuote | Refuse:
        """Price and routes of a number (E.164 digits) for a call at `at_s` (0: now). Invalid.

        `parent_deck` is that of the account's reseller; `realm` the account's, for its policy; `is_resellers`: the
        account belongs to a reseller.
        """
        found = quotes.quote(
            self._catalogue, deck, _digits(destination), self._moment(at_s), self._quote_valid_s, parent_deck
        )
        if isinstance(found, RatingQuote):
            if found.is_exact:  # the usual case: no need to look at the policy
                return found
            demanded = self._policies.for_realm(realm).billing.exact_match
            if demanded == 0 or (demanded == 1 and not is_resellers):
                return found
            found = quotes.not_exact(found)
        if found.reason is Reason.NO_RATE:
            self._not_billed(deck, destination, realm, found.text)
        return found

    def good_until_s(self, at_s: float) -> float:
        """Until when a quote for a call at `at_s` (0: now) may be reused."""
        return (at_s or self._clock.unix_s()) + self._quote_valid_s

    def _not_billed(self, deck: str, destination: str, realm: str, text: str) -> None:
        severity = UnbilledSeverity(self._policies.for_realm(realm).billing.not_billed_severity)
        self.unbilled[severity] += 1
        event = self._unbilled.count(deck if is_name(deck) else "", destination, severity, self._clock.unix_s(), text)
        if event is not None:
            self._raise_unbilled(event)

    def _raise_unbilled(self, event: Unbilled) -> None:
        """Log it at the level of its severity, and publish it: operators may filter the log for errors."""
        write = log.info if event.severity is UnbilledSeverity.LOW else log.error
        write(
            "billing.unbilled",
            deck=event.deck,
            prefix=event.prefix,
            severity=event.severity.name.lower(),
            count=event.count,
            text=event.text,
        )
        self._events.unbilled(event)

    async def report_unbilled(self) -> None:
        """Raise events for what was counted since the last ones, a minute after those. Runs until it is cancelled."""
        try:
            while True:
                await asyncio.sleep(UNBILLED_EVERY_S)
                self.raise_due(self._clock.unix_s())
        finally:
            self.raise_due(UnixS(math.inf))  # The process ends; no other process has counted these.

    def raise_due(self, unix_s: UnixS) -> None:
        """Raise the events whose groups were last reported a minute ago."""
        for event in self._unbilled.due(unix_s):
            self._raise_unbilled(event)

    def simulate(self, deck: str, destination: str, at_s: float, duration_s: int) -> Simulation | Refuse:
        """What such a call would cost; refused only if there is no price. Invalid."""
        if duration_s > SIMULATED_S_MAX:
            raise Invalid(f"a call lasts at most {SIMULATED_S_MAX} s", field="duration_s")
        return quotes.simulate(
            self._catalogue, deck, _digits(destination), self._moment(at_s), self._quote_valid_s, duration_s
        )

    def decks(self) -> list[DeckInfo]:
        """All decks, by name."""
        return [DeckInfo(deck.head, deck.rows) for _, deck in sorted(self._catalogue.decks.items())]

    # Changes by operators.

    async def import_deck(self, head: DeckHead, content: AsyncIterable[bytes]) -> ImportedDeck | list[LineError]:
        """Replace the deck by the rows of a CSV file, or return the errors in its lines (the first `ERRORS_MAX`).

        Reads the whole file before writing anything. Invalid for the name, currency, hours or zone; Conflict if
        another import of the deck came in between.
        """
        check(head)
        async with self._importing:  # One at a time: each may take 100 MB.
            done = await self._work.replace(head, _bounded(content))
        if not isinstance(done, ImportedDeck):
            return done
        log.info("deck.imported", deck=head.name, version=done.version, rows=done.rows)
        await self._notifier.changed(head.name, done.version)
        await self._follower.refresh_own()
        return done

    async def set_route(self, row: RouteRow) -> None:
        """Write a route. Invalid, NotFound."""
        if row.prefix and not is_prefix(row.prefix):
            raise Invalid("a prefix is digits without a leading 0, or empty for all numbers", field="prefix")
        if row.priority > PRIORITY_MAX:
            raise Invalid(f"must be 0 to {PRIORITY_MAX}", field="priority")
        await self._store.set_route(row)
        await self._routes_changed()

    async def delete_route(self, prefix: str, trunk: str) -> bool:
        """Delete a route; returns whether it existed."""
        deleted = await self._store.delete_route(prefix, trunk)
        if deleted:
            await self._routes_changed()
        return deleted

    async def list_routes(self) -> list[RouteRow]:
        """All routes as stored."""
        return [route.row for route in await self._store.routes()]

    async def _routes_changed(self) -> None:
        await self._notifier.changed("", 0)
        await self._follower.refresh_own()

    # Following the store.

    def changed(self) -> None:
        """Decks, routes or carriers changed: have `follow` refresh."""
        self._follower.changed()

    async def follow(self) -> None:
        """Refresh after each change, and periodically because notifications may be lost. Runs until it is cancelled."""
        await self._follower.run()

    def _failed(self, error: CallwardenError) -> None:
        self.refresh_failures += 1
        log.warning("rating.refresh_failed", error=error)

    async def refresh(self) -> None:
        """Read what changed in the store, and replace the catalogue atomically. Unavailable."""
        async with self._refreshing:
            decks = dict(self._catalogue.decks)
            heads = await self._store.heads()
            for _ in range(_READS_MAX):
                for head in heads:
                    if (mine := decks.get(head.name)) is None or mine.head != head:
                        deck = await self._compile(head)
                        if deck is not None:
                            decks[head.name] = deck
                before, heads = heads, await self._store.heads()
                if heads == before:
                    break
            else:
                self._follower.changed()
            names = {head.name for head in heads}
            routes = RouteTable(await self._store.routes())
            self._catalogue = Catalogue({name: deck for name, deck in decks.items() if name in names}, routes)

    async def _compile(self, head: DeckHead) -> Deck | None:
        """None for a stored deck that can't be charged, which an import would refuse; the earlier version stays."""
        try:
            return Deck(head, check(head), await self._work.pack(head))
        except (Invalid, BadPrice) as error:
            log.error("deck.unreadable", error=error, deck=head.name, version=head.version)
            return None

    def _moment(self, at_s: float) -> float:
        if not math.isfinite(at_s) or not 0 <= at_s < AT_S_MAX:
            raise Invalid("must be a time in seconds since 1970", field="at_s")
        return at_s or self._clock.unix_s()


def _digits(destination: str) -> str:
    if not (2 <= len(destination) <= DIGITS_MAX and is_prefix(destination)):
        raise Invalid("must be an E.164 number: 2 to 15 digits without a leading 0 or +", field="destination")
    return destination


async def _bounded(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The parts of a file that isn't too large; Invalid."""
    size = 0
    async for part in content:
        size += len(part)
        if size > deck_csv.BYTES_MAX:
            raise Invalid(f"a deck has at most {deck_csv.BYTES_MAX} bytes", field="csv")
        yield part
