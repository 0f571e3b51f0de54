"""Number lists: imported, looked at, and followed into memory, where calls find them.

In: the order of things. Out: matching and reading files (core), where lists are kept and who asks (adapters), who gets
onto the lists that make themselves (call_watch).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from callwarden.call_admission.lists.core import list_file
from callwarden.call_admission.lists.core.list_file import ListLineError
from callwarden.call_admission.lists.ports import ListedStore, ListPublisher, ListStore, WrittenList
from callwarden.call_admission.model.lists import (
    DESCRIPTION_CHARS_MAX,
    RESERVED,
    TRUNKS_MAX,
    Hit,
    ListBuilder,
    Listed,
    ListEntry,
    ListHead,
    Listings,
    Lists,
    ListSide,
    NumberList,
    TooManyShapes,
    digits_of,
    is_name,
)
from callwarden.common.follower import Follower
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Invalid, NotFound

log = get_logger(__name__)

ERRORS_MAX: Final = 100  # Who has a hundred wrong lines has one mistake; the reply stays small.
PAGE_ENTRIES: Final = 2_500  # Read in one turn of a thread (5 ms), and written by one statement.
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
SOURCE_CHARS_MAX: Final = 1_024
# Should news be lost: what was said while NATS was away is asked for when it is back.
REFRESH_EVERY_S: Final = 30.0
_READS_MAX: Final = 3  # Imports that overtake one refresh; the next one gets the rest.


@dataclass(frozen=True, slots=True)
class ListInfo:
    """A list as it is kept, and whether this process has that version."""

    head: ListHead
    loaded: bool


@dataclass(frozen=True, slots=True)
class ListSearch:
    """A list that a number is on."""

    hit: Hit
    side: ListSide
    """Of the list."""
    note: str


@dataclass(slots=True)
class NumberListStats:
    """What has happened since the start; read by adapters.metrics."""

    loads: int = 0
    load_failures: int = 0


class NumberLists:
    """One process's lists. Call `refresh` once before calls are decided; run `follow` in the background."""

    def __init__(self, store: ListStore, news: ListPublisher, listed: ListedStore, clock: Clock) -> None:
        self._store = store
        self._news = news
        self._listed = listed
        self._clock = clock
        self.listings = Listings()
        self._lists = Lists({}, self.listings)
        # The last good lists stay while they can't be read.
        self._follower = Follower(self.refresh, lambda: REFRESH_EVERY_S, self._failed)
        self._refreshing = asyncio.Lock()
        self._importing = asyncio.Lock()
        self.counts = NumberListStats()

    @property
    def current(self) -> Lists:
        """All lists as calls are to see them now. Another value when a fixed list has changed."""
        return self._lists

    # ------------------------------------------------------------------ what operators do

    async def import_list(
        self, head: ListHead, parts: Sequence[bytes], *, column: str = "", prefixes: bool = False
    ) -> WrittenList | list[ListLineError]:
        """Replaces the list by the entries of a file that came in parts, or says what is wrong with its lines (the
        first `ERRORS_MAX`).

        The whole file is read before anything is written. Raises Invalid for what isn't a line's fault, Conflict,
        Exhausted, Unavailable.
        """
        _check(head)
        if sum(map(len, parts)) > list_file.BYTES_MAX:
            raise Invalid(f"a file has at most {list_file.BYTES_MAX} bytes", field="content")
        async with self._importing:
            errors = await asyncio.to_thread(_look_through, parts, column, prefixes)
            if errors:
                return errors
            written = await self._store.replace(head, _pages(parts, column, prefixes))
        log.info("list.imported", list=head.name, version=written.version, entries=written.entries)
        await self._changed_here(head.name, written.version)
        return written

    async def lists(self) -> list[ListInfo]:
        """All lists, by name. Raises Unavailable."""
        return [self._info(head) for head in await self._store.heads()]

    async def show(self, name: str, after: str = "", limit: int = 0) -> tuple[ListInfo, Sequence[ListEntry]]:
        """A list and a page of its entries, after that one. Raises NotFound, Invalid, Unavailable."""
        if not 0 <= limit <= PAGE_MAX:
            raise Invalid(f"a page has 1 to {PAGE_MAX} entries", field="page_size")
        for head in await self._store.heads():
            if head.name == name:
                return self._info(head), await self._store.entries(name, after, limit or PAGE_DEFAULT)
        raise NotFound(f"there is no list {name[:64]}", field="name")

    async def delete(self, name: str) -> bool:
        """Takes a list away; whether it was there. Raises Unavailable."""
        deleted = await self._store.delete(name)
        if deleted:
            log.info("list.deleted", list=name)
            await self._changed_here(name, 0)
        return deleted

    async def check(self, number: str) -> tuple[list[ListSearch], list[Listed]]:
        """Every list that a number is on, used or not, and what it is listed as for a time. Raises Invalid,
        Unavailable."""
        digits = digits_of(number)
        if not digits:
            raise Invalid(f"{number[:32]!r} is no international number", field="number")
        found = []
        for name, one in sorted(self._lists.fixed.items()):
            match = one.match(digits)
            if match is not None:
                side = one.head.side
                hit = Hit(name, one.head.kind, side, match.pattern, match.rank)
                found.append(ListSearch(hit, side, await self._store.note(name, match.pattern)))
        return found, [listed for listed in self.listed() if listed.number == digits]

    def listed(self) -> list[Listed]:
        """What is listed for a time, the oldest first."""
        return self.listings.all(self._clock.unix_s())

    async def lift(self, number: str) -> list[Listed]:
        """Lifts every listing of a number ("": of all); what was lifted. Its statistics restart. Raises Invalid,
        Unavailable."""
        digits = digits_of(number)
        if number and not digits:
            raise Invalid(f"{number[:32]!r} is no international number", field="number")
        # Asked of the store: another process may have listed it a moment ago.
        lifted = [listed for listed in await self._listed.all() if not digits or listed.number == digits]
        for listed in lifted:
            await self._listed.delete(listed)
            self.listings.remove(listed)
        if lifted:
            log.info("listed.lifted", count=len(lifted))
        return lifted

    def _info(self, head: ListHead) -> ListInfo:
        mine = self._lists.fixed.get(head.name)
        return ListInfo(head, mine is not None and mine.head.version == head.version)

    async def _changed_here(self, name: str, version: int) -> None:
        await self._news.changed(name, version)
        await self._follower.refresh_own()

    # ------------------------------------------------------------------ following the store

    def changed(self) -> None:
        """Another process has changed lists."""
        self._follower.changed()

    async def follow(self) -> None:
        """Refreshes whenever something changed, and every now and then because news may be lost. Runs for ever."""
        await self._follower.run()

    def _failed(self, error: CallwardenError) -> None:
        self.counts.load_failures += 1
        log.warning("lists.refresh_failed", error=error)

    async def refresh(self) -> None:
        """Reads what differs from the store and swaps all lists at once; until then calls are decided by the ones
        before. Raises Unavailable."""
        async with self._refreshing:
            known = dict(self._lists.fixed)
            heads = await self._store.heads()
            for _ in range(_READS_MAX):
                for head in heads:
                    mine = known.get(head.name)
                    if mine is None or mine.head != head:
                        compiled = await self._compile(head)
                        if compiled is not None:
                            known[head.name] = compiled
                before, heads = heads, await self._store.heads()
                if heads == before:
                    break
            else:
                self._follower.changed()
            names = {head.name for head in heads}
            fixed = {name: one for name, one in known.items() if name in names}
            if fixed != self._lists.fixed:
                self._lists = Lists.of(fixed.values(), self.listings)

    async def _compile(self, head: ListHead) -> NumberList | None:
        """None where the version was replaced while it was read, or can't be compiled: then the one before stays."""
        builder = ListBuilder(head)
        entries = 0
        try:
            async for page in self._store.patterns(head.name, head.version):
                builder.add(page)
                entries += len(page)
        except (TooManyShapes, ValueError) as error:
            log.error("list.unreadable", error=error, list=head.name, version=head.version)
            return None
        if entries != head.entries:
            return None
        self.counts.loads += 1
        return builder.build()


def _check(head: ListHead) -> None:
    """Raises Invalid."""
    if head.name in RESERVED:
        raise Invalid(f"the list {head.name} makes itself; take another name", field="name")
    if not is_name(head.name):
        raise Invalid("a list's name is 1 to 64 of A-Z a-z 0-9 . _ -", field="name")
    for field, text, chars_max in (
        ("description", head.description, DESCRIPTION_CHARS_MAX),
        ("source", head.source, SOURCE_CHARS_MAX),
    ):
        if len(text) > chars_max or not text.isprintable():
            raise Invalid(f"has at most {chars_max} characters, none of control", field=field)
    if len(head.trunks) > TRUNKS_MAX:
        raise Invalid(f"a list is for at most {TRUNKS_MAX} trunks", field="trunks")
    for trunk in head.trunks:
        if not is_name(trunk):
            raise Invalid(f"{trunk[:64]!r} is no trunk's name", field="trunks")


def _look_through(parts: Sequence[bytes], column: str, prefixes: bool) -> list[ListLineError]:
    """What is wrong, the first `ERRORS_MAX`. Takes 2 s for a million lines: called in a thread."""
    errors: list[ListLineError] = []
    entries = 0
    for item in list_file.read(parts, column=column, prefixes=prefixes):
        if isinstance(item, ListLineError):
            errors.append(item)
            if len(errors) == ERRORS_MAX:
                break
        else:
            entries += 1
    return errors if errors or entries else [ListLineError(1, "the file has no numbers")]


async def _pages(
    parts: Sequence[bytes],
    column: str,
    prefixes: bool,
) -> AsyncIterator[Sequence[ListEntry]]:
    """The entries of a checked file, read a second time: a million of them at once would take 150 MB."""
    items = list_file.read(parts, column=column, prefixes=prefixes)
    while page := await asyncio.to_thread(_page, items):
        yield page


def _page(items: Iterator[ListEntry | ListLineError]) -> Sequence[ListEntry]:
    page: list[ListEntry] = []
    for item in islice(items, PAGE_ENTRIES):
        if isinstance(item, ListLineError):
            raise AssertionError("the file was looked through before")
        page.append(item)
    return page
