"""Conflicts on a real PostgreSQL: read again, decided again, written once."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar
from uuid import UUID

import pytest
import pytest_asyncio
from admission_site import PRICE, RETAIL, Site, running

from callwarden.call_admission.admission.core.commands import (
    Admission,
    Admitted,
    Command,
    DecisionRecord,
    Extended,
    Extension,
    Refused,
)
from callwarden.call_admission.admission.core.state import Changes, Loaded, ReadSet
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.model.calls import (
    ExtendRequest,
    Quote,
    Route,
    Started,
)
from callwarden.call_admission.model.policy import AdmissionPolicies
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.common.sql import HotPool, OutcomeUnknown
from callwarden.common.sql.retry import RETRIES
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import default_set
from callwarden.testing import databases
from callwarden.testing.clock import FakeClock
from callwarden.testing.waiting import eventually

T = TypeVar("T")


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


@pytest.mark.parametrize(("when", "works"), [("between", 2), ("never", 1)])
async def test_what_has_moved_since_it_was_read_is_read_again(
    site: Site, database_url: str, when: str, works: int
) -> None:
    account_id = await site.account(max_lines=1)
    calls = 0

    def work(loaded: Loaded) -> tuple[Changes, int]:
        nonlocal calls
        calls += 1
        if calls == 1 and when == "between":
            # Another process takes the line, after we have read and before we write.
            thread = threading.Thread(target=lambda: asyncio.run(take_a_line(database_url, account_id)))
            thread.start()
            thread.join()
        transaction = AdmissionTransaction(loaded, AdmissionPolicies(default_set()).for_realm, site.clock.unix_s())
        outcome = transaction.apply(Admission(request, Quote(RETAIL, "49", PRICE, (Route("c", "x:1"),), 0.0)))
        return transaction.changes, int(isinstance(outcome, Admitted))

    request = site.request(account_id)
    read = ReadSet([account_id], [account_id], [request.hold_id], site.clock.unix_s())
    admitted = await site.attempts.update(read, work)
    assert (calls, admitted) == (works, 1 if when == "never" else 0)
    assert site.attempts.conflicts == works - 1
    assert (await site.audit()).open_holds == 1


async def take_a_line(database_url: str, account_id: UUID) -> None:
    async with running(database_url, FakeClock()) as other:
        await other.admit(account_id)


async def test_a_batch_of_all_kinds_is_written_whole_or_not_at_all(site: Site) -> None:
    account_id = await site.account()
    first, second = await site.admit(account_id), await site.admit(account_id)
    new = site.request(account_id)
    unix_s = site.clock.unix_s()
    commands: list[Command] = [
        Admission(new, Quote(RETAIL, "49", PRICE, (Route("carrier", "192.0.2.1:5060"),), unix_s)),
        Extension(ExtendRequest(first, "call", account_id, unix_s, 60)),
        site.ended(second, account_id, 10),
        DecisionRecord(uuid.uuid4(), "noted", None, unix_s, "refuse", None, b""),
    ]

    def work(loaded: Loaded) -> tuple[Changes, None]:
        transaction = AdmissionTransaction(loaded, AdmissionPolicies(default_set()).for_realm, unix_s)
        for command in commands:
            transaction.apply(command)
        if broken:
            transaction.changes.settled[0].currency = "a\0b"
        return transaction.changes, None

    read = ReadSet.of(commands, unix_s)
    broken = True
    with pytest.raises(Exception, match="0x00"):
        await site.attempts.update(read, work)
    audit = await site.audit()
    assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (2, 120_000, 1_000_000)
    broken = False
    await site.attempts.update(read, work)
    audit = await site.audit()
    assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (2, 180_000, 990_000)


@pytest.mark.setting("maxlines")
@pytest.mark.setting("credit")
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize(
    ("limits", "reason"), [({"max_lines": 1}, Reason.LINES), ({"credit_micros": 60_000}, Reason.CREDIT)]
)
async def test_writers_that_have_all_read_the_same_and_meet_in_one_row_are_decided_one_after_another(
    database_url: str, fake_clock: FakeClock, processes: int, limits: dict[str, int], reason: Reason
) -> None:
    """Each has read that the last unit is free, and waits for the row; all but the first are then told 40001."""
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(running(database_url, fake_clock)) for _ in range(processes)]
        account_id = await sites[0].account(**limits)
        gate = await databases.connect(database_url)
        stack.push_async_callback(gate.close)

        async def all_wait_for_the_row() -> bool:
            waiting = await gate.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(waiting == processes)

        async with gate.transaction():
            await gate.execute("SELECT id FROM account WHERE id = $1 FOR UPDATE", account_id)
            asked = [asyncio.create_task(site.app.admit(site.request(account_id))) for site in sites]
            await eventually(all_wait_for_the_row)
        outcomes = await asyncio.gather(*asked)
        assert sum(isinstance(outcome, Admitted) for outcome in outcomes) == 1
        assert [o.refuse.reason for o in outcomes if isinstance(o, Refused)] == [reason] * (processes - 1)
        refused = [site.metrics.counter(RETRIES, "admission-write").value for site in sites]
        assert sum(count > 0 for count in refused) == processes - 1, "the database has told them 40001"
        assert (await sites[0].audit()).open_holds == 1


class Ambiguous(HotPool):
    """A pool whose next write is said to be unknown, once it was made or instead."""

    def __init__(self, pool: HotPool) -> None:
        self._inner = pool
        self.next: str = ""
        self.said = 0

    async def run(self, name: str, work: Callable[[Any], Awaitable[T]]) -> T:
        if name != "admission-write" or not self.next:
            return await self._inner.run(name, work)
        how, self.next = self.next, ""
        if how == "committed":
            await self._inner.run(name, work)
        self.said += 1
        raise OutcomeUnknown("the database doesn't know whether it was written")


@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize("how", ["committed", "lost"])
async def test_a_write_of_which_nobody_knows_whether_it_was_made_is_made_once(
    database_url: str, fake_clock: FakeClock, how: str, shards: int
) -> None:
    pools: list[Ambiguous] = []

    def over(pool: HotPool) -> HotPool:
        pools.append(Ambiguous(pool))
        return pools[0]

    async with running(database_url, fake_clock, over=over) as site:
        pool = pools[0]
        account_id = await site.account(max_lines=1, shards=shards)
        pool.next = how
        hold_id = await site.admit(account_id)
        pool.next = how
        assert isinstance(await site.app.admit(site.request(account_id)), Refused)
        answered_at_s = fake_clock.unix_s()
        pool.next = how
        extended = await site.app.extend(ExtendRequest(hold_id, "call", account_id, answered_at_s, 60))
        assert isinstance(extended, Extended)
        assert extended.hold.granted_s == 120
        fake_clock.advance(100)
        pool.next = how
        await site.app.ended(site.ended(hold_id, account_id, 100))
        assert pool.said == 4
        audit = await site.audit()
        assert (audit.balance_sum_micros, audit.open_holds, audit.entries) == (900_000, 0, 2)
        found = await SqlRecords(site.database).decisions(account_id, 0.0, "", None, 10)
        assert len(found.decisions) == 2, "one for the call, one for the refusal"


@pytest.mark.setting("maxlines")
async def test_a_hold_that_another_process_has_moved_in_a_shard_is_settled_as_it_is(
    database_url: str, fake_clock: FakeClock
) -> None:
    """No version of the account tells of it, and the shard's counter is known since."""
    async with running(database_url, fake_clock) as site, running(database_url, fake_clock) as other:
        account_id = await site.account(shards=4, max_lines=2)
        first = await site.admit(account_id)
        fake_clock.advance(1)
        answered_at_s = fake_clock.unix_s()
        await other.app.started(Started(first, account_id, answered_at_s, "carrier"))
        extended = await other.app.extend(ExtendRequest(first, "call", account_id, answered_at_s, 60))
        assert isinstance(extended, Extended)
        second = await site.admit(account_id)  # Reads the shard's counter anew, not the first call's hold.
        fake_clock.advance(20)
        await site.app.ended(site.ended(first, account_id, 20))
        assert (await site.audit()).held_sum_micros == 60_000
        third = await site.admit(account_id)  # The first one's line is free, the second's isn't.
        assert isinstance(await other.app.admit(other.request(account_id)), Refused)
        for hold_id in (second, third):
            await site.app.ended(site.ended(hold_id, account_id, None))
        audit = await site.audit()
        assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (0, 0, 980_000)
