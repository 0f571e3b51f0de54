"""Accounts in SQL for both databases. Cold: SQLAlchemy Core throughout.

Out: trunks (trunks_sql), what is known of calls (calls_sql), rows to values and back (account_rows).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import (
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    literal,
    not_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.call_admission.accounts.adapters.account_rows import (
    account_of,
    changed,
    check_deck,
    filtered,
    in_shards,
    numbers_and_parents,
    parent_id_of,
    parents_of,
    reseller_of,
    row_of,
    wrong_lines,
)
from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.call_admission.accounts.core.accounts import AccountChange, AccountFilter, AccountRef
from callwarden.call_admission.accounts.core.views import AccountView
from callwarden.call_admission.accounts.ports import AccountCeilings, Resellers
from callwarden.call_admission.admission.adapters.shards_sql import reshard
from callwarden.call_admission.model.calls import HoldStage
from callwarden.call_admission.model.days import day_of
from callwarden.common.sql import Database
from callwarden.common.sql.expressions import total
from callwarden.kernel.account import AccountType, NewAccount
from callwarden.kernel.clock import UnixS
from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.errors import Conflict, Exhausted, Invalid, NotFound
from callwarden.schema.tables import account, account_number, counter, hold, spend_day

# Accounts in one statement: more take the database less time, but keep one of its processors for longer at a stretch.
IMPORT_WRITE: Final = 64
EXPORT_PAGE: Final = 500
_CREATING: Final = UUID("3a7e9a52-94a8-4c55-8d0e-5b9f2c6d1e07")  # the row in `counter` that says whose turn it is


class SqlAccounts:
    """Implements ports.Accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Who waits for the row that says whose turn it is keeps a connection, and whose turn it is needs a second one:
        # of this process one creates at a time, lest those who wait take them all. So with imports, which read outside
        # their transaction, too.
        self._turn = asyncio.Lock()
        self._importing = asyncio.Lock()

    async def create(self, account_id: UUID, new: NewAccount, ceilings: AccountCeilings | None = None) -> None:
        more = {new.realm: 1}
        limited = ceilings if ceilings is not None and _are_any(more, ceilings) else None

        async def work(connection: AsyncConnection) -> None:
            if limited is not None:
                await self._bear(connection, more, limited)
            parent_id = await reseller_of(connection, new.parent, new.realm, new.currency) if new.parent else None
            await check_deck(connection, new.deck, new.currency)
            await connection.execute(insert(account).values(**row_of(account_id, new, parent_id)))
            if new.numbers:
                rows = [{"number": number, "account_id": account_id} for number in new.numbers]
                await connection.execute(insert(account_number), rows)

        try:
            async with self._turn if limited is not None else nullcontext():
                await self._database.transaction("account-create", work)
        except IntegrityError as error:
            raise await self._taken(error, new.name, new.realm, new.numbers) from error

    async def _bear(self, connection: AsyncConnection, more: Mapping[str, int], ceilings: AccountCeilings) -> None:
        """Raises Exhausted if so many more accounts, by realm, would pass a ceiling.

        Where there is one, accounts are created one after the other: each has to know how many there are. They are
        counted outside the transaction, since one that reads all accounts would make the calls' transactions fail.
        """
        if not _are_any(more, ceilings):
            return
        system = ceilings.system
        realms = {realm: limit for realm in more if (limit := ceilings.realm(realm)) is not None}
        turn = upsert(counter).values(scope=_CREATING, shard=0, version=1)
        await connection.execute(
            turn.on_conflict_do_update(
                index_elements=[counter.c.scope, counter.c.shard],
                set_={"version": counter.c.version + 1, "updated_at": func.now()},
            )
        )
        if system is not None:
            (row,) = await self._database.rows(
                "account-count", select(func.count().label("there")).select_from(account)
            )
            _check_ceiling("the system", "spec.system.maxAccounts", row.there, sum(more.values()), system)
        for realm, limit in realms.items():
            of_realm = select(func.count().label("there")).where(account.c.realm == realm)
            (row,) = await self._database.rows("account-count", of_realm)
            _check_ceiling(f"realm {realm}", "spec.system.perRealm.maxAccounts", row.there, more[realm], limit)

    async def _taken(self, error: IntegrityError, name: str, realm: str, numbers: Sequence[str]) -> Exception:
        """Which of the unique things is taken; found by looking, since the drivers' texts differ."""

        async def work(connection: AsyncConnection) -> Conflict | None:
            same = select(account.c.id).where(account.c.realm == realm, account.c.name == name)
            if name and (await connection.execute(same)).first() is not None:
                return Conflict(f"there is an account {name} in {realm} already", field="name")
            taken = select(account_number.c.number).where(account_number.c.number.in_(numbers))
            found = (await connection.execute(taken)).scalar()
            return Conflict(f"number +{found} is another account's", field="numbers") if found is not None else None

        return await self._database.transaction("account-taken", work) or error

    # ------------------------------------------------------------------ many at once

    async def check(self, lines: Sequence[Line], resellers: Resellers) -> Sequence[LineError]:
        if not lines:
            return []

        async def work(connection: AsyncConnection) -> Sequence[LineError]:
            return await wrong_lines(connection, lines, resellers)

        return await self._database.outside("account-check", work)

    async def create_all(
        self,
        pages: Callable[[], AsyncIterable[Sequence[Line]]],
        new_id: Callable[[], UUID],
        resellers: Resellers,
        ceilings: AccountCeilings,
    ) -> int:
        async def work(connection: AsyncConnection) -> int:
            more: Counter[str] = Counter()
            accounts: list[dict[str, Any]] = []
            numbers: list[dict[str, Any]] = []
            async for lines in pages():
                parents = await self._parents([line.account for line in lines])
                for new in (line.account for line in lines):
                    made = resellers.get((new.realm, new.name))
                    account_id = new_id() if made is None else made.id
                    accounts.append(row_of(account_id, new, parent_id_of(new, parents, resellers)))
                    numbers += [{"number": number, "account_id": account_id} for number in new.numbers]
                    more[new.realm] += 1
                if len(accounts) >= IMPORT_WRITE:
                    await _insert(connection, accounts, numbers)
            await _insert(connection, accounts, numbers)
            await self._bear(connection, more, ceilings)
            return more.total()

        try:
            async with self._importing:
                return await self._database.insertion("account-import", work)
        except IntegrityError as error:
            raise Conflict("an account of that name or number came in between: import again") from error

    async def _parents(self, accounts: Sequence[NewAccount]) -> dict[str, Row[Any]]:
        if not any(new.parent for new in accounts):
            return {}

        async def work(connection: AsyncConnection) -> dict[str, Row[Any]]:
            return await parents_of(connection, accounts)

        return await self._database.outside("account-parents", work)

    async def pages(self, wanted: AccountFilter) -> AsyncIterator[Sequence[NewAccount]]:
        parent_id = None if wanted.parent is None else await self.find(wanted.parent)
        is_reseller = account.c.type == AccountType.RESELLER.value
        # Resellers first: an import takes an account only after its reseller.
        for which in (is_reseller, not_(is_reseller)):
            last: tuple[str, str] | None = None
            while True:
                query = filtered(select(account).where(which), wanted, parent_id)
                if last is not None:
                    query = query.where(tuple_(account.c.realm, account.c.name) > tuple_(*map(literal, last)))
                query = query.order_by(account.c.realm, account.c.name).limit(EXPORT_PAGE)
                rows, numbers, parents = await self._database.outside("account-export", _page(query))
                if rows:
                    yield [account_of(row, numbers, parents) for row in rows]
                    last = rows[-1].realm, rows[-1].name
                if len(rows) < EXPORT_PAGE:
                    break

    # ------------------------------------------------------------------ one account

    async def find(self, ref: AccountRef) -> UUID:
        query = select(account.c.id).limit(2)
        if ref.id is not None:
            query = query.where(account.c.id == ref.id)
        else:
            query = query.where(account.c.name == ref.name)
            if ref.realm:
                query = query.where(account.c.realm == ref.realm)
        found = await self._database.rows("account-find", query)
        if not found:
            raise NotFound(f"there is no account {ref}", field="account")
        if len(found) > 1:
            raise Conflict(f"several realms have an account {ref}: write name@realm", field="account")
        account_id: UUID = found[0].id
        return account_id

    async def owner_of(self, number: str) -> UUID | None:
        query = select(account_number.c.account_id).where(account_number.c.number == number)
        found = await self._database.rows("number-owner", query)
        return found[0].account_id if found else None

    async def get(self, account_id: UUID, unix_s: UnixS) -> AccountView:
        async def work(connection: AsyncConnection) -> Sequence[AccountView]:
            return await _views(connection, select(account).where(account.c.id == account_id), unix_s)

        views = await self._database.transaction("account-get", work)
        if not views:
            raise NotFound(f"there is no account {account_id}", field="account")
        return views[0]

    async def list(self, after: str, limit: int, unix_s: UnixS, wanted: AccountFilter) -> Sequence[AccountView]:
        parent_id = None if wanted.parent is None else await self.find(wanted.parent)
        query = filtered(select(account), wanted, parent_id).order_by(account.c.name, account.c.realm).limit(limit)
        if after:
            name, _, realm = after.partition("@")
            query = query.where(
                tuple_(account.c.name, account.c.realm) > tuple_(literal(name), literal(realm))
                if realm
                else account.c.name > name
            )

        async def work(connection: AsyncConnection) -> Sequence[AccountView]:
            return await _views(connection, query, unix_s)

        return await self._database.transaction("account-list", work)

    async def update(self, account_id: UUID, change: AccountChange) -> None:
        added = change.add.get("numbers", ())

        async def work(connection: AsyncConnection) -> None:
            # Locked first, as calls do: the same order for everybody.
            locked = select(account).where(account.c.id == account_id).with_for_update()
            before = (await connection.execute(locked)).one_or_none()
            if before is None:
                raise NotFound(f"there is no account {account_id}", field="account")
            if values := await changed(connection, before, change):
                if "shards" in values:
                    values |= await reshard(connection, before, values["shards"])
                # Who decides on what it remembers of the account must find out.
                values["version"] = account.c.version + 1
                await connection.execute(update(account).where(account.c.id == account_id).values(**values))
            if removed := change.remove.get("numbers"):
                await _remove_numbers(connection, account_id, removed)
            if added:
                own = select(account_number.c.number).where(
                    account_number.c.account_id == account_id, account_number.c.number.in_(added)
                )
                known = set((await connection.execute(own)).scalars())
                rows = [{"number": n, "account_id": account_id} for n in added if n not in known]
                if rows:
                    await connection.execute(insert(account_number), rows)

        try:
            await self._database.transaction("account-update", work)
        except IntegrityError as error:
            raise await self._taken(error, "", "", added) from error


_Page: TypeAlias = tuple[Sequence[Row[Any]], dict[UUID, list[str]], dict[UUID, str]]


def _page(query: Select[Any]) -> Callable[[AsyncConnection], Awaitable[_Page]]:
    async def work(connection: AsyncConnection) -> _Page:
        rows = (await connection.execute(query.limit(EXPORT_PAGE))).all()
        return rows, *await numbers_and_parents(connection, rows)

    return work


async def _remove_numbers(connection: AsyncConnection, account_id: UUID, numbers: Sequence[str]) -> None:
    own = and_(account_number.c.account_id == account_id, account_number.c.number.in_(numbers))
    removed = set(
        (await connection.execute(delete(account_number).where(own).returning(account_number.c.number))).scalars()
    )
    if missing := [number for number in numbers if number not in removed]:
        raise Invalid(f"number +{missing[0]} isn't this account's", field="remove_numbers")


async def _insert(connection: AsyncConnection, accounts: list[Any], numbers: list[Any]) -> None:
    """Nothing is read: a transaction that only inserts new rows stands in no call's way."""
    if accounts:
        await connection.execute(insert(account), accounts)
    if numbers:
        await connection.execute(insert(account_number), numbers)
    accounts.clear()
    numbers.clear()


def _are_any(more: Iterable[str], ceilings: AccountCeilings) -> bool:
    """Whether any ceiling is set for accounts of these realms."""
    return ceilings.system is not None or any(ceilings.realm(realm) is not None for realm in more)


def _check_ceiling(whose: str, field: str, there: int, more: int, limit: int) -> None:
    if there + more > limit:
        raise Exhausted(f"{whose} may have {limit:,} accounts and has {there:,} ({field})", field=field)


async def _views(connection: AsyncConnection, query: Select[Any], unix_s: UnixS) -> list[AccountView]:
    rows = (await connection.execute(query)).all()
    ids = [row.id for row in rows]
    numbers, parents = await numbers_and_parents(connection, rows)
    now = datetime.fromtimestamp(unix_s, UTC)
    lines = select(hold.c.account_id, func.count().label("lines")).where(
        hold.c.account_id.in_(ids), hold.c.expires_at > now, hold.c.stage == HoldStage.RUNNING
    ).group_by(hold.c.account_id)  # fmt: skip
    in_use = {row.account_id: row.lines for row in (await connection.execute(lines)).all()}
    shards = {row.scope: row for row in await connection.execute(in_shards().where(counter.c.scope.in_(ids)))}
    days = {row.id: day_of(unix_s, row.time_zone) for row in rows}
    spent: dict[UUID, int] = {}
    for table, amount, day in ((spend_day, "spent_micros", "day"), (hold, "held_micros", "spend_day")):
        wanted = and_(
            tuple_(table.c.account_id, table.c[day]).in_(list(days.items())),
            hold.c.stage == HoldStage.RUNNING if table is hold else true(),
        )
        sums = select(table.c.account_id, total(table.c[amount]).label("micros")).where(wanted).group_by(
            table.c.account_id
        )  # fmt: skip
        for row in (await connection.execute(sums)).all():
            spent[row.account_id] = spent.get(row.account_id, 0) + int(row.micros)
    return [
        AccountView(
            id=row.id,
            account=account_of(row, numbers, parents),
            balance_micros=row.balance_micros - (int(shards[row.id].spent) if row.id in shards else 0),
            held_micros=row.held_micros + (int(shards[row.id].held) if row.id in shards else 0),
            lines_in_use=in_use.get(row.id, 0),
            spent_today_micros=spent.get(row.id, 0),
        )
        for row in rows
    ]
