"""Processes of call-admission are killed at random moments, 50 times, while calls go on: no sum, no call, no line is
lost.

Meanwhile every row of the races' table is raced for, again and again, and phones call in every way that edges ask and
tell (twice, late, out of order or never); what was written is then gone through entry by entry. Most of the time this
takes goes into starting 50 processes.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from callwarden.api.admission.v1 import admission_pb2
from callwarden.common.rpc.client import unary
from callwarden.kernel.errors import CallwardenError
from callwarden.testing import databases
from callwarden.testing.edges import Edges, TrackedCall
from callwarden.testing.servers import Servers
from callwarden.testing.waiting import eventually
from tests.integration.races_table import RACES, SECOND_MICROS
from tests.integration.racing import (
    EDGES,
    PROCESSES,
    ROUNDS,
    Killer,
    Track,
    insist,
    noon_zone,
    open_accounts,
    policy_of,
    run,
    track_on,
)

KILLS: Final = 50
LANES: Final = 6  # rows that are raced for at a time
SEED: Final = "kills"
REALM: Final = "kills"
# As short as policy allows: what nobody ends is given back 18 s after it was admitted.
SETUP_S: Final = 6
SLICE_S: Final = 2
EXPIRY_MARGIN_S: Final = 10  # call-admission's own, past what is granted
LIFE_S: Final = SLICE_S + 1 + EXPIRY_MARGIN_S  # No hold lapses sooner: that of a call answered at once, never extended.
UNDER_KILLS: Final = [race for race in RACES if race.general is None and not race.in_a_moment]
POLICY: Final = f"""
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {{name: kills}}
spec:
  realm: {REALM}
  fraud: {{dynamicList: {{enabled: false}}, smartList: {{enabled: false}}}}
  spend: {{slice: {{first: {SLICE_S}s, next: {SLICE_S}s, minimum: 1s}}, grace: 1s}}
  session: {{ringTimeout: 5s, callInitTimeout: 1s}}
"""
PHONES: Final = 24
LINES: Final = 3
DAILY_MICROS: Final = 15 * SECOND_MICROS
CREDIT_MICROS: Final = 15 * SECOND_MICROS + 999
PLENTY_MICROS: Final = 10**12
MANY_LINES: Final = 1_000


@dataclass(slots=True)
class Holder:
    """An account of the load, and what its edges know of it for certain."""

    id: str
    kind: str
    credit_micros: int
    lines: int
    daily_micros: int | None = None
    events: list[tuple[float, int]] = field(default_factory=list)
    """When a call certainly began (+1) and ceased to be certain (-1) to have a line."""

    def at_once(self) -> int:
        """The most calls that certainly had a line at the same moment."""
        most = now = 0
        for _, change in sorted(self.events):  # at the same moment those that end come first
            now += change
            most = max(most, now)
        return most


@dataclass(slots=True)
class Load:
    """Phones that call, in every way that edges report, until `is_over`."""

    edges: Edges
    holders: list[Holder]
    is_over: bool = False
    calls: list[tuple[TrackedCall, Holder]] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)
    """Talk time in seconds of the calls whose end was told, by hold."""
    unanswered: int = 0
    """Requests that got no answer."""

    async def phone(self, number: int) -> None:
        rng = random.Random(f"{SEED}.{number}")
        while not self.is_over:
            await self._call(rng)

    async def _call(self, rng: random.Random) -> None:
        holder = rng.choice(self.holders)
        call = TrackedCall(holder.id, f"4930{rng.randrange(10**6):06d}")
        self.calls.append((call, holder))
        turn = rng.randrange(PROCESSES * EDGES)
        asked_at_s = time.time()
        asks = [self.edges.admit(call, turn + number) for number in range(2 if rng.random() < 0.2 else 1)]
        answers = await asyncio.gather(*asks, return_exceptions=True)
        if call.reply is None:
            assert all(isinstance(answer, CallwardenError) for answer in answers), answers
            self.unanswered += 1
            if rng.random() < 0.5:
                await asyncio.sleep(0.1)
                return  # a phone that gives up: whether it was admitted nobody knows
            await insist(self.edges, call, turn)
        if not call.is_admitted:
            await asyncio.sleep(rng.uniform(0.0, 0.2))
            return
        begun_s = time.time()
        certain_until_s = asked_at_s + call.granted_s + EXPIRY_MARGIN_S
        ended_s = await self._talk(call, rng)
        holder.events += [(begun_s, 1), (max(begun_s, min(ended_s or certain_until_s, certain_until_s)), -1)]

    async def _talk(self, call: TrackedCall, rng: random.Random) -> float | None:
        """What becomes of an admitted call; the moment before its end was told, None if nobody tells it."""
        await asyncio.sleep(rng.uniform(0.0, 0.3))
        if rng.random() < 0.8:
            call.answered_at_s = time.time()
            if rng.random() < 0.8:
                self.edges.started(call)
            await asyncio.sleep(rng.uniform(0.0, 1.5))
            for number in range(rng.randrange(3)):
                asks = [self.edges.extend(call, rng.randrange(8)) for _ in range(1 + (rng.random() < 0.2))]
                for answer in await asyncio.gather(*asks, return_exceptions=True):
                    assert not isinstance(answer, BaseException) or isinstance(answer, CallwardenError), answer
                await asyncio.sleep(rng.uniform(0.0, 1.0) if number else 0.0)
        if rng.random() < 0.1:
            return None  # its edge died
        unix_s = time.time()
        call.ended_at_s = unix_s
        if call.answered_at_s:
            # Edges cut a call at the end of what they know to be granted.
            call.ended_at_s = min(unix_s, call.answered_at_s + call.granted_s)
            self.told[call.hold_id] = -(-round((call.ended_at_s - call.answered_at_s) * 1_000) // 1_000)
        else:
            self.told[call.hold_id] = 0
        self.edges.ended(call)
        if rng.random() < 0.2:
            self.edges.ended(call, message_id=f"{call.hold_id}.again")
        return unix_s


async def open_holders(track: Track) -> list[Holder]:
    holders = []
    for number in range(24):
        kind = ("lines", "credit", "daily", "plain")[number % 4]
        holder = Holder(
            "",
            kind,
            CREDIT_MICROS if kind == "credit" else PLENTY_MICROS,
            LINES if kind == "lines" else MANY_LINES,
            DAILY_MICROS if kind == "daily" else None,
        )
        limits = admission_pb2.Limits(max_lines=holder.lines)
        if holder.daily_micros is not None:
            limits.daily_micros = holder.daily_micros
        account = admission_pb2.Account(
            name=f"{kind}-{number}",
            realm=REALM,
            type="enduser",
            currency="EUR",
            prepaid=True,
            deck="retail",
            time_zone=noon_zone(),
            limits=limits,
        )
        created = await unary(
            track.operator.accounts.CreateAccount, admission_pb2.CreateAccountRequest(account=account)
        )
        holder.id = str(created.id)
        await track.operator.top_up(holder.id, holder.credit_micros, key=f"first-{holder.id}")
        holders.append(holder)
    return holders


@pytest.mark.parametrize("kills", [KILLS])
@pytest.mark.long
@pytest.mark.timeout(600)
async def test_kills_lose_no_money_no_call_and_no_line_and_every_limit_stays_exact(
    callwarden_servers: Servers, kills: int
) -> None:
    policies = [POLICY, *(policy_of(race) for race in UNDER_KILLS)]
    async with track_on(callwarden_servers, "\n---\n".join(policies)) as track:
        load = Load(track.edges, await open_holders(track))
        racers = {
            race.name: [await open_accounts(track, race, number) for number in range(ROUNDS)] for race in UNDER_KILLS
        }
        killer = Killer(track.system, "call-admission", processes=PROCESSES, kills=kills, seed=SEED)

        # Every row once, in an order of chance; then again as long as there are kills.
        order = random.Random(SEED).sample(UNDER_KILLS, len(UNDER_KILLS))
        heats = iter([(race, number) for number in range(ROUNDS) for race in order])

        async def lane() -> None:
            for race, number in heats:
                if number and killer.is_over:
                    break
                await run(track, racers[race.name][number], race, number)

        async def kill() -> None:
            await killer.run()
            load.is_over = True

        await asyncio.gather(
            kill(),
            *(lane() for _ in range(LANES)),
            *(load.phone(number) for number in range(PHONES)),
        )
        assert killer.killed == kills
        await track.edges.flush()

        async def all_is_settled() -> bool:
            return not (await track.audit()).open_holds and await track.edges.consumed()

        await eventually(all_is_settled, timeout_s=90, interval_s=0.2)
        books = await read_books(track.system.database_url)
        sums_are_right(load, books, await track.audit())
        calls_are_right(load, books)
        refusals = Counter(call.refused.rule for call, _ in load.calls if call.refused is not None)
        assert refusals.keys() >= {"lines", "credit", "daily_spend"}, "the load reaches every limit"
        for holder in load.holders:
            if holder.kind == "lines":
                assert holder.at_once() <= LINES
                await every_line_is_there(track, holder)


@dataclass(frozen=True, slots=True)
class Written:
    """All that was written."""

    accounts: Mapping[str, Mapping[str, Any]]
    records: Mapping[str, list[Mapping[str, Any]]]
    """By call."""
    charges: Mapping[str, list[int]]
    """Micros, by call."""
    entries: Mapping[str, int]
    """Sum of the ledger's entries by account."""
    spent: Mapping[str, int]
    """The days' counters by account."""
    corrected: Mapping[str, int]
    """Micros that a late end has added to what a call was recorded with."""
    late: set[str]
    """Calls that were charged when their holds may have lapsed: what they held was free for others until then."""


async def read_books(database_url: str) -> Written:
    connection = await databases.connect(database_url)
    try:
        accounts = await connection.fetch("SELECT id::text, balance_micros, held_micros FROM account")
        records = await connection.fetch(
            "SELECT id::text, account_id::text, price_micros, duration_s, reason, answered_at FROM cdr"
        )
        late = await connection.fetch(
            "SELECT cdr.id::text FROM cdr JOIN ledger_entry AS e ON e.reference = cdr.id::text"
            " WHERE e.created_at > cdr.started_at + make_interval(secs => $1)",
            LIFE_S,
        )
        entries = await connection.fetch("SELECT account_id::text, kind, reference, amount_micros FROM ledger_entry")
        days = await connection.fetch("SELECT account_id::text, spent_micros FROM spend_day")
    finally:
        await connection.close()
    books = Written(
        {row["id"]: row for row in accounts}, {}, {}, Counter(), Counter(), Counter(), {row["id"] for row in late}
    )
    for row in records:
        books.records.setdefault(row["id"], []).append(row)  # type: ignore[attr-defined]
    for row in entries:
        books.entries[row["account_id"]] += row["amount_micros"]  # type: ignore[index]
        if row["kind"] == "call":
            books.charges.setdefault(row["reference"], []).append(-row["amount_micros"])  # type: ignore[attr-defined]
        elif row["kind"] == "correction":
            books.corrected[row["reference"]] -= row["amount_micros"]  # type: ignore[index]
    for row in days:
        books.spent[row["account_id"]] += row["spent_micros"]  # type: ignore[index]
    return books


def sums_are_right(load: Load, books: Written, audit: admission_pb2.AuditLedgerReply) -> None:
    """Every account's balance is what was paid in less what its calls cost, and no bound was passed."""
    assert list(audit.mismatched_accounts) == []
    assert audit.held_sum_micros == audit.hold_rows_sum_micros == 0
    for holder in load.holders:
        account = books.accounts[holder.id]
        costs = {
            call: record["price_micros"] + books.corrected.get(call, 0)
            for call, records in books.records.items()
            for record in records
            if record["account_id"] == holder.id
        }
        cost = sum(costs.values())
        assert account["held_micros"] == 0
        assert account["balance_micros"] == books.entries[holder.id] == holder.credit_micros - cost
        assert account["balance_micros"] >= 0
        assert books.spent.get(holder.id, 0) == cost
        if holder.daily_micros is not None:
            # By no more than lapsed calls have cost in the end (docs/decisions/0012-late-ends.md).
            assert cost <= holder.daily_micros + sum(costs[call] for call in books.late & costs.keys())


def calls_are_right(load: Load, books: Written) -> None:
    """Every admitted call has one record and one charge, for as long as it talked; no other call has any."""
    # A prepaid account pays a lapsed call with what it has left.
    prepaid = {holder.id for holder in load.holders if holder.kind == "credit"}
    for call, _ in load.calls:
        records = books.records.get(call.hold_id, [])
        charges = books.charges.get(call.hold_id, [])
        if call.refused is not None:
            assert not records
            continue
        if call.reply is None and not records:
            continue  # nobody was told that it was admitted, and it wasn't
        (record,) = records
        assert charges == ([record["price_micros"]] if record["price_micros"] else [])
        told_s = load.told.get(call.hold_id)
        if record["reason"] == "expired":
            # Of what was never told, or came too late: all that was granted, if it was answered.
            assert record["price_micros"] <= record["duration_s"] * SECOND_MICROS
            assert record["price_micros"] == record["duration_s"] * SECOND_MICROS or record["account_id"] in prepaid
            assert record["answered_at"] is not None or not record["duration_s"]
        else:
            assert told_s is not None
            assert record["duration_s"] == told_s
            price_micros = record["price_micros"] + books.corrected.get(call.hold_id, 0)
            assert price_micros <= told_s * SECOND_MICROS
            assert price_micros == told_s * SECOND_MICROS or record["account_id"] in prepaid


async def every_line_is_there(track: Track, holder: Holder) -> None:
    calls = [TrackedCall(holder.id) for _ in range(2 * LINES)]
    await asyncio.gather(*(insist(track.edges, call, turn) for turn, call in enumerate(calls)))
    assert sum(call.is_admitted for call in calls) == LINES
