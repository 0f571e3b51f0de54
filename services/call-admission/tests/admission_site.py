"""A process of call-admission on a real database, as tests of its use cases start it."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

from admission_admin import charge_check_on
from sqlalchemy import func, select

from callwarden.call_admission.accounts.adapters.accounts_sql import SqlAccounts
from callwarden.call_admission.accounts.adapters.calls_sql import SqlCallHistory
from callwarden.call_admission.accounts.core.accounts import check_account
from callwarden.call_admission.accounts.core.views import AccountView, LedgerAudit
from callwarden.call_admission.admission.adapters.store_sql import SESSION, SqlAdmissionStore
from callwarden.call_admission.admission.app.calls import CallAdmission
from callwarden.call_admission.admission.attempts import AdmissionAttempts
from callwarden.call_admission.admission.core.commands import Admitted
from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.core.state import Changes, CounterKey, Loaded, ReadSet
from callwarden.call_admission.admission.ports import AdmissionStore, WriteConflict, Written
from callwarden.call_admission.model.calls import (
    CallRequest,
    Ended,
    Expired,
    NoQuote,
    Pricing,
    Quote,
    Route,
    Unclaimed,
)
from callwarden.call_admission.model.policy import AdmissionPolicies
from callwarden.call_admission.records.core.charges import ChargeCount, ChargeFinding, FindingKind
from callwarden.common.metrics import Metrics
from callwarden.common.sql import Database, HotPool
from callwarden.kernel.clock import UnixS
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import Document, PolicySet, default_set
from callwarden.schema.tables import metadata
from callwarden.testing.clock import FakeClock
from callwarden.testing.servers import as_owner

T = TypeVar("T")

# What is only wrong where the reaper runs.
_WAITING = (FindingKind.HOLD_STUCK, FindingKind.CALL_UNKNOWN)

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
    attempts: AdmissionAttempts
    accounts: SqlAccounts
    history: SqlCallHistory
    app: CallAdmission
    clock: FakeClock
    quotes: PriceList
    metrics: Metrics
    notified: "NoticeList"

    async def account(self, **changes: Any) -> UUID:
        number = next(numbers)
        values: dict[str, Any] = {
            "realm": "example.org", "name": f"a{number}", "type": "enduser", "status": "", "currency": "EUR",
            "time_zone": "Europe/Berlin", "prepaid": True, "deck": "retail", "max_lines": 5, "daily_micros": None,
            "numbers": (),
        }  # fmt: skip
        credit = changes.pop("credit_micros", 1_000_000)
        new = check_account(values | changes)
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

    async def audit(self, account_id: UUID | None = None, *, kept_days: int = 0) -> LedgerAudit:
        """The books, which must be right whatever happened; records are kept for so long (0: for ever)."""
        audit = await self.history.audit(account_id)
        assert audit.mismatched == ()
        assert audit.balance_sum_micros == audit.ledger_sum_micros
        assert audit.held_sum_micros == audit.hold_rows_sum_micros
        wrong = [
            finding
            for finding in await self.wrong_charges(account_id, kept_days=kept_days)
            if finding.kind not in _WAITING
        ]
        assert wrong == []
        return audit

    async def wrong_charges(
        self, account_id: UUID | None = None, since_s: float = 0.0, *, kept_days: int = 0
    ) -> list[ChargeFinding]:
        """What the check of charges finds."""
        check = charge_check_on(self.database, self.clock, kept_days=kept_days)
        pages = [page async for page in check.check(account_id, since_s, ChargeCount())]
        return [finding for page in pages for finding in page]

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
        unix_s = self.clock.unix_s()
        answered_at_s = None if talked_s is None else unix_s - talked_s
        status = 487 if answered_at_s is None else 200
        return Ended(hold_id, account_id, answered_at_s, unix_s, "caller-bye", status, "carrier")


class running:  # noqa: N801 - reads as a function
    """A process's app on a database: `async with running(url, clock) as site`."""

    def __init__(
        self,
        url: str,
        clock: FakeClock,
        *,
        policy: PolicySet | None = None,
        around: Callable[[AdmissionStore], AdmissionStore] = lambda store: store,
        over: Callable[[HotPool], HotPool] = lambda pool: pool,
    ) -> None:
        self._url, self._clock, self._policy, self._around = url, clock, policy or default_set(), around
        self._over = over

    async def __aenter__(self) -> Site:
        self._metrics = Metrics()
        self._database = Database(self._url, metrics=self._metrics)
        self._owner = Database(as_owner(self._url))
        self._pool: HotPool = await self._database.hot(connections=3, session=SESSION)
        quotes = PriceList({"retail": PRICE, "later": LATER_PRICE})
        notified = NoticeList()
        policies, random_float = AdmissionPolicies(self._policy), random.Random(1).random
        store = self._around(SqlAdmissionStore(self._over(self._pool)))
        attempts = AdmissionAttempts(store, random_float)
        app = CallAdmission(attempts, quotes, policies, self._clock, random_float, notifier=notified)
        self._task = asyncio.create_task(app.run())
        accounts, history = SqlAccounts(self._database), SqlCallHistory(self._database)
        return Site(
            self._database, self._owner, attempts, accounts, history, app, self._clock, quotes, self._metrics, notified
        )  # fmt: skip

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


class NoticeList:
    """Implements ports.Notifier by a list."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)


class PassingStore:
    """Implements ports.AdmissionStore by another store. Tests put in between what they need."""

    def __init__(self, store: AdmissionStore) -> None:
        self._store = store

    async def load(self, read: ReadSet, counters: Collection[CounterKey]) -> Loaded:
        return await self._store.load(read, counters)

    async def write(self, changes: Changes) -> Written | WriteConflict:
        return await self._store.write(changes)

    async def expired(self, unix_s: float, limit: int) -> Sequence[Expired]:
        return await self._store.expired(UnixS(unix_s), limit)

    async def lapsed(self, unix_s: float, limit: int) -> Sequence[Unclaimed]:
        return await self._store.lapsed(UnixS(unix_s), limit)

    async def forget_recorded(self, unix_s: float) -> None:
        await self._store.forget_recorded(UnixS(unix_s))


SLICE_MICROS = 60_000  # the first 60 s of a call at 0.06 EUR a minute


async def settled(site: Site, account_id: UUID, talked_s: float = 60) -> UUID:
    """A call that began, was answered and ended within this moment of the fake clock."""
    hold_id = await site.admit(account_id)
    await site.app.ended(site.ended(hold_id, account_id, talked_s))
    return hold_id


async def view_of(site: Site, account_id: UUID) -> AccountView:
    return await site.accounts.get(account_id, site.clock.unix_s())


async def rows_of(site: Site, table: Any) -> int:
    async with site.owner.engine.connect() as connection:
        return int((await connection.execute(select(func.count()).select_from(table))).scalar_one())


async def contents(site: Site) -> dict[str, list[Any]]:
    """All that is in the database: what must be the same when nothing was to change."""
    async with site.owner.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, (await connection.execute(select(table))).all()))
            for table in metadata.sorted_tables
        }


def set_apart(site: Site) -> None:
    """Has the process count in other shards than its neighbour, as chance does."""
    site.app._slot = 1
