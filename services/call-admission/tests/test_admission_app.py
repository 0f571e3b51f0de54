"""The group commit on a real PostgreSQL: batches, retries, what a failure does to whom, events in any order."""

import asyncio
import itertools
import random
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import select

from callwarden.call_admission.accounts.adapters.accounts_sql import SqlAccounts
from callwarden.call_admission.accounts.core.accounts import AccountChange, Audit, NewAccount, check_account
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.admission.adapters.store_sql import CONFLICTS, SESSION, SqlAdmissionStore
from callwarden.call_admission.admission.app import calls as app_module
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.core.book import (
    AccountState,
    Admission,
    AdmissionTransaction,
    Admitted,
    Changes,
    Command,
    DecisionRecord,
    Extended,
    Extension,
    Loaded,
    Refused,
)
from callwarden.call_admission.admission.core.decide import Admit
from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.ports import AdmissionStore, ReadSet
from callwarden.call_admission.model.calls import (
    CallRequest,
    Ended,
    Expired,
    ExtendRequest,
    NoQuote,
    Pricing,
    Quote,
    Route,
    Started,
)
from callwarden.call_admission.model.policy import AdmissionPolicies
from callwarden.call_admission.model.usage import ADDRESS, BLOCKED, REALM, RESELLER, SYSTEM, Usage
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.common.metrics import Metrics
from callwarden.common.sql import Database, HotPool, OutcomeUnknown
from callwarden.common.sql.retry import RETRIES
from callwarden.kernel.errors import Conflict, Exhausted, Internal, NotFound, Unavailable
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.policy.bundle import Document, PolicySet, default_set
from callwarden.schema.tables import cdr
from callwarden.testing.clock import FakeClock
from callwarden.testing.servers import as_owner
from callwarden.testing.waiting import eventually

T = TypeVar("T")

PRICE = Price("EUR", (Window(0, (RateGroup(0, 60_000, 60, 1),)),))
RETAIL = Pricing("retail", realm="example.org")
LATER_PRICE = Price("EUR", (Window(0, (RateGroup(0, 120_000, 60, 1),)),))
numbers = itertools.count()


class PriceList:
    """Implements ports.Quotes by a dictionary: deck → price. Knows nothing before it was asked, as rating's client; and
    nothing afterwards, unless `keeps`."""

    def __init__(self, decks: dict[str, Price]) -> None:
        self.decks = decks
        self.asked: list[tuple[Pricing, str]] = []
        self.keeps = False
        self._kept: dict[tuple[Pricing, str], Quote | NoQuote] = {}
        self.routes: tuple[Route, ...] = (Route("carrier", "192.0.2.1:5060"),)

    def known(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote | None:
        return self._kept.get((pricing, destination))

    async def ask(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote:
        self.asked.append((pricing, destination))
        await asyncio.sleep(0)
        price = self.decks.get(pricing.deck)
        answer: Quote | NoQuote = NoQuote(pricing, Reason.NO_RATE)
        if price is not None:
            answer = Quote(pricing, destination[:2], price, self.routes, at_s + 60)
        if self.keeps:
            self._kept[pricing, destination] = answer
        return answer


@dataclass
class Site:
    """One process's app and the database beneath."""

    database: Database
    owner: Database
    """The same as its owner, for what others do and for what no service may."""
    books: SqlAdmissionStore
    accounts: SqlAccounts
    app: CallAdmission
    clock: FakeClock
    quotes: PriceList
    metrics: Metrics
    told: "Told"

    async def account(self, **changes: Any) -> UUID:
        number = next(numbers)
        values: dict[str, Any] = {
            "realm": "example.org", "name": f"a{number}", "type_": "enduser", "status": "", "currency": "EUR",
            "time_zone": "Europe/Berlin", "prepaid": True, "deck": "retail", "max_lines": 5, "daily_micros": None,
            "numbers": (),
        }  # fmt: skip
        credit = changes.pop("credit_micros", 1_000_000)
        new: NewAccount = check_account(**(values | changes))
        account_id = uuid.uuid4()
        await self.accounts.create(account_id, new)
        if credit:
            await self.top_up(account_id, credit)
        return account_id

    async def top_up(self, account_id: UUID, micros: int) -> None:
        """As payment does it."""

        async def work(connection: Any) -> None:
            await connection.execute(
                "INSERT INTO ledger_entry (id, account_id, kind, reference, amount_micros) "
                "VALUES ($1, $2, 'top-up', $3, $4)",
                uuid.uuid4(), account_id, str(uuid.uuid4()), micros,
            )  # fmt: skip
            await connection.execute(
                "UPDATE account SET balance_micros = balance_micros + $2 WHERE id = $1", account_id, micros
            )

        async with await self.owner.hot(connections=1) as pool:
            await pool.transaction("top-up", work)

    async def audit(self, account_id: UUID | None = None) -> Audit:
        """The books, which must be right whatever happened."""
        audit = await self.accounts.audit(account_id)
        assert audit.mismatched == ()
        assert audit.balance_sum_micros == audit.ledger_sum_micros
        assert audit.held_sum_micros == audit.hold_rows_sum_micros
        return audit

    def request(self, account_id: UUID, hold_id: UUID | None = None, **changes: Any) -> CallRequest:
        number = next(numbers)
        base = CallRequest(
            hold_id or uuid.uuid4(), f"call-{number}", account_id, "493012345678", "030", "4930", "192.0.2.7", "edge-0",
            False, self.clock.unix_s(),
        )  # fmt: skip
        return replace(base, **changes)

    async def admit(self, account_id: UUID, **changes: Any) -> UUID:
        outcome = await self.app.admit(self.request(account_id, **changes))
        assert isinstance(outcome, Admitted)
        return outcome.hold.id

    async def price(self, account_id: UUID) -> Price:
        """What a call of the account is priced by."""
        outcome = await self.app.admit(self.request(account_id))
        assert isinstance(outcome, Admitted)
        return outcome.hold.price

    def ended(self, hold_id: UUID, account_id: UUID, talked_s: float | None) -> Ended:
        now_s = self.clock.unix_s()
        answered_at_s = None if talked_s is None else now_s - talked_s
        return Ended(hold_id, account_id, answered_at_s, now_s, "caller-bye", 200, "carrier")


@pytest_asyncio.fixture
async def site(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Site]:
    async with running(database_url, fake_clock) as opened:
        yield opened


class running:  # noqa: N801 - reads as a function
    """A process's app on a database: `async with running(url, clock) as site`."""

    def __init__(
        self,
        url: str,
        clock: FakeClock,
        *,
        policy: PolicySet | None = None,
        around: Callable[[SqlAdmissionStore], AdmissionStore] = lambda books: books,
        over: Callable[[HotPool], HotPool] = lambda pool: pool,
    ) -> None:
        self._url, self._clock, self._policy, self._around = url, clock, policy or default_set(), around
        self._over = over

    async def __aenter__(self) -> Site:
        self._metrics = Metrics()
        self._database = Database(self._url, metrics=self._metrics)
        self._owner = Database(as_owner(self._url))
        self._pool: HotPool = await self._database.hot(connections=3, session=SESSION)
        books = SqlAdmissionStore(self._over(self._pool), self._metrics)
        quotes = PriceList({"retail": PRICE, "later": LATER_PRICE})
        told = Told()
        policies, chance = AdmissionPolicies(self._policy), random.Random(1).random
        app = CallAdmission(self._around(books), quotes, policies, self._clock, chance, notices=told)
        self._task = asyncio.create_task(app.run())
        accounts = SqlAccounts(self._database)
        return Site(self._database, self._owner, books, accounts, app, self._clock, quotes, self._metrics, told)

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._pool.aclose()
        await self._database.engine.dispose()
        await self._owner.engine.dispose()


def policy(**spec: object) -> PolicySet:
    document = Document.from_object(
        {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": "p"}, "spec": spec}
    )
    return PolicySet.build(3, [document])


# ------------------------------------------------------------------ calls


@pytest.mark.setting("credit")
async def test_a_call_is_admitted_extended_and_settled_to_the_micro(site: Site) -> None:
    account_id = await site.account()
    admitted = await site.app.admit(site.request(account_id))
    assert isinstance(admitted, Admitted)
    assert admitted.routes[0].trunk == "carrier"
    hold_id = admitted.hold.id
    answered_at_s = site.clock.unix_s()
    await site.app.started(Started(hold_id, account_id, answered_at_s, "carrier"))
    site.clock.advance(55)
    extended = await site.app.extend(ExtendRequest(hold_id, "call", account_id, answered_at_s, 60))
    assert isinstance(extended, Extended)
    assert extended.hold.granted_s == 120
    assert (await site.audit()).held_sum_micros == 120_000
    site.clock.advance(20)
    await site.app.ended(site.ended(hold_id, account_id, 75))
    audit = await site.audit()
    assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (0, 0, 1_000_000 - 75_000)
    (record,) = await site.accounts.calls(account_id, 0.0, 10, running=False)
    assert (record.state, record.duration_s, record.price_micros) == ("settled", 75, 75_000)
    view = await site.accounts.get(account_id, site.clock.unix_s())
    assert (view.spent_today_micros, view.lines_in_use) == (75_000, 0)


@pytest.mark.setting("maxlines")
async def test_of_a_thousand_at_once_five_are_admitted_and_all_refusals_are_kept(site: Site) -> None:
    account_id = await site.account()
    requests = [site.request(account_id) for _ in range(1000)]
    outcomes = await asyncio.gather(*(site.app.admit(request) for request in requests))
    refused = [(r, o) for r, o in zip(requests, outcomes, strict=True) if isinstance(o, Refused)]
    assert len(refused) == 995
    assert {outcome.refuse.reason for _, outcome in refused} == {Reason.LINES}
    explained = await site.accounts.explain(refused[500][0].call_id)
    assert explained.call is not None
    assert (explained.call.state, explained.call.reason) == ("refused", "lines")
    # Few transactions, since what waits is decided together.
    assert site.app.counts.batches < 50


@pytest.mark.setting("maxlines")
@pytest.mark.parametrize("processes", [2, 4])
async def test_processes_on_one_database_admit_no_more_than_one_would(
    database_url: str, fake_clock: FakeClock, processes: int
) -> None:
    opened = [running(database_url, fake_clock) for _ in range(processes)]
    sites = [await each.__aenter__() for each in opened]
    try:
        account_id = await sites[0].account(credit_micros=7 * 60_000, max_lines=100)
        other_id = await sites[0].account(max_lines=5)
        asked = [
            site.app.admit(site.request(each)) for site, each in itertools.product(sites, [account_id, other_id] * 60)
        ]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        admitted = [o.hold.account_id for o in outcomes if isinstance(o, Admitted)]
        assert [admitted.count(each) for each in (account_id, other_id)] == [7, 5]
        assert {type(outcome) for outcome in outcomes} <= {Admitted, Refused}
        assert (await sites[0].audit(account_id)).held_sum_micros == 7 * 60_000
    finally:
        for each in opened:
            await each.__aexit__()


async def test_the_price_list_that_holds_is_the_one_in_the_database(site: Site) -> None:
    account_id = await site.account()
    await site.admit(account_id)
    change = AccountChange(deck="later")
    await site.accounts.update(account_id, change)
    outcome = await site.app.admit(site.request(account_id))
    assert isinstance(outcome, Admitted)
    assert outcome.hold.price == LATER_PRICE
    assert [pricing.deck for pricing, _ in site.quotes.asked] == ["retail", "retail", "later"]


async def test_an_account_not_seen_before_is_first_taken_to_be_priced_like_the_last_one(site: Site) -> None:
    site.quotes.keeps = True
    first, alike, other = await site.account(), await site.account(), await site.account(deck="later")
    await site.app.admit(site.request(first))
    before = site.app.counts.commands
    admitted = await site.app.admit(site.request(alike))
    assert isinstance(admitted, Admitted)
    assert admitted.hold.price == PRICE
    assert site.app.counts.commands == before + 1  # the guess was right: one turn with the database
    dearer = await site.app.admit(site.request(other))
    assert isinstance(dearer, Admitted)
    assert dearer.hold.price == LATER_PRICE  # a wrong guess prices nothing
    assert [pricing.deck for pricing, _ in site.quotes.asked] == ["retail", "later"]


async def test_an_account_without_a_price_list_is_priced_by_its_resellers_of_the_moment(site: Site) -> None:
    reseller = await site.account(type_="reseller", name="north", deck="retail")
    account_id = await site.account(deck="", parent="north")
    own_id = await site.account(deck="retail", parent="north")
    assert await site.price(account_id) == PRICE
    assert site.quotes.asked[-1][0] == Pricing("retail", "retail", "example.org", is_resellers=True)
    await site.accounts.update(reseller, AccountChange(deck="later"))
    assert await site.price(account_id) == LATER_PRICE
    assert await site.price(own_id) == PRICE
    assert site.quotes.asked[-1][0] == Pricing("retail", "later", "example.org", is_resellers=True)


async def test_an_account_without_a_price_list_has_no_rate(site: Site) -> None:
    outcome = await site.app.admit(site.request(await site.account(deck="")))
    assert isinstance(outcome, Refused)
    assert outcome.refuse.reason is Reason.NO_RATE
    assert site.quotes.asked == []


async def test_a_local_call_asks_nobody_for_a_price(site: Site) -> None:
    account_id = await site.account(credit_micros=0)
    await site.admit(account_id, local=True, destination="bob")
    assert site.quotes.asked == []


async def test_nobodys_call_is_refused(site: Site) -> None:
    outcome = await site.app.admit(site.request(uuid.uuid4()))
    assert isinstance(outcome, Refused)
    assert outcome.refuse.reason is Reason.ACCOUNT_UNKNOWN


@pytest.mark.setting("quotadiscreason")
async def test_a_refusal_for_money_carries_the_status_that_policy_wants(
    database_url: str, fake_clock: FakeClock
) -> None:
    wanted = policy(spend={"rejectStatus": 402}, lines={"max": 1})
    async with running(database_url, fake_clock, policy=wanted) as site:
        outcome = await site.app.admit(site.request(await site.account(credit_micros=0)))
        assert isinstance(outcome, Refused)
        assert (outcome.refuse.reason, outcome.sip_status, outcome.policy_revision) == (Reason.CREDIT, 402, 3)
        no_lines = await site.app.admit(site.request(await site.account(max_lines=0)))
        assert isinstance(no_lines, Refused)
        assert no_lines.sip_status == 0


async def test_a_reported_rule_is_counted(database_url: str, fake_clock: FakeClock) -> None:
    async with running(database_url, fake_clock, policy=policy(modes={"lines": "Report"})) as site:
        account_id = await site.account(max_lines=1)
        for _ in range(3):
            await site.admit(account_id)
        assert site.app.counts.reported == {"lines": 2}


# ------------------------------------------------------------------ again


async def test_asked_again_by_another_process_the_answer_is_the_same(database_url: str, fake_clock: FakeClock) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        account_id = await one.account(max_lines=1)
        request = one.request(account_id)
        first = await one.app.admit(request)
        again = await other.app.admit(replace(request))
        assert isinstance(first, Admitted)
        assert isinstance(again, Admitted)
        assert (first.hold, first.routes) == (again.hold, again.routes)
        second = one.request(account_id)
        refused = await one.app.admit(second)
        await one.app.ended(one.ended(first.hold.id, account_id, None))
        assert await other.app.admit(replace(second)) == refused
        with pytest.raises(Conflict):
            await other.app.admit(replace(request))
        assert (await one.audit()).open_holds == 0


async def test_an_extension_asked_again_by_another_process_grants_once(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        account_id = await one.account()
        hold_id = await one.admit(account_id)
        request = ExtendRequest(hold_id, "call", account_id, fake_clock.unix_s(), 60)
        outcomes = await asyncio.gather(one.app.extend(replace(request)), other.app.extend(replace(request)))
        assert [o.hold.granted_s for o in outcomes if isinstance(o, Extended)] == [120, 120]
        assert (await one.audit()).held_sum_micros == 120_000


@pytest.mark.parametrize("processes", [1, 2])
async def test_an_end_delivered_many_times_to_many_processes_is_settled_once(
    database_url: str, fake_clock: FakeClock, processes: int
) -> None:
    opened = [running(database_url, fake_clock) for _ in range(processes)]
    sites = [await each.__aenter__() for each in opened]
    try:
        account_id = await sites[0].account()
        hold_id = await sites[0].admit(account_id)
        event = sites[0].ended(hold_id, account_id, 30)
        await asyncio.gather(*(site.app.ended(replace(event)) for site in sites for _ in range(5)))
        await sites[-1].app.ended(replace(event))
        audit = await sites[0].audit()
        assert (audit.balance_sum_micros, audit.entries, audit.open_holds) == (1_000_000 - 30_000, 2, 0)
        assert sum(site.app.counts.settled for site in sites) == 1
        assert sum(site.app.counts.ignored.get("settled", 0) for site in sites) == 5 * processes
    finally:
        for each in opened:
            await each.__aexit__()


async def test_an_end_before_its_start_settles_and_the_start_is_ignored(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    await site.app.ended(site.ended(hold_id, account_id, 12))
    await site.app.started(Started(hold_id, account_id, site.clock.unix_s() - 12, "carrier"))
    assert site.app.counts.ignored == {"settled": 1}
    assert (await site.audit()).balance_sum_micros == 1_000_000 - 12_000


async def test_an_end_of_a_call_that_nobody_knows_is_counted(site: Site) -> None:
    await site.app.ended(site.ended(uuid.uuid4(), await site.account(), 12))
    assert site.app.counts.ignored == {"unknown": 1}


# ------------------------------------------------------------------ the reaper


async def test_the_reaper_settles_what_nobody_ends_and_a_late_end_changes_nothing(site: Site) -> None:
    account_id = await site.account()
    answered, ringing = await site.admit(account_id), await site.admit(account_id)
    await site.app.started(Started(answered, account_id, site.clock.unix_s(), "carrier"))
    site.clock.advance(74)
    assert await site.app.reap_once() == 0
    site.clock.advance(1)
    assert await site.app.reap_once() == 1
    site.clock.advance(400)
    assert await site.app.reap_once() == 1
    audit = await site.audit()
    assert (audit.open_holds, audit.balance_sum_micros) == (0, 1_000_000 - 60_000)
    await site.app.ended(site.ended(answered, account_id, 20))
    await site.app.ended(site.ended(ringing, account_id, None))
    assert (await site.audit()).balance_sum_micros == 1_000_000 - 60_000
    records = await site.accounts.calls(account_id, 0.0, 10, running=False)
    assert {(record.state, record.reason) for record in records} == {("expired", "expired")}


async def test_an_extension_between_the_reapers_look_and_its_commit_saves_the_call(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock, around=LateLook) as site:
        account_id = await site.account()
        hold_id = await site.admit(account_id)
        await site.app.started(Started(hold_id, account_id, fake_clock.unix_s(), "carrier"))
        fake_clock.advance(50)
        await site.app.extend(ExtendRequest(hold_id, "call", account_id, fake_clock.unix_s() - 50, 60))
        assert await site.app.reap_once() == 1
        assert site.app.counts.ignored == {"not-expired": 1}
        assert (await site.audit()).open_holds == 1


class LateLook:
    """The books as a reaper sees them whose look was a while ago: it finds holds that expire within the hour."""

    def __init__(self, books: SqlAdmissionStore) -> None:
        self._books = books

    async def update(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        return await self._books.update(read, work)

    async def look(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        return await self._books.look(read, work)

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        return await self._books.expired(now_s + 3_600, limit)


# ------------------------------------------------------------------ failures


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

    def apply(book: AdmissionTransaction, command: Any) -> Any:
        if isinstance(command, Ended) and command.reason == "nobody's":
            raise ZeroDivisionError
        return right(book, command)

    monkeypatch.setattr(AdmissionTransaction, "apply", apply)
    hold_id = await site.admit(account_id)
    outcomes = await asyncio.gather(
        site.app.ended(replace(site.ended(hold_id, account_id, 1), reason="nobody's")),
        site.app.ended(site.ended(hold_id, account_id, 1)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Internal)
    assert outcomes[1] is True, "its neighbour is settled"


class Gate:
    """The books behind a gate: while it is closed, whoever asks waits there."""

    def __init__(self, books: SqlAdmissionStore) -> None:
        self._books = books
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()

    async def update(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        self.waiting.set()
        await self.open.wait()
        return await self._books.update(read, work)

    async def look(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        return await self._books.look(read, work)

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        return await self._books.expired(now_s, limit)


async def test_what_is_cancelled_before_its_batch_begins_is_not_done(database_url: str, fake_clock: FakeClock) -> None:
    gates: list[Gate] = []

    def gate(books: SqlAdmissionStore) -> Gate:
        gates.append(Gate(books))
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
    monkeypatch.setattr(app_module, "QUEUE_MAX", 3)
    gates: list[Gate] = []

    def gate(books: SqlAdmissionStore) -> Gate:
        gates.append(Gate(books))
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


class Away:
    """A database that is away as long as a test wants."""

    def __init__(self, books: SqlAdmissionStore) -> None:
        self._books = books
        self.is_away = False
        self.asked = 0

    async def update(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        self.asked += 1
        if self.is_away:
            raise Unavailable("the database is not available")
        return await self._books.update(read, work)

    async def look(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        return await self._books.look(read, work)

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        return await self._books.expired(now_s, limit)


async def test_without_the_database_all_are_refused_soon_and_nothing_is_guessed(
    database_url: str, fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "PAUSE_AFTER_FAILURE_S", 3_600.0)
    made: list[Away] = []

    def away(books: SqlAdmissionStore) -> Away:
        made.append(Away(books))
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

    def gate(books: SqlAdmissionStore) -> Gate:
        gates.append(Gate(books))
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
        book = AdmissionTransaction(loaded, AdmissionPolicies(default_set()).for_realm, site.clock.unix_s())
        outcome = book.apply(Admission(request, Quote(RETAIL, "49", PRICE, (Route("c", "x:1"),), 0.0)))
        return book.changes, int(isinstance(outcome, Admitted))

    request = site.request(account_id)
    read = app_module.Batch([account_id], [account_id], [request.hold_id], site.clock.unix_s())
    admitted = await site.books.update(read, work)
    assert (calls, admitted) == (works, 1 if when == "never" else 0)
    assert site.metrics.counter(CONFLICTS).value == works - 1
    assert (await site.audit()).open_holds == 1


async def take_a_line(database_url: str, account_id: UUID) -> None:
    async with running(database_url, FakeClock()) as other:
        await other.admit(account_id)


async def test_a_batch_of_all_kinds_is_written_whole_or_not_at_all(site: Site) -> None:
    account_id = await site.account()
    first, second = await site.admit(account_id), await site.admit(account_id)
    new = site.request(account_id)
    now_s = site.clock.unix_s()
    commands: list[Command] = [
        Admission(new, Quote(RETAIL, "49", PRICE, (Route("carrier", "192.0.2.1:5060"),), now_s)),
        Extension(ExtendRequest(first, "call", account_id, now_s, 60)),
        site.ended(second, account_id, 10),
        DecisionRecord(uuid.uuid4(), "noted", None, now_s, "refuse", None, b""),
    ]

    def work(loaded: Loaded) -> tuple[Changes, None]:
        book = AdmissionTransaction(loaded, AdmissionPolicies(default_set()).for_realm, now_s)
        for command in commands:
            book.apply(command)
        if broken:
            book.changes.settled[0].currency = "a\0b"
        return book.changes, None

    read = app_module.Batch.of(commands, now_s)
    broken = True
    with pytest.raises(Exception, match="0x00"):
        await site.books.update(read, work)
    audit = await site.audit()
    assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (2, 120_000, 1_000_000)
    broken = False
    await site.books.update(read, work)
    audit = await site.audit()
    assert (audit.open_holds, audit.held_sum_micros, audit.balance_sum_micros) == (2, 180_000, 990_000)


# ------------------------------------------------------------------ what else is told


async def test_a_clock_that_is_ahead_makes_no_hold_last_for_ever(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id, start_s=site.clock.unix_s() + 10_000)
    ahead_s = site.clock.unix_s() + 10_000
    await site.app.started(Started(hold_id, account_id, ahead_s, "carrier"))
    (running_call,) = await site.accounts.calls(account_id, 0.0, 10, running=True)
    assert running_call.started_at_s == site.clock.unix_s()
    assert running_call.answered_at_s == site.clock.unix_s()


async def test_an_extension_of_a_call_that_is_over_is_not_found(site: Site) -> None:
    account_id = await site.account()
    hold_id = await site.admit(account_id)
    await site.app.ended(site.ended(hold_id, account_id, 1))
    with pytest.raises(NotFound):
        await site.app.extend(ExtendRequest(hold_id, "call", account_id, site.clock.unix_s(), 60))


async def test_another_services_decision_is_kept_once_and_explained(site: Site) -> None:
    note = DecisionRecord(
        uuid.uuid4(), "call-from-the-edge", None, site.clock.unix_s(), "refuse", None, b"\x12\x04edge"
    )
    await asyncio.gather(site.app.note(note), site.app.note(note))
    explained = await site.accounts.explain("call-from-the-edge")
    assert explained.decisions == (b"\x12\x04edge",)


async def test_what_is_held_in_memory_is_what_the_database_gives_back(site: Site) -> None:
    """Every column of a hold survives the way to the database and back."""
    account_id = await site.account()
    outcome = await site.app.admit(site.request(account_id))
    assert isinstance(outcome, Admitted)

    hold = outcome.hold
    read = app_module.Batch([account_id], [account_id], [hold.id], site.clock.unix_s())

    def work(loaded: Loaded) -> tuple[Changes, Loaded]:
        return Changes(), loaded

    loaded = await site.books.update(read, work)
    assert loaded.holds == {hold.id: hold}
    standing: AccountState = loaded.standings[account_id]
    assert (standing.lines, standing.held_micros) == (1, 60_000)
    assert standing.usage.day(hold.spend_day.toordinal()).held_micros == 60_000


# ------------------------------------------------------------------ who else counts a call


async def counted(site: Site, account_id: UUID, kind: str) -> Usage:
    """What one of the account's owners has counted."""
    return (await site.app.snapshot_of(account_id, site.clock.unix_s())).counted[kind].usage


async def test_a_resellers_accounts_are_counted_together_by_all_processes(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        number = next(numbers)
        await one.account(type_="reseller", name=f"reseller-{number}", max_lines=8)
        first = await one.account(parent=f"reseller-{number}")
        second = await one.account(parent=f"reseller-{number}")
        calls = await asyncio.gather(*(site.admit(each) for each in (first, second) for site in (one, other) * 2))
        usage = await counted(one, first, RESELLER)
        assert (usage.held_micros, usage.used("calls", fake_clock.unix_s())) == (8 * 60_000, 8)
        ninth = await one.app.admit(one.request(second))
        assert isinstance(ninth, Refused)
        assert (ninth.refuse.reason, ninth.sip_status) == (Reason.RESELLER_QUOTA, 0)
        fake_clock.advance(10)
        await asyncio.gather(*(other.app.ended(other.ended(hold_id, first, 10)) for hold_id in calls[:4]))
        usage = await counted(other, second, RESELLER)
        assert (usage.held_micros, usage.spent_micros) == (4 * 60_000, 4 * 10_000)
        assert usage.used("calls", fake_clock.unix_s()) == 4
        await one.audit()


async def test_realm_system_and_address_are_counted_where_policy_limits_them(
    database_url: str, fake_clock: FakeClock
) -> None:
    wanted = policy(
        system={"maxCalls": 50, "perRealm": {"maxCalls": 40}}, callsPerAddress={"maxCalls": 100, "period": 1}
    )
    async with running(database_url, fake_clock, policy=wanted) as site:
        account_id = await site.account()
        calls = [await site.admit(account_id) for _ in range(3)]
        request = site.request(account_id)
        _, snapshot = await site.app.simulate(request)
        now_s = fake_clock.unix_s()
        assert {kind: snapshot.counted[kind].usage.used("calls", now_s) for kind in (REALM, SYSTEM)} == {
            REALM: 3, SYSTEM: 3,
        }  # fmt: skip
        assert snapshot.counted[ADDRESS].usage.used("period_calls", now_s) == 3
        await site.app.ended(site.ended(calls[0], account_id, None))
        assert (await counted(site, account_id, SYSTEM)).used("calls", now_s) == 2
        # In the usual run of things what this process alone has counted needn't be read.
        assert site.books.remembered > 0


async def test_a_simulation_changes_nothing(site: Site) -> None:
    account_id = await site.account(max_lines=1)
    for _ in range(3):
        decided, snapshot = await site.app.simulate(site.request(account_id))
        assert isinstance(decided.verdict, Admit)
        assert (snapshot.lines, snapshot.held_micros) == (0, 0)
    await site.admit(account_id)
    decided, snapshot = await site.app.simulate(site.request(account_id))
    assert isinstance(decided.verdict, Refuse)
    assert decided.verdict.reason is Reason.LINES
    assert (snapshot.lines, snapshot.held_micros) == (1, 60_000)
    assert (await site.audit()).open_holds == 1
    with pytest.raises(NotFound):
        await site.app.simulate(site.request(uuid.uuid4()))


# ------------------------------------------------------------------ shards


async def test_calls_that_run_while_their_account_is_sharded_and_joined_again_end_to_the_micro(site: Site) -> None:
    account_id = await site.account(max_lines=10)
    calls = [await site.admit(account_id) for _ in range(4)]
    shards = SqlShards(site.database)
    assert await shards.grow(account_id, 1, 4)
    assert not await shards.grow(account_id, 1, 4), "it has been done"
    assert (await site.audit(account_id)).held_sum_micros == 4 * 60_000
    await site.app.ended(site.ended(calls[0], account_id, 10))
    view = await site.accounts.get(account_id, site.clock.unix_s())
    assert (view.balance_micros, view.held_micros) == (1_000_000 - 10_000, 3 * 60_000)
    assert await shards.grow(account_id, 4, 8)
    await site.app.ended(site.ended(calls[1], account_id, 10))
    await site.accounts.update(account_id, AccountChange(shards=0))
    await site.app.ended(site.ended(calls[2], account_id, 10))
    audit = await site.audit(account_id)
    assert (audit.balance_sum_micros, audit.held_sum_micros) == (1_000_000 - 30_000, 60_000)
    await site.accounts.update(account_id, AccountChange(shards=3))
    await site.app.ended(site.ended(calls[3], account_id, None))
    audit = await site.audit(account_id)
    assert (audit.balance_sum_micros, audit.held_sum_micros, audit.open_holds) == (1_000_000 - 30_000, 0, 0)


# ------------------------------------------------------------------ what a call costs us


async def test_the_record_says_what_the_carrier_that_took_the_call_charges(site: Site) -> None:
    carrier = await site.account(type_="carrier", credit_micros=0, limits={"talk_day_s": 1_000})
    other = await site.account(type_="carrier", credit_micros=0)
    cheap = Price("EUR", (Window(0, (RateGroup(0, 30_000, 60, 1),)),))
    foreign = Price("USD", (Window(0, (RateGroup(0, 30_000, 60, 1),)),))
    site.quotes.routes = (
        Route("first", "192.0.2.1:5060", carrier_account_id=str(carrier), cost=cheap),
        Route("second", "192.0.2.2:5060", carrier_account_id=str(other), cost=foreign),
    )
    account_id = await site.account()
    for trunk, cost_micros, paid in (("first", 10_000, carrier), ("second", None, other)):
        hold_id = await site.admit(account_id)
        await site.app.ended(replace(site.ended(hold_id, account_id, 20), trunk=trunk))
        async with site.database.engine.connect() as connection:
            row = (await connection.execute(select(cdr).where(cdr.c.id == hold_id))).one()
        assert (row.price_micros, row.cost_micros, row.carrier_account_id) == (20_000, cost_micros, paid)
    _, snapshot = await site.app.simulate(site.request(account_id))
    assert snapshot.carriers.keys() == {str(carrier)}, "only carriers with limits are counted"
    assert snapshot.carriers[str(carrier)].usage.day(snapshot.day.toordinal()).talk_s == 20


# ------------------------------------------------------------------ notices


class Told:
    """Implements ports.Notices by a list."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def tell(self, notice: Notice) -> None:
        self.notices.append(notice)


async def test_a_block_is_told_once_a_day_by_whichever_process(database_url: str, fake_clock: FakeClock) -> None:
    async with running(database_url, fake_clock) as one, running(database_url, fake_clock) as other:
        account_id = await one.account(max_lines=1)
        await one.admit(account_id)
        for site in (one, other, one):
            assert isinstance(await site.app.admit(site.request(account_id)), Refused)
        told = [*one.told.notices, *other.told.notices]
        blocks = [notice for notice in told if notice.level == BLOCKED]
        assert [(notice.rule, notice.account_id) for notice in blocks] == [("lines", account_id)]
        fake_clock.advance(86_400)
        await one.admit(account_id)
        assert isinstance(await one.app.admit(one.request(account_id)), Refused)
        again = [notice for notice in (*one.told.notices, *other.told.notices) if notice.level == BLOCKED]
        assert len(again) == 2


async def test_each_threshold_of_a_limit_and_the_block_are_told_once_a_day(
    database_url: str, fake_clock: FakeClock
) -> None:
    async with running(database_url, fake_clock) as site:
        account_id = await site.account(max_lines=10)
        for _ in range(10):
            await site.admit(account_id)
        for _ in range(2):
            assert isinstance(await site.app.admit(site.request(account_id)), Refused)
        told = [(notice.level, notice.value, notice.limit) for notice in site.told.notices if notice.rule == "lines"]
        assert told == [(50, 5, 10), (80, 8, 10), (100, 10, 10), (BLOCKED, 10, 10)]


# ------------------------------------------------------------------ conflicts, forced


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
        gate = await asyncpg.connect(database_url.replace("+asyncpg", ""))
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
