"""Accounts, holds and counters in PostgreSQL or CockroachDB: one read and one write for a batch, by prepared statements
(DESIGN.md D2). Out: the SQL (statements), rows and values (rows), what happens after a conflict (attempts).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from callwarden.call_admission.admission.adapters.rows import (
    Row,
    account_from,
    add_hold,
    closed_row,
    counter_rows,
    decision_row,
    end_row,
    hold_row,
    late_row,
    time_of,
    update_row,
)
from callwarden.call_admission.admission.adapters.statements import (
    CLAUSES,
    FORGET_RECORDED,
    READ_COUNTED,
    READ_COUNTERS,
    READ_EXPIRED,
    READ_UNCOUNTED,
    size_of,
    statement,
)
from callwarden.call_admission.admission.core.state import (
    AccountState,
    Changes,
    CounterKey,
    CounterRow,
    Loaded,
    ReadSet,
    ReferencedAccount,
)
from callwarden.call_admission.admission.ports import WriteConflict, Written
from callwarden.call_admission.model.calls import Expired, HoldStage, Unclaimed
from callwarden.call_admission.model.codecs.usage_bytes import grants_from, usage_bytes, usage_from
from callwarden.call_admission.model.usage import Usage
from callwarden.common.sql import HotPool, OutcomeUnknown
from callwarden.kernel.clock import UnixS

# For the planner of PostgreSQL. These statements look up keys; a plan made while the tables were small would read them
# whole ever after, and a statement that has read a whole table conflicts with everything that writes to it. One generic
# plan serves for all arguments: planning each execution, which the planner would choose, takes longer than running it.
SESSION: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

_DIGITS: Final = tuple("0123456789abcdef")
# What a write meets when another process came between: a version that has moved (statements.statement divides by zero
# then), money that is gone (a CHECK), a hold that exists already. Reading again shows which. That is also true of a
# write whose outcome isn't known: every command finds what it has done before (a hold, a record, a decision by its id;
# what is granted already), and does it once.
_CONFLICTS: Final = (asyncpg.CheckViolationError, asyncpg.UniqueViolationError, OutcomeUnknown)
_WRITTEN: Final = Written()


class SqlAdmissionStore:
    """Implements ports.AdmissionStore."""

    def __init__(self, pool: HotPool) -> None:
        self._pool = pool

    async def load(self, read: ReadSet, counters: Collection[CounterKey]) -> Loaded:
        reads_rows = bool(read.accounts or read.holds)
        if not reads_rows and not counters:
            return Loaded({}, {})  # decision records only

        async def both(connection: Any) -> Loaded:
            # Counters before holds: a call that is refused for what a counter says has no hold placed in between.
            rows = await _load_counters(connection, counters) if counters else {}
            loaded = await _load(connection, read) if reads_rows else Loaded({}, {})
            loaded.counters = rows
            return loaded

        return await self._pool.run("admission-read" if reads_rows else "admission-counters", both)

    async def write(self, changes: Changes) -> Written | WriteConflict:
        try:
            await self._pool.run("admission-write", lambda connection: _write(connection, changes))
        except asyncpg.DivisionByZeroError:
            return WriteConflict()
        except _CONFLICTS as error:
            return WriteConflict(error)
        return _WRITTEN

    async def expired(self, unix_s: UnixS, limit: int) -> Sequence[Expired]:
        return [Expired(*found) for found in await self._past(unix_s, limit, HoldStage.RUNNING)]

    async def lapsed(self, unix_s: UnixS, limit: int) -> Sequence[Unclaimed]:
        return [Unclaimed(*found) for found in await self._past(unix_s, limit, HoldStage.LAPSED)]

    async def _past(self, unix_s: UnixS, limit: int, stage: HoldStage) -> list[tuple[UUID, UUID]]:
        async def attempt(connection: Any) -> list[tuple[UUID, UUID]]:
            rows = await connection.fetch(READ_EXPIRED, time_of(unix_s), limit, _DIGITS, stage.value)
            return [(row["id"], row["account_id"]) for row in rows]

        return await self._pool.run("expired", attempt)

    async def forget_recorded(self, unix_s: UnixS) -> None:
        async def attempt(connection: Any) -> None:
            await connection.execute(FORGET_RECORDED, time_of(unix_s), _DIGITS)

        await self._pool.run("forget-recorded", attempt)


async def _load(connection: Any, read: ReadSet) -> Loaded:
    loaded = Loaded({}, {})
    arguments: tuple[Any, ...] = (read.accounts, read.holds, read.referenced)
    if read.counted:
        rows = await connection.fetch(READ_COUNTED, *arguments, time_of(read.unix_s), read.counted)
    else:
        rows = await connection.fetch(READ_UNCOUNTED, *arguments)
    for row in rows:
        kind = row[0]
        if kind == 0:
            account, version, usage = account_from(row)
            state = loaded.accounts[account.id] = AccountState.of(account, version, row[-2] or 0, usage_from(usage))
            if row[-1] is not None:
                state.lines_until_s = row[-1].timestamp()
        elif kind == 1:
            account, version, _ = account_from(row)
            loaded.referenced[account.id] = ReferencedAccount(account, version)
        else:
            add_hold(loaded, row)
    return loaded


async def _load_counters(connection: Any, wanted: Collection[CounterKey]) -> dict[CounterKey, CounterRow]:
    keys = sorted(wanted)
    rows = await connection.fetch(READ_COUNTERS, [scope for scope, _ in keys], [shard for _, shard in keys])
    found = {
        (scope, shard): CounterRow(version, usage_from(usage), grants_from(grants))
        for scope, shard, version, usage, grants in rows
    }
    return {key: found.get(key) or CounterRow(0, Usage()) for key in keys}


@dataclass(slots=True)
class _Write:
    """One statement: the names of its clauses, the rows of those that have some, and how many rows each counted clause
    must change."""

    names: list[str]
    rows: list[tuple[str, list[Row]]]
    counts: list[int]

    def first(self, name: str, rows: list[Row]) -> None:
        """Adds a clause before the others, each of whose rows must be counted."""
        self.names.insert(0, name)
        self.rows.insert(0, (name, rows))
        self.counts.insert(0, len(rows))

    async def run(self, connection: Any) -> None:
        size = size_of(max(len(rows) for _, rows in self.rows))
        arguments: list[Any] = []
        for name, rows in self.rows:
            width = _WIDTHS[name]
            if size:
                for row in rows:
                    arguments += row
                arguments += [None] * (width * (size - len(rows)))
            else:
                arguments += map(list, zip(*rows, strict=True)) if rows else [[] for _ in range(width)]
        await connection.fetchval(statement(size, *self.names), *arguments, *self.counts)


_WIDTHS: Final = {name: len(clause.fields) for name, clause in CLAUSES.items()}


async def _write(connection: Any, changes: Changes) -> None:
    writes = _writes_of(changes)
    if len(writes) == 1:
        await writes[0].run(connection)
    elif writes:
        async with connection.transaction():
            for write in writes:
                await write.run(connection)


def _writes_of(changes: Changes) -> list[_Write]:
    """One for each kind of change; money and decision records go with the first."""
    writes: list[_Write] = []
    if changes.new_holds:
        writes.append(_Write(["holds"], [("holds", [hold_row(new) for new in changes.new_holds.values()])], []))
        if changes.check_hold_ids:
            writes[0].names += ["asked", "known"]
            writes[0].rows.append(("asked", [(hold_id,) for hold_id in changes.new_holds]))
            writes[0].counts.append(0)
    if changes.updated:
        rows = [update_row(hold, changes.expiries[hold.id]) for hold in changes.updated.values()]
        writes.append(_Write(["updated"], [("updated", rows)], [len(rows)]))
    if changes.closed:
        writes.append(_Write(["closed"], [("closed", [closed_row(hold) for hold in changes.closed.values()])], []))
    if changes.settled:
        rows = [end_row(settlement, changes.expiries[settlement.hold_id]) for settlement in changes.settled]
        writes.append(_Write(["ends", "gone", "entries", "records"], [("ends", rows)], [len(rows)]))
    if changes.recorded:
        rows = [end_row(settlement, changes.expiries[settlement.hold_id]) for settlement in changes.recorded]
        writes.append(_Write(["ends", "entries", "kept_records"], [("ends", rows)], [len(rows)]))
    if changes.corrected:
        rows = [late_row(made, changes.expiries[made.settlement.hold_id]) for made in changes.corrected]
        names = ["late", "late_gone", "late_entries", "late_records"]
        writes.append(_Write(names, [("late", rows)], [len(rows)]))
    if changes.settled or changes.recorded or changes.corrected:
        days = [(account, day, changes.spent[account, day]) for account, day in sorted(changes.spent)]
        writes[-1].names.append("days")
        writes[-1].rows.append(("days", [row for row in days if row[2] >= 0]))
        # A day's new row must not be below nothing, not even where it is only added to one that is there.
        if lowered := [row for row in days if row[2] < 0]:
            writes.append(_Write(["lowered_days"], [("lowered_days", lowered)], []))
    if not writes and (changes.decisions or changes.versions or changes.counters):
        writes.append(_Write([], [], []))
    if changes.counters:
        writes[0].first("counters", counter_rows(changes))
    if changes.checked:
        rows = [
            (account, changes.checked[account]) for account in sorted(changes.checked.keys() - changes.versions.keys())
        ]
        if rows:
            writes[0].first("checked", rows)
    if changes.versions:
        # In key order, in which every process locks them.
        moved = [
            (
                account, changes.versions[account], changes.balances.get(account, 0), changes.held.get(account, 0),
                usage_bytes(changes.usages[account]),
            )
            for account in sorted(changes.versions)
        ]  # fmt: skip
        writes[0].first("moved", moved)
    if changes.decisions:
        writes[0].names.append("decisions")
        writes[0].rows.append(("decisions", [decision_row(record) for record in changes.decisions]))
    return writes
