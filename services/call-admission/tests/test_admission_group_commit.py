"""The group commit: what one bad command, a full queue, a database that is away or a stop does to whom."""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from admission_site import PassingStore, Site, running

from callwarden.call_admission.admission.app import group_commit
from callwarden.call_admission.admission.core.commands import (
    Admitted,
)
from callwarden.call_admission.admission.core.state import CounterKey, Loaded, ReadSet
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.admission.ports import AdmissionStore
from callwarden.call_admission.model.calls import (
    Ended,
)
from callwarden.kernel.errors import Exhausted, Internal, Unavailable
from callwarden.testing.clock import FakeClock


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


class Gate(PassingStore):
    """A store behind a gate: while it is closed, every batch waits there."""

    def __init__(self, store: AdmissionStore) -> None:
        super().__init__(store)
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()

    async def load(self, read: ReadSet, counters: Collection[CounterKey]) -> Loaded:
        self.waiting.set()
        await self.open.wait()
        return await super().load(read, counters)


class Away(PassingStore):
    """A store that is away as long as a test wants."""

    def __init__(self, store: AdmissionStore) -> None:
        super().__init__(store)
        self.is_away = False
        self.asked = 0

    async def load(self, read: ReadSet, counters: Collection[CounterKey]) -> Loaded:
        self.asked += 1
        if self.is_away:
            raise Unavailable("the database is not available")
        return await super().load(read, counters)


async def test_a_request_that_cannot_be_written_does_not_take_its_neighbours_with_it(site: Site) -> None:
    account_id = await site.account()
    # A NUL, which PostgreSQL holds in no text; the door (adapters.admission_grpc) lets none in.
    bad = site.request(account_id, caller_number="a\0b")
    outcomes = await asyncio.gather(
        site.app.admit(site.request(account_id)),
        site.app.admit(bad),
        site.app.admit(site.request(account_id)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Admitted, Internal, Admitted]
    assert (await site.audit()).open_holds == 2


async def test_a_command_that_cannot_be_decided_does_not_take_its_neighbours_with_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id = await site.account()
    right = AdmissionTransaction.apply

    def apply(transaction: AdmissionTransaction, command: Any) -> Any:
        if isinstance(command, Ended) and command.reason == "nobody's":
            raise ZeroDivisionError
        return right(transaction, command)

    monkeypatch.setattr(AdmissionTransaction, "apply", apply)
    hold_id = await site.admit(account_id)
    outcomes = await asyncio.gather(
        site.app.ended(replace(site.ended(hold_id, account_id, 1), reason="nobody's")),
        site.app.ended(site.ended(hold_id, account_id, 1)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Internal)
    assert outcomes[1] is True, "its neighbour is settled"


async def test_what_is_cancelled_before_its_batch_begins_is_not_done(database_url: str, fake_clock: FakeClock) -> None:
    gates: list[Gate] = []

    def gate(store: AdmissionStore) -> Gate:
        gates.append(Gate(store))
        return gates[0]

    async with running(database_url, fake_clock, around=gate) as site:
        account_id = await site.account()
        gates[0].open.clear()
        first = asyncio.create_task(site.app.admit(site.request(account_id)))
        await gates[0].waiting.wait()
        given_up = asyncio.create_task(site.app.admit(site.request(account_id, local=True)))
        kept = asyncio.create_task(site.app.admit(site.request(account_id, local=True)))
        await asyncio.sleep(0)  # one turn: both are asked
        assert site.app.queued == 2
        given_up.cancel()
        gates[0].open.set()
        assert isinstance(await first, Admitted)
        assert isinstance(await kept, Admitted)
        assert (await site.audit()).open_holds == 2


async def test_more_than_the_queue_holds_is_refused_at_once(
    database_url: str, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "QUEUE_MAX", 3)
    gates: list[Gate] = []

    def gate(store: AdmissionStore) -> Gate:
        gates.append(Gate(store))
        return gates[0]

    async with running(database_url, fake_clock, around=gate) as site:
        account_id = await site.account()
        gates[0].open.clear()
        asked = [asyncio.create_task(site.app.admit(site.request(account_id, local=True)))]
        await gates[0].waiting.wait()
        asked += [asyncio.create_task(site.app.admit(site.request(account_id, local=True))) for _ in range(4)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        gates[0].open.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Admitted"] * 4 + ["Exhausted"]
        assert any(isinstance(outcome, Exhausted) for outcome in outcomes)


async def test_without_the_database_all_are_refused_soon_and_nothing_is_guessed(
    database_url: str, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "PAUSE_AFTER_FAILURE_S", 3_600.0)
    made: list[Away] = []

    def away(store: AdmissionStore) -> Away:
        made.append(Away(store))
        return made[0]

    async with running(database_url, fake_clock, around=away) as site:
        account_id = await site.account()
        made[0].is_away = True
        outcomes = await asyncio.gather(
            *(site.app.admit(site.request(account_id)) for _ in range(20)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {Unavailable}
        assert not site.app.is_up
        asked = made[0].asked
        with pytest.raises(Unavailable):
            await site.app.admit(site.request(account_id))
        assert made[0].asked == asked, "while it is known to be away nobody waits for it"


async def test_when_the_process_stops_who_waits_is_told(database_url: str, fake_clock: FakeClock) -> None:
    gates: list[Gate] = []

    def gate(store: AdmissionStore) -> Gate:
        gates.append(Gate(store))
        return gates[0]

    async with running(database_url, fake_clock, around=gate) as site:
        account_id = await site.account()
        gates[0].open.clear()
        first = asyncio.create_task(site.app.admit(site.request(account_id)))
        await gates[0].waiting.wait()
        waiting = asyncio.create_task(site.app.admit(site.request(account_id, local=True)))
        await asyncio.sleep(0)
        assert site.app.queued == 1
    with pytest.raises(Unavailable):
        await waiting
    first.cancel()
