"""Decks and routes in the database.

An import writes its rows under a new version, page by page, and then points the deck's row to that version in one
transaction: until then readers see the earlier version. Rows of earlier versions, or of an import that died, go at
the end of the next import of the deck.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import and_, delete, func, not_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.common.logs import get_logger
from callwarden.common.sql import Database
from callwarden.kernel.errors import CallwardenError, Conflict, Exhausted, Invalid, NotFound
from callwarden.rating.adapters.deck_rows import COLUMNS, head_from, head_values, is_marked, row_from, row_values
from callwarden.rating.core.deck import DeckHead, DeckRow
from callwarden.rating.core.routes import Carrier, RatingRoute, RouteRow
from callwarden.schema.tables import account, deck, deck_row, route, trunk

log = get_logger(__name__)

T = TypeVar("T")

PAGE_ROWS: Final = 1_000  # One round trip, 5 ms; quotes are answered between pages.
DELETED_ROWS: Final = 5_000  # In one transaction; CockroachDB prefers small ones.
ROUTE_ROWS_MAX: Final = 20_000  # Each change reads all: 0.2 s.


class SqlDeckStore:
    """ports.DeckStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heads(self) -> list[DeckHead]:
        async def work(connection: AsyncConnection) -> list[DeckHead]:
            rows = await connection.execute(select(deck).order_by(deck.c.name))
            return [head_from(row) for row in rows]

        return await self._database.transaction("decks", work)

    async def rows(self, name: str, version: int) -> AsyncIterator[Sequence[DeckRow]]:
        after = ""
        while True:
            page = await self._page(name, version, after)
            if page:
                yield page
                after = page[-1].prefix
            if len(page) < PAGE_ROWS:
                return

    async def _page(self, name: str, version: int, after: str) -> list[DeckRow]:
        async def work(connection: AsyncConnection) -> list[DeckRow]:
            rows = await connection.execute(
                select(*COLUMNS)
                .where(deck_row.c.deck == name, deck_row.c.version == version, deck_row.c.prefix > after)
                .order_by(deck_row.c.prefix)
                .limit(PAGE_ROWS)
            )
            try:
                return [row_from(row) for row in rows]
            except ValueError as error:
                raise Invalid(f"a stored row of {name} can't be charged: {error}") from error

        return await self._database.transaction("deck page", work)

    async def replace(self, head: DeckHead, pages: AsyncIterator[Sequence[DeckRow]]) -> int:
        first = await anext(pages)
        marked = bool(head.windows) or any(map(is_marked, first))
        before, version = await self._begin(head.name, first)
        try:
            async for page in pages:
                await self._insert(head.name, version, page)
                marked = marked or any(map(is_marked, page))
            await self._point(head, before, version, marked)
        except BaseException:
            with suppress(CallwardenError):
                await self._delete(head.name, deck_row.c.version == version)
            raise
        try:
            await self._delete(head.name, deck_row.c.version < version)
        except CallwardenError as error:  # The import is done; the next one deletes the leftovers.
            log.warning("deck.old_rows_left", error=error, deck=head.name)
        return version

    async def _begin(self, name: str, page: Sequence[DeckRow]) -> tuple[int | None, int]:
        """Claim a version by writing its first rows; returns the current version (None: a new deck) and ours."""

        async def work(connection: AsyncConnection) -> tuple[int | None, int]:
            before = await connection.scalar(select(deck.c.version).where(deck.c.name == name))
            written = await connection.scalar(select(func.max(deck_row.c.version)).where(deck_row.c.deck == name))
            version = max(before or 0, written or 0) + 1
            await connection.execute(insert(deck_row), row_values(name, version, page))
            return before, version

        return await self._write("deck begin", work)

    async def _insert(self, name: str, version: int, page: Sequence[DeckRow]) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(deck_row), row_values(name, version, page))

        await self._write("deck page write", work)

    async def _point(self, head: DeckHead, before: int | None, version: int, marked: bool) -> None:
        async def work(connection: AsyncConnection) -> None:
            now = await connection.scalar(select(deck.c.version).where(deck.c.name == head.name).with_for_update())
            if now != before:
                raise Conflict("another import of this deck came in between", field="name")
            values = head_values(head, version, is_marked=marked) | {"updated_at": func.now()}
            await connection.execute(
                insert(deck)
                .values(name=head.name, **values)
                .on_conflict_do_update(index_elements=[deck.c.name], set_=values)
            )

        await self._write("deck point", work)

    async def _write(self, name: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            return await self._database.transaction(name, work)
        except IntegrityError as error:  # Another import claimed the same version at the same time.
            raise Conflict("another import of this deck is under way", field="name") from error

    async def _delete(self, name: str, which: Any) -> None:
        """Delete the deck's rows of those versions, a bounded number in each transaction."""

        async def work(connection: AsyncConnection) -> bool:
            rows = (
                await connection.execute(
                    select(deck_row.c.version, deck_row.c.prefix)
                    .where(deck_row.c.deck == name, which)
                    .order_by(deck_row.c.version, deck_row.c.prefix)
                    .limit(DELETED_ROWS)
                )
            ).all()
            if not rows:
                return False
            version = rows[0].version
            last = max(row.prefix for row in rows if row.version == version)
            await connection.execute(
                delete(deck_row).where(
                    deck_row.c.deck == name, deck_row.c.version == version, deck_row.c.prefix <= last
                )
            )
            return True

        while await self._database.transaction("deck delete", work):
            pass

    async def routes(self) -> list[RatingRoute]:
        async def work(connection: AsyncConnection) -> list[RatingRoute]:
            rows = await connection.execute(
                select(route, trunk, account.c.status)
                .join(trunk, trunk.c.name == route.c.trunk)
                .join(account, account.c.id == trunk.c.account_id)
                .order_by(route.c.prefix, route.c.priority, route.c.trunk)
            )
            return [
                RatingRoute(
                    RouteRow(row.prefix, row.trunk, row.priority, row.cost_deck),
                    Carrier(
                        row.trunk,
                        row.address,
                        str(row.account_id),
                        row.strip_digits,
                        row.tech_prefix + row.add_prefix,
                        row.enabled and row.direction == "carrier" and row.status == "active",
                    ),
                )
                for row in rows
            ]

        return await self._database.transaction("routes", work)

    async def set_route(self, row: RouteRow) -> None:
        async def work(connection: AsyncConnection) -> None:
            direction = await connection.scalar(select(trunk.c.direction).where(trunk.c.name == row.trunk))
            if direction is None:
                raise NotFound("there is no such trunk", field="trunk")
            if direction != "carrier":
                raise Invalid("this trunk only sends calls to us", field="trunk")
            if row.cost_deck and not await connection.scalar(select(deck.c.name).where(deck.c.name == row.cost_deck)):
                raise NotFound("there is no such deck", field="cost_deck")
            others = not_(and_(route.c.prefix == row.prefix, route.c.trunk == row.trunk))
            if (await connection.scalar(select(func.count()).select_from(route).where(others)) or 0) >= ROUTE_ROWS_MAX:
                raise Exhausted(f"there are {ROUTE_ROWS_MAX} routes already")
            values = {"priority": row.priority, "cost_deck": row.cost_deck}
            await connection.execute(
                insert(route)
                .values(prefix=row.prefix, trunk=row.trunk, **values)
                .on_conflict_do_update(index_elements=[route.c.prefix, route.c.trunk], set_=values)
            )

        await self._database.transaction("set route", work)

    async def delete_route(self, prefix: str, trunk: str) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            result = await connection.execute(delete(route).where(route.c.prefix == prefix, route.c.trunk == trunk))
            return result.rowcount > 0

        return await self._database.transaction("delete route", work)
