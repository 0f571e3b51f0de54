"""Rating: quotes from a catalogue in memory, which follows the store; imports; routes.

In: the order of things. Out: how a quote is made (core), where decks are kept and who asks (adapters).
"""

import asyncio
import gc
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from callwarden.common.logs import get_logger
from callwarden.kernel import csv_rows
from callwarden.kernel.clock import Clock
from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.errors import CallwardenError, Invalid
from callwarden.kernel.hours import BadPeakHours, PeakHours
from callwarden.kernel.hours import parse as parse_hours
from callwarden.kernel.money import BadCurrency, parse_currency
from callwarden.kernel.phone import DIGITS_MAX
from callwarden.kernel.tariff import BadPrice
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.rating.core import deck_csv, quotes
from callwarden.rating.core.deck import Deck, DeckBuilder, DeckHead, DeckRow, is_name, is_prefix
from callwarden.rating.core.quotes import Catalogue, Quote, Simulation
from callwarden.rating.core.routes import PRIORITY_MAX, RouteRow, RouteTable
from callwarden.rating.core.unbilled import Severity, Unbilled, UnbilledCounts
from callwarden.rating.ports import Announcer, Events, Policies, Store

log = get_logger(__name__)

ERRORS_MAX: Final = 100  # Who has a hundred wrong lines has one mistake; the reply stays small.
PAGE_ROWS: Final = 1_000  # One insert; 5 ms of our time, so that quotes go on between pages.
LOOK_ROWS: Final = 200  # Rows read from CSV before others get their turn: 1 ms.
SIMULATED_S_MAX: Final = 86_400
AT_S_MAX: Final = 7_258_118_400.0  # The year 2200: dates stay dates.
UNBILLED_EVERY_S: Final = 5.0  # How often what was counted of calls without a price is looked through.
_READS_MAX: Final = 3  # Imports that overtake one refresh; the next one gets the rest.


@dataclass(frozen=True, slots=True)
class Imported:
    """A deck that was imported."""

    rows: int
    version: int


@dataclass(frozen=True, slots=True)
class DeckInfo:
    """A deck as this process has it."""

    head: DeckHead
    rows: int


class Rating:
    """One process's rating. `refresh` once before quotes are asked for; `follow` beside."""

    def __init__(
        self,
        store: Store,
        announcer: Announcer,
        events: Events,
        policies: Policies,
        clock: Clock,
        *,
        quote_valid_s: float,
        refresh_every_s: float,
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._events = events
        self._policies = policies
        self._clock = clock
        self._quote_valid_s = quote_valid_s
        self._refresh_every_s = refresh_every_s
        self._catalogue = Catalogue()
        self._stale = asyncio.Event()
        self._refreshing = asyncio.Lock()
        self._importing = asyncio.Lock()
        self._unbilled = UnbilledCounts()
        self.refresh_failures = 0
        self.unbilled = dict.fromkeys(Severity, 0)
        """Questions for prices that aren't there, so far."""

    # What calls ask.

    def quote(
        self,
        deck: str,
        destination: str,
        at_s: float,
        *,
        parent_deck: str = "",
        realm: str = "",
        is_resellers: bool = False,
    ) -> Quote | Refuse:
        """Price and routes of a number (E.164 digits) for a call at `at_s` (0: now). Invalid.

        `parent_deck` is that of the account's reseller; `realm` the account's, for its policy; `is_resellers`: the
        account stands under a reseller.
        """
        found = quotes.quote(
            self._catalogue, deck, _digits(destination), self._moment(at_s), self._quote_valid_s, parent_deck
        )
        if isinstance(found, Quote):
            if found.is_exact:  # nearly always; then the policy needn't be looked at
                return found
            demanded = self._policies.for_realm(realm).billing.exact_match
            if demanded == 0 or (demanded == 1 and not is_resellers):
                return found
            found = quotes.not_exact(found)
        if found.reason is Reason.NO_RATE:
            self._not_billed(deck, destination, realm, found.text)
        return found

    def good_until_s(self, at_s: float) -> float:
        """Until when a quote for a call at `at_s` (0: now) may be used again."""
        return (at_s or self._clock.unix_s()) + self._quote_valid_s

    def _not_billed(self, deck: str, destination: str, realm: str, text: str) -> None:
        severity = Severity(self._policies.for_realm(realm).billing.not_billed_severity)
        self.unbilled[severity] += 1
        event = self._unbilled.count(deck if is_name(deck) else "", destination, severity, self._clock.unix_s(), text)
        if event is not None:
            self._raise_unbilled(event)

    def _raise_unbilled(self, event: Unbilled) -> None:
        """Told at the level of its severity: an error must be seen by who looks for errors only."""
        write = log.info if event.severity is Severity.LOW else log.error
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
        """Tell what was counted since an event was raised, a minute after it. Runs for ever."""
        try:
            while True:
                await asyncio.sleep(UNBILLED_EVERY_S)
                self.raise_due(self._clock.unix_s())
        finally:
            self.raise_due(math.inf)  # The process ends; nobody else has counted these.

    def raise_due(self, now_s: float) -> None:
        """Raise the events that were last raised a minute ago."""
        for event in self._unbilled.due(now_s):
            self._raise_unbilled(event)

    def simulate(self, deck: str, destination: str, at_s: float, duration_s: int) -> Simulation | Refuse:
        """What such a call would cost; refused only where there is no price. Invalid."""
        if duration_s > SIMULATED_S_MAX:
            raise Invalid(f"a call lasts at most {SIMULATED_S_MAX} s", field="duration_s")
        return quotes.simulate(
            self._catalogue, deck, _digits(destination), self._moment(at_s), self._quote_valid_s, duration_s
        )

    def decks(self) -> list[DeckInfo]:
        """All decks, by name."""
        return [DeckInfo(deck.head, deck.rows) for _, deck in sorted(self._catalogue.decks.items())]

    # What operators change.

    async def import_deck(self, head: DeckHead, content: bytes) -> Imported | list[LineError]:
        """Replace the deck by the rows of a CSV file, or say what is wrong with its lines (the first `ERRORS_MAX`).

        The whole file is read before anything is written. Invalid for the name, currency, hours or zone; Conflict when
        another import of the deck came in between.
        """
        hours = _check(head)
        if len(content) > deck_csv.BYTES_MAX:
            raise Invalid(f"a deck has at most {deck_csv.BYTES_MAX} bytes", field="csv")
        async with self._importing:  # One at a time: each may take 100 MB while it runs.
            text = csv_rows.decode(content)
            if isinstance(text, LineError):
                return [text]
            errors, rows = await _look_through(deck_csv.read(text, has_peak=hours is not None))
            if errors:
                return errors
            version = await self._store.replace(head, _pages(text, has_peak=hours is not None))
        log.info("deck.imported", deck=head.name, version=version, rows=rows)
        await self._announcer.changed(head.name, version)
        await self._refresh_own_change()
        return Imported(rows, version)

    async def set_route(self, row: RouteRow) -> None:
        """Write a route. Invalid, NotFound."""
        if row.prefix and not is_prefix(row.prefix):
            raise Invalid("a prefix is digits without 0 first, or empty for all numbers", field="prefix")
        if row.priority > PRIORITY_MAX:
            raise Invalid(f"must be 0 to {PRIORITY_MAX}", field="priority")
        await self._store.set_route(row)
        await self._routes_changed()

    async def delete_route(self, prefix: str, trunk: str) -> bool:
        """Take a route away; whether it was there."""
        deleted = await self._store.delete_route(prefix, trunk)
        if deleted:
            await self._routes_changed()
        return deleted

    async def list_routes(self) -> list[RouteRow]:
        """All routes, as they are kept."""
        return [route.row for route in await self._store.routes()]

    async def _routes_changed(self) -> None:
        await self._announcer.changed("", 0)
        await self._refresh_own_change()

    async def _refresh_own_change(self) -> None:
        """What was asked of us is done; if it can't be read back now, `follow` reads it later."""
        try:
            await self.refresh()
        except CallwardenError as error:
            self._failed(error)
            self.changed()

    # Following the store.

    def changed(self) -> None:
        """Somebody said that decks, routes or carriers are not what they were."""
        self._stale.set()

    async def follow(self) -> None:
        """Refresh whenever something changed, and every now and then because news may be lost. Runs for ever."""
        while True:
            try:
                async with asyncio.timeout(self._refresh_every_s):
                    await self._stale.wait()
            except TimeoutError:
                pass
            self._stale.clear()
            try:
                await self.refresh()
            except CallwardenError as error:  # The last good catalogue stays; the next turn tries again.
                self._failed(error)

    def _failed(self, error: CallwardenError) -> None:
        self.refresh_failures += 1
        log.warning("rating.refresh_failed", error=error)

    async def refresh(self) -> None:
        """Read what differs from the store, and swap the catalogue whole. Unavailable."""
        async with self._refreshing:
            decks = dict(self._catalogue.decks)
            compiled = False
            heads = await self._store.heads()
            for _ in range(_READS_MAX):
                for head in heads:
                    if (mine := decks.get(head.name)) is None or mine.head != head:
                        deck = await self._compile(head)
                        if deck is not None:
                            decks[head.name] = deck
                            compiled = True
                before, heads = heads, await self._store.heads()
                if heads == before:
                    break
            else:
                self._stale.set()
            names = {head.name for head in heads}
            routes = RouteTable(await self._store.routes())
            self._catalogue = Catalogue({name: deck for name, deck in decks.items() if name in names}, routes)
            if compiled:
                # Else every full collection looks at each prefix again: 70 ms without an answer, for 300,000.
                # What is frozen is still freed when nobody refers to it any more.
                del decks
                gc.collect()
                gc.freeze()

    async def _compile(self, head: DeckHead) -> Deck | None:
        """None where what is kept can't be charged, which an import would have refused; the version before stays."""
        try:
            builder = DeckBuilder(head, _check(head))
            async for rows in self._store.rows(head.name, head.version):
                builder.add(rows)
            return builder.build()
        except (Invalid, BadPrice) as error:
            log.error("deck.unreadable", error=error, deck=head.name, version=head.version)
            return None

    def _moment(self, at_s: float) -> float:
        if not math.isfinite(at_s) or not 0 <= at_s < AT_S_MAX:
            raise Invalid("is no moment in seconds since 1970", field="at_s")
        return at_s or self._clock.unix_s()


def _digits(destination: str) -> str:
    if not (2 <= len(destination) <= DIGITS_MAX and is_prefix(destination)):
        raise Invalid("is no E.164 number (2 to 15 digits, no 0 or + first)", field="destination")
    return destination


def _check(head: DeckHead) -> PeakHours | None:
    """The peak hours of a deck whose head is all right. Invalid."""
    if not is_name(head.name):
        raise Invalid("a deck's name is 1 to 64 of A-Z a-z 0-9 . _ -", field="name")
    try:
        parse_currency(head.currency)
    except BadCurrency as error:
        raise Invalid(str(error), field="currency") from error
    try:
        zone = ZoneInfo(head.time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(f"unknown time zone {head.time_zone[:64]!r}", field="time_zone") from error
    try:
        return parse_hours(head.peak_hours, zone)
    except BadPeakHours as error:
        raise Invalid(error.reason, field="peak_hours") from error


async def _look_through(found: Iterator[DeckRow | LineError]) -> tuple[list[LineError], int]:
    """What is wrong (the first `ERRORS_MAX`), and how many rows aren't."""
    errors: list[LineError] = []
    rows = 0
    for number, item in enumerate(found):
        if isinstance(item, LineError):
            errors.append(item)
            if len(errors) == ERRORS_MAX:
                break
        else:
            rows += 1
        if number % LOOK_ROWS == 0:
            await asyncio.sleep(0)
    return errors, rows


async def _pages(text: str, *, has_peak: bool) -> AsyncIterator[Sequence[DeckRow]]:
    """The rows of a file that was looked through, read anew: a million of them at once would take 500 MB."""
    page: list[DeckRow] = []
    for item in deck_csv.read(text, has_peak=has_peak):
        if isinstance(item, LineError):
            raise AssertionError("the file was looked through before")
        page.append(item)
        if len(page) % LOOK_ROWS == 0:
            await asyncio.sleep(0)
        if len(page) == PAGE_ROWS:
            yield page
            page = []
    if page:
        yield page
