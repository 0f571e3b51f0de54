"""Number lists in the database.

An import writes its entries under a version of their own, page by page, and then lets the list's row point to it in one
transaction: readers see the version before until then. What is left of versions before, or of an import that died, goes
when the next import of the list is done.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.call_admission.lists.ports import WrittenList
from callwarden.call_admission.model.lists import ENTRIES_TOTAL_MAX, LISTS_MAX, ListEntry, ListHead, ListKind, ListSide
from callwarden.common.logs import get_logger
from callwarden.common.sql import Database
from callwarden.common.sql.expressions import total
from callwarden.kernel.errors import CallwardenError, Conflict, Exhausted
from callwarden.schema.tables import account, number_list, number_list_entry

log = get_logger(__name__)

# Of a list that is loaded: one row for all of a page costs a fifth of a row for each entry, here where calls wait.
PAGE_PATTERNS: Final = 4_000
DELETED_ROWS: Final = 10_000  # In one transaction; CockroachDB wants them small.

_PATTERNS: Final = text(
    "SELECT array_agg(pattern ORDER BY pattern) FROM ("
    "SELECT pattern FROM number_list_entry WHERE list = :list AND version = :version AND pattern > :after"
    " ORDER BY pattern LIMIT :limit) AS page"
)
_INSERT: Final = (
    "INSERT INTO number_list_entry (list, version, pattern, note)"
    " SELECT :list, :version, pattern, note"
    " FROM unnest(CAST(:patterns AS text[]), CAST(:notes AS text[])) AS page (pattern, note)"
)
_INSERT_FIRST: Final = text(_INSERT)
_INSERT_MORE: Final = text(f"{_INSERT} ON CONFLICT (list, version, pattern) DO NOTHING")


class SqlLists:
    """lists.ports.ListStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def heads(self) -> list[ListHead]:
        async def work(connection: AsyncConnection) -> list[ListHead]:
            return [_head(row) for row in await connection.execute(select(number_list).order_by(number_list.c.name))]

        return await self._database.transaction("lists", work)

    async def patterns(self, name: str, version: int) -> AsyncIterator[Sequence[str]]:
        after = ""
        while True:
            page = await self._page(name, version, after)
            if page:
                yield page
                after = page[-1]
            if len(page) < PAGE_PATTERNS:
                return

    async def _page(self, name: str, version: int, after: str) -> Sequence[str]:
        async def work(connection: AsyncConnection) -> Sequence[str]:
            values = {"list": name, "version": version, "after": after, "limit": PAGE_PATTERNS}
            page: Sequence[str] | None = await connection.scalar(_PATTERNS, values)
            return page or ()

        return await self._database.transaction("list page", work)

    async def entries(self, name: str, after: str, limit: int) -> Sequence[ListEntry]:
        async def work(connection: AsyncConnection) -> Sequence[ListEntry]:
            rows = await connection.execute(
                _of_version(name, number_list_entry.c.pattern, number_list_entry.c.note)
                .where(number_list_entry.c.pattern > after)
                .order_by(number_list_entry.c.pattern)
                .limit(limit)
            )
            return [ListEntry(row.pattern, row.note) for row in rows]

        return await self._database.transaction("list entries", work)

    async def note(self, name: str, pattern: str) -> str:
        async def work(connection: AsyncConnection) -> str:
            wanted = _of_version(name, number_list_entry.c.note).where(number_list_entry.c.pattern == pattern)
            return await connection.scalar(wanted) or ""

        return await self._database.transaction("list note", work)

    async def replace(self, head: ListHead, pages: AsyncIterator[Sequence[ListEntry]]) -> WrittenList:
        first = await anext(pages)
        before, version, entries = await self._begin(head.name, first)
        read = len(first)
        try:
            async for page in pages:
                entries += await self._insert(head.name, version, page)
                read += len(page)
            await self._point(head, before, version, entries)
        except BaseException:
            with suppress(CallwardenError):
                await self._delete(head.name, number_list_entry.c.version == version)
            raise
        try:
            await self._delete(head.name, number_list_entry.c.version < version)
        except CallwardenError as error:  # The import is done; what is left over goes with the next one.
            log.warning("list.old_rows_left", error=error, list=head.name)
        return WrittenList(version, entries, read - entries)

    async def _begin(self, name: str, page: Sequence[ListEntry]) -> tuple[int | None, int, int]:
        """Takes a version by writing its first rows; the version that holds (None: no such list yet), ours, and how
        many rows."""
        once = list({entry.pattern: entry for entry in page}.values())

        async def work(connection: AsyncConnection) -> tuple[int | None, int]:
            before = await connection.scalar(select(number_list.c.version).where(number_list.c.name == name))
            written = await connection.scalar(
                select(func.max(number_list_entry.c.version)).where(number_list_entry.c.list == name)
            )
            version = max(before or 0, written or 0) + 1
            await connection.execute(_INSERT_FIRST, _values(name, version, once))
            return before, version

        try:
            before, version = await self._database.transaction("list begin", work)
        except IntegrityError as error:  # Another process took the same version at the same moment.
            raise Conflict("another import of this list is under way", field="name") from error
        return before, version, len(once)

    async def _insert(self, name: str, version: int, page: Sequence[ListEntry]) -> int:
        """How many weren't there yet."""

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(_INSERT_MORE, _values(name, version, page))).rowcount

        return await self._database.transaction("list page write", work)

    async def _point(self, head: ListHead, before: int | None, version: int, entries: int) -> None:
        async def work(connection: AsyncConnection) -> None:
            now = await connection.scalar(
                select(number_list.c.version).where(number_list.c.name == head.name).with_for_update()
            )
            if now != before:
                raise Conflict("another import of this list came in between", field="name")
            row = (
                await connection.execute(
                    select(func.count(), func.coalesce(total(number_list.c.entries), 0)).where(
                        number_list.c.name != head.name
                    )
                )
            ).one()
            if row[0] >= LISTS_MAX:
                raise Exhausted(f"there are {LISTS_MAX} lists already")
            if row[1] + entries > ENTRIES_TOTAL_MAX:
                raise Exhausted(f"all lists together have at most {ENTRIES_TOTAL_MAX:,} entries")
            values = {
                "version": version,
                "kind": head.kind.value,
                "side": head.side.value,
                "description": head.description,
                "entries": entries,
                "source": head.source,
                "trunks": ",".join(head.trunks),
                "updated_at": func.now(),
            }
            await connection.execute(
                insert(number_list)
                .values(name=head.name, **values)
                .on_conflict_do_update(index_elements=[number_list.c.name], set_=values)
            )

        await self._database.transaction("list point", work)

    async def delete(self, name: str) -> bool:
        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(delete(number_list).where(number_list.c.name == name))).rowcount

        deleted = await self._database.transaction("list delete", work) > 0
        if deleted:
            with suppress(CallwardenError):  # What is left goes with the next import of that name.
                await self._delete(name, number_list_entry.c.version >= 0)
        return deleted

    async def _delete(self, name: str, which: Any) -> None:
        """The list's entries of those versions, a bounded number in each transaction."""

        async def work(connection: AsyncConnection) -> bool:
            page = (
                select(number_list_entry.c.version, number_list_entry.c.pattern)
                .where(number_list_entry.c.list == name, which)
                .order_by(number_list_entry.c.version, number_list_entry.c.pattern)
                .limit(DELETED_ROWS)
                .subquery()
            )
            found = (
                await connection.execute(
                    select(page.c.version, func.max(page.c.pattern))
                    .group_by(page.c.version)
                    .order_by(page.c.version)
                    .limit(1)
                )
            ).first()
            if found is None:
                return False
            version, last = found
            await connection.execute(
                delete(number_list_entry).where(
                    number_list_entry.c.list == name,
                    number_list_entry.c.version == version,
                    number_list_entry.c.pattern <= last,
                )
            )
            return True

        while await self._database.transaction("list rows delete", work):
            pass

    async def realms(self, accounts: Sequence[UUID]) -> Mapping[UUID, str]:
        async def work(connection: AsyncConnection) -> Mapping[UUID, str]:
            rows = await connection.execute(select(account.c.id, account.c.realm).where(account.c.id.in_(accounts)))
            return {row.id: row.realm for row in rows}

        return await self._database.transaction("realms", work)


def _of_version(name: str, *columns: Any) -> Any:
    """Entries of the version that holds."""
    return (
        select(*columns)
        .join(number_list, number_list.c.name == number_list_entry.c.list)
        .where(number_list_entry.c.list == name, number_list_entry.c.version == number_list.c.version)
    )


def _head(row: Row[Any]) -> ListHead:
    return ListHead(
        row.name,
        row.version,
        ListKind(row.kind),
        ListSide(row.side),
        row.description,
        row.entries,
        row.source,
        tuple(trunk for trunk in row.trunks.split(",") if trunk),
        row.updated_at.timestamp(),
    )


def _values(name: str, version: int, page: Sequence[ListEntry]) -> dict[str, Any]:
    return {
        "list": name,
        "version": version,
        "patterns": [entry.pattern for entry in page],
        "notes": [entry.note for entry in page],
    }
