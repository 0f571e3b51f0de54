"""Decks and routes in memory, for tests. The same contract suite runs over it and over the database."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from callwarden.kernel.errors import Invalid, NotFound, Unavailable
from callwarden.rating.core.deck import DeckHead, DeckRow
from callwarden.rating.core.routes import Carrier, RatingRoute, RouteRow


class MemoryDeckStore:
    """ports.DeckStore. `carriers` by trunk name; `senders` are trunks that take no calls; `down`: unavailable."""

    def __init__(self) -> None:
        self.carriers: dict[str, Carrier] = {}
        self.senders: set[str] = set()
        self.down = False
        self._decks: dict[str, tuple[DeckHead, list[DeckRow]]] = {}
        self._routes: dict[tuple[str, str], RouteRow] = {}

    async def heads(self) -> list[DeckHead]:
        self._check_up()
        return [head for _, (head, _) in sorted(self._decks.items())]

    async def rows(self, name: str, version: int) -> AsyncIterator[Sequence[DeckRow]]:
        self._check_up()
        head, rows = self._decks[name]
        if head.version == version:
            for start in range(0, len(rows), 2):
                yield rows[start : start + 2]

    async def replace(self, head: DeckHead, pages: AsyncIterator[Sequence[DeckRow]]) -> int:
        self._check_up()
        rows = [row async for page in pages for row in page]
        version = self._decks[head.name][0].version + 1 if head.name in self._decks else 1
        self._decks[head.name] = replace(head, version=version), sorted(rows, key=lambda row: row.prefix)
        return version

    async def routes(self) -> list[RatingRoute]:
        self._check_up()
        rows = sorted(self._routes.values(), key=lambda row: (row.prefix, row.priority, row.trunk))
        return [RatingRoute(row, self.carriers[row.trunk]) for row in rows]

    async def set_route(self, row: RouteRow) -> None:
        self._check_up()
        if row.trunk in self.senders:
            raise Invalid("the trunk takes no calls", field="trunk")
        if row.trunk not in self.carriers:
            raise NotFound("there is no such trunk", field="trunk")
        if row.cost_deck and row.cost_deck not in self._decks:
            raise NotFound("there is no such deck", field="cost_deck")
        self._routes[(row.prefix, row.trunk)] = row

    async def delete_route(self, prefix: str, trunk: str) -> bool:
        self._check_up()
        return self._routes.pop((prefix, trunk), None) is not None

    def _check_up(self) -> None:
        if self.down:
            raise Unavailable("the database is not available")
