"""Two transactions that meet: the one that comes second is told 40001, is tried again, and nothing is done twice.

Each test lets one begin (its snapshot is taken), lets the other run and commit, and lets the first go on: under
SERIALIZABLE it can't get through at its first attempt. Of the hot pool: libs/common/tests and test_admission_app.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from admission_admin import account as new_account
from admission_admin import change, trunk
from sqlalchemy import event, func, insert, select, update
from sqlalchemy.util import await_only

from callwarden.auth.adapters.credentials_sql import SqlCredentialStore
from callwarden.auth.core.sealing import SEALED_BYTES, Sealed
from callwarden.auth.core.users import UserKey
from callwarden.call_admission.accounts.adapters import accounts_sql
from callwarden.call_admission.accounts.adapters.accounts_sql import SqlAccounts
from callwarden.call_admission.accounts.adapters.trunks_sql import SqlTrunks
from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.call_admission.accounts.core.trunks import TrunkUpdate
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.lists.adapters.lists_sql import SqlLists
from callwarden.call_admission.model.lists import ListEntry, ListHead
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.common.metrics import Metrics
from callwarden.common.sql import Database
from callwarden.common.sql.retry import ATTEMPTS_MAX, RETRIES
from callwarden.kernel.errors import Conflict
from callwarden.payment.adapters.ledger_sql import SqlLedgerStore
from callwarden.payment.core.topup import TopUp
from callwarden.rating.adapters.decks_sql import SqlDeckStore
from callwarden.rating.core.deck import DeckHead, DeckRow, Tariff
from callwarden.rating.core.routes import RouteRow
from callwarden.schema.tables import account, account_number, cdr, deck, deck_row, ledger_entry, number_list, spend_day
from callwarden.schema.tables import payment as payments

pytestmark = pytest.mark.integration

Doing = Callable[[], Awaitable[Any]]
STARTED = datetime(2026, 11, 24, 12, tzinfo=UTC)
ALL = UUID(int=0), None


@dataclass
class Two:
    """Two processes' ways to one database. `one` can be interrupted."""

    one: Database
    other: Database
    metrics: Metrics
    _pending: list[tuple[str, Doing]] = field(default_factory=list)

    def __post_init__(self) -> None:
        event.listen(self.one.engine.sync_engine, "before_cursor_execute", self._before)

    def interrupt(self, before: str, doing: Doing) -> None:
        """Once, before the first statement of `one` that has this in it: take the snapshot, do something else."""
        self._pending.append((before, doing))

    def _before(self, connection: Any, _: Any, statement: str, *__: Any) -> None:
        if self._pending and self._pending[0][0] in statement:
            _, doing = self._pending.pop()
            connection.exec_driver_sql("SELECT 1")
            await_only(_done(doing))

    def retried(self, name: str) -> float:
        assert not self._pending, "nobody has come between"
        return self.metrics.counter(RETRIES, name).value

    async def ask(self, query: Any) -> Any:
        return await self.other.transaction("ask", lambda connection: connection.scalar(query))

    async def run_in_between(self, *statements: Any) -> None:
        async def work(connection: Any) -> None:
            for statement in statements:
                await connection.execute(statement)

        await self.other.transaction("tell", work)

    async def account(self, name: str = "alice", **values: Any) -> UUID:
        account_id = uuid.uuid4()
        await SqlAccounts(self.other).create(account_id, new_account(name=name, **({"numbers": ()} | values)))
        return account_id

    async def call(self, account_id: UUID, price_micros: int) -> UUID:
        """A settled one, as call-admission leaves it."""
        call_id = uuid.uuid4()
        texts = ("call_id", "destination", "dialled", "caller_number", "source_address", "edge", "prefix", "trunk")
        await self.run_in_between(
            insert(ledger_entry).values(
                id=call_id, account_id=account_id, kind="call", reference=str(call_id), amount_micros=-price_micros
            ),
            insert(cdr).values(
                id=call_id, account_id=account_id, **dict.fromkeys((*texts, "reason", "trace_id"), "x"), currency="EUR",
                started_at=STARTED, ended_at=STARTED, duration_s=1, billed_s=1, price_micros=price_micros,
                sip_status=200, policy_revision=1, decision=b"",
            ),
            insert(spend_day).values(account_id=account_id, day=STARTED.date(), spent_micros=price_micros),
            update(account).where(account.c.id == account_id).values(balance_micros=0),
        )  # fmt: skip
        return call_id


async def _done(doing: Doing) -> None:
    await doing()


@pytest_asyncio.fixture
async def two(database_url: str) -> AsyncIterator[Two]:
    metrics = Metrics()
    async with Database(database_url, metrics=metrics) as one, Database(database_url) as other:
        yield Two(one, other, metrics)


async def pages(*rows: Any) -> AsyncIterator[Sequence[Any]]:
    for row in rows:
        yield [row]


def paid(database: Database, key: str) -> Doing:
    books = SqlLedgerStore(database, lambda count: uuid.uuid4().bytes[:count])
    return lambda: books.credit(TopUp("alice", 5, "EUR", key))


# ------------------------------------------------------------------ payment


async def test_two_payments_to_one_account_both_count(two: Two) -> None:
    await two.account()
    two.interrupt("FOR UPDATE", paid(two.other, "k2"))
    assert (await paid(two.one, "k1")()).balance_micros == 10
    assert two.retried("top-up") == 1
    assert await two.ask(select(account.c.balance_micros)) == 10
    assert await two.ask(select(func.sum(ledger_entry.c.amount_micros))) == 10


@pytest.mark.cases
async def test_a_payment_that_lost_a_whole_round_of_attempts_tries_another_and_counts_once(two: Two) -> None:
    """The payer hears of none of it: no Conflict, and nothing is booked twice."""
    await two.account()
    for other in range(ATTEMPTS_MAX):
        two.interrupt("FOR UPDATE", paid(two.other, f"other-{other}"))
    credited = await paid(two.one, "k1")()
    assert (credited.duplicate, credited.balance_micros) == (False, 5 * (ATTEMPTS_MAX + 1))
    # Every attempt of the first round met another payment; the second round got through at once.
    assert two.retried("top-up") == ATTEMPTS_MAX
    assert await two.ask(select(account.c.balance_micros)) == 5 * (ATTEMPTS_MAX + 1)
    assert await two.ask(select(func.sum(ledger_entry.c.amount_micros))) == 5 * (ATTEMPTS_MAX + 1)
    assert await two.ask(select(func.count()).select_from(payments)) == ATTEMPTS_MAX + 1


async def test_one_payment_from_two_processes_counts_once(two: Two) -> None:
    await two.account()
    two.interrupt("FOR UPDATE", paid(two.other, "k1"))
    credited = await paid(two.one, "k1")()
    assert (credited.duplicate, credited.balance_micros) == (True, 5)
    assert two.retried("top-up") == 1
    assert await two.ask(select(func.count()).select_from(payments)) == 1


# ------------------------------------------------------------------ accounts, trunks, shards


async def test_two_changes_of_an_account_are_both_made(two: Two) -> None:
    alice = await two.account()
    version = await two.ask(select(account.c.version))
    two.interrupt("FOR UPDATE", lambda: SqlAccounts(two.other).update(alice, change(max_lines=7)))
    await SqlAccounts(two.one).update(alice, change(daily_micros=9, add_numbers=("+49301234",)))
    assert two.retried("account-update") == 1
    row = await two.other.transaction("row", lambda connection: connection.execute(select(account)))
    (after,) = row.all()
    assert (after.max_lines, after.daily_micros, after.version) == (7, 9, version + 2)
    assert await two.ask(select(func.count()).select_from(account_number)) == 1


@dataclass
class Ceiling:
    """Implements ports.Ceilings."""

    system: int | None

    def realm(self, name: str) -> int | None:
        return None


@pytest.mark.parametrize(("most", "made"), [(2, 2), (1, 1)])
async def test_accounts_made_at_once_stay_below_the_ceiling(two: Two, most: int, made: int) -> None:
    ceiling = Ceiling(most)
    first, second = (new_account(name=name, numbers=()) for name in ("alice", "bob"))
    two.interrupt("counter", lambda: SqlAccounts(two.other).create(uuid.uuid4(), first, ceiling))
    if made == 2:
        await SqlAccounts(two.one).create(uuid.uuid4(), second, ceiling)
    else:
        with pytest.raises(Exception, match="may have 1 accounts"):
            await SqlAccounts(two.one).create(uuid.uuid4(), second, ceiling)
    assert two.retried("account-create") == 1
    assert await two.ask(select(func.count()).select_from(account)) == made


async def test_an_import_that_another_creation_interrupts_is_whole_and_made_once(two: Two) -> None:
    ceiling = Ceiling(10)
    lines = [Line(number, new_account(name=f"a{number}", numbers=(f"+4930{number}000",))) for number in range(1, 6)]
    other = new_account(name="bob", numbers=())
    two.interrupt("INSERT INTO account ", lambda: SqlAccounts(two.other).create(uuid.uuid4(), other, ceiling))
    assert await SqlAccounts(two.one).create_all(lambda: pages(*lines), uuid.uuid4, {}, ceiling) == 5
    assert two.retried("account-import") == 0, "each took its turn: nothing was written twice"
    assert await two.ask(select(func.count()).select_from(account)) == 6
    assert await two.ask(select(func.count()).select_from(account_number)) == 5


async def test_an_import_does_not_start_again_because_calls_read_and_change_accounts(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_sql, "IMPORT_WRITE", 1)
    called = await two.account("called")
    lines = [Line(number, new_account(name=f"a{number}", numbers=(f"+4930{number}000",))) for number in range(1, 6)]

    async def call() -> None:
        # As an admission does: what it reads the import writes, and what it writes the import's keys have read.
        await two.run_in_between(
            select(account), update(account).where(account.c.id == called).values(version=account.c.version + 1),
            insert(account).values(
                id=uuid.uuid4(), realm="r", name="new", type="enduser", currency="EUR", prepaid=True
            ),
        )  # fmt: skip

    async def after_a_page() -> None:
        two.interrupt("INSERT INTO account ", call)

    two.interrupt("INSERT INTO account_number", after_a_page)
    assert await SqlAccounts(two.one).create_all(lambda: pages(*lines), uuid.uuid4, {}, Ceiling(None)) == 5
    assert two.retried("account-import") == 0


async def test_two_changes_of_a_trunk_are_both_made(two: Two) -> None:
    owner = await two.account("carrier", type="carrier", prepaid=False)
    await SqlTrunks(two.other).create(trunk(account="carrier"), owner)
    two.interrupt("FOR UPDATE", lambda: SqlTrunks(two.other).update("berlin", TrunkUpdate({"strip_digits": 3})))
    after, _ = await SqlTrunks(two.one).update("berlin", TrunkUpdate({"enabled": False}))
    assert (after.strip_digits, after.enabled) == (3, False)
    assert two.retried("trunk-update") == 1


async def test_of_two_processes_that_give_an_account_shards_one_does(two: Two) -> None:
    alice = await two.account()
    grown = []

    async def grow() -> None:
        grown.append(await SqlShards(two.other).grow(alice, 1, 4))

    two.interrupt("FOR UPDATE", grow)
    assert not await SqlShards(two.one).grow(alice, 1, 8)
    assert (grown, two.retried("reshard")) == ([True], 1)
    assert await two.ask(select(account.c.shards)) == 4


# ------------------------------------------------------------------ records


@pytest.mark.parametrize(("key", "entries", "balance"), [("same", 1, 60), ("another", 2, 90)])
async def test_two_corrections_of_a_call_see_each_other(two: Two, key: str, entries: int, balance: int) -> None:
    """The same one asked twice is made once; of two the second corrects what the first has left."""
    alice = await two.account()
    call_id = await two.call(alice, 100)
    two.interrupt("FOR UPDATE", lambda: SqlRecords(two.other).correct_call(call_id, 40, "too dear", "same"))
    wanted_micros = 40 if key == "same" else 10
    corrected = await SqlRecords(two.one).correct_call(call_id, wanted_micros, "too dear", key)
    assert corrected.duplicate is (key == "same")
    assert two.retried("reverse") == 1
    assert await two.ask(select(func.count()).where(ledger_entry.c.kind == "reversal")) == entries
    assert await two.ask(select(account.c.balance_micros)) == balance
    assert await two.ask(select(spend_day.c.spent_micros)) == wanted_micros


async def test_records_that_two_processes_forget_are_gone_once(two: Two) -> None:
    call_id = await two.call(await two.account(), 100)
    later_s = STARTED.timestamp() + 1
    two.interrupt("DELETE", lambda: SqlRecords(two.other).forget("cdr", ALL, later_s, 10))
    await SqlRecords(two.one).forget("cdr", ALL, later_s, 10)
    assert two.retried("forget-cdr") == 1
    assert await two.ask(select(func.count()).where(cdr.c.id == call_id)) == 0
    assert await two.ask(select(func.count()).select_from(ledger_entry)) == 1, "the ledger stays"


# ------------------------------------------------------------------ lists and decks


async def test_two_lists_imported_at_once_both_hold(two: Two) -> None:
    """Each counts the other's entries towards what all may have together."""
    two.interrupt("FOR UPDATE", lambda: SqlLists(two.other).replace(ListHead("other"), pages(ListEntry("491"))))
    written = await SqlLists(two.one).replace(ListHead("irsf"), pages(ListEntry("492"), ListEntry("493")))
    assert (written.entries, two.retried("list point")) == (2, 1)
    assert await two.ask(select(func.sum(number_list.c.entries))) == 3


async def test_of_two_imports_of_one_list_at_once_one_holds_whole(two: Two) -> None:
    two.interrupt("FOR UPDATE", lambda: SqlLists(two.other).replace(ListHead("irsf"), pages(ListEntry("491"))))
    with pytest.raises(Conflict):
        await SqlLists(two.one).replace(ListHead("irsf"), pages(ListEntry("492"), ListEntry("493")))
    (head,) = await SqlLists(two.other).heads()
    assert [list(page) async for page in SqlLists(two.other).patterns("irsf", head.version)] == [["491"]]


async def test_an_import_of_a_deck_goes_on_when_its_row_was_touched(two: Two) -> None:
    rows = [DeckRow(prefix, "", Tariff(1)) for prefix in ("49", "491")]
    await SqlDeckStore(two.other).replace(DeckHead("retail", "EUR"), pages(rows[0]))
    two.interrupt("FOR UPDATE", lambda: two.run_in_between(update(deck).values(updated_at=func.now())))
    version = await SqlDeckStore(two.one).replace(DeckHead("retail", "USD"), pages(*rows))
    assert two.retried("deck point") == 1
    assert await two.ask(select(deck.c.version)) == version
    assert await two.ask(select(func.count()).where(deck_row.c.deck == "retail")) == 2


async def test_two_routes_set_at_once_both_lead_somewhere(two: Two) -> None:
    owner = await two.account("carrier", type="carrier", prepaid=False)
    await SqlTrunks(two.other).create(trunk(account="carrier"), owner)
    two.interrupt("count(*)", lambda: SqlDeckStore(two.other).set_route(RouteRow("49", "berlin")))
    await SqlDeckStore(two.one).set_route(RouteRow("33", "berlin"))
    assert two.retried("set route") == 1
    assert [route.row.prefix for route in await SqlDeckStore(two.other).routes()] == ["33", "49"]


# ------------------------------------------------------------------ credentials


async def test_a_new_password_is_not_sealed_over_by_the_old_one(two: Two) -> None:
    alice, user = str(await two.account()), UserKey("example.org", "alice")
    old, resealed, new = (Sealed(bytes([number]) * SEALED_BYTES, "k" * 16) for number in range(3))
    async with await two.one.hot(connections=1) as hot:
        mine, others = SqlCredentialStore(two.one, hot), SqlCredentialStore(two.other, hot)
        await others.set_credential(alice, user, old)
        two.interrupt("UPDATE credential", lambda: others.set_credential(alice, user, new))
        assert not await mine.replace_seal(user, old, resealed)
        assert two.retried("replace-seal") == 1
        assert (await others.look_up([user]))[user].sealed == new
