"""Calls that run every statement of every adapter, with data that would be recognised: MARK, DIGITS, AMOUNT."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
from admission_admin import ALICE, administration_on, change, trunk
from admission_admin import account as new_account
from sqlalchemy import insert, update

from callwarden.auth.adapters.credentials_sql import SqlCredentialStore
from callwarden.auth.core.sealing import SEALED_BYTES, Sealed
from callwarden.auth.core.users import UserKey
from callwarden.call_admission.accounts.adapters import accounts_sql
from callwarden.call_admission.accounts.adapters.calls_sql import SqlCallHistory
from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.call_admission.accounts.core.accounts import AccountFilter, AccountRef
from callwarden.call_admission.accounts.core.trunks import TrunkUpdate
from callwarden.call_admission.admission.adapters.shards_sql import SqlShards
from callwarden.call_admission.admission.adapters.source_trunks_sql import SqlSourceTrunks
from callwarden.call_admission.admission.adapters.store_sql import SqlAdmissionStore
from callwarden.call_admission.admission.core.commands import DecisionRecord
from callwarden.call_admission.admission.core.state import Changes, ReadSet
from callwarden.call_admission.admission.ports import Written
from callwarden.call_admission.lists.adapters.lists_sql import SqlLists
from callwarden.call_admission.model.calls import LimitScope
from callwarden.call_admission.model.codecs.hold_bytes import scopes_bytes_of
from callwarden.call_admission.model.codecs.usage_bytes import grants_bytes, usage_bytes
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.lists import ListEntry, ListHead
from callwarden.call_admission.model.spans import CalendarSpan, day_spend
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.records.adapters import records_sql
from callwarden.call_admission.records.adapters.charges_sql import SqlCharges
from callwarden.call_admission.records.core.records import RecordPlace
from callwarden.cli.audit.sources.running import database_role
from callwarden.common.sql import Database, HotPool
from callwarden.common.sql.schema import schema_problem
from callwarden.kernel.clock import UnixS
from callwarden.kernel.errors import CallwardenError
from callwarden.payment.adapters.ledger_sql import SqlLedgerStore
from callwarden.payment.core.topup import TopUp
from callwarden.rating.adapters.decks_sql import SqlDeckStore
from callwarden.rating.core.deck import DeckHead, DeckRow, Tariff
from callwarden.rating.core.routes import RouteRow
from callwarden.schema import job
from callwarden.schema.tables import account, cdr, counter, decision, hold, ledger_entry, spend_day
from callwarden.testing.clock import FakeClock

MARK: Final = "zqx"
DIGITS: Final = "49777777"
AMOUNT: Final = 7_654_321
REALM: Final = f"{MARK}.org"
LONG_AGO: Final = datetime(2001, 2, 3, tzinfo=UTC)
NOW_S: Final = UnixS(1_800_000_000.0)
ALL: Final = (UUID(int=0), None)


@dataclass
class Ceilings:
    system: int | None = 1_000

    def realm(self, name: str) -> int | None:
        return 1_000


async def pages(*rows: Any) -> AsyncIterator[Sequence[Any]]:
    for row in rows:
        yield [row]


def named(name: str, digits: str = "", **values: Any) -> Any:
    numbers = (f"+{DIGITS}{digits}",) if digits else ()
    return new_account(
        **{"realm": REALM, "name": f"{MARK}-{name}", "deck": f"{MARK}-deck", "numbers": numbers, **values}
    )


async def _roles(database: Database, seed: Database) -> None:
    """Names and passwords stand in these statements: neither database takes a parameter there."""
    role = f"role_{uuid.uuid4().hex}"
    for _ in range(2):
        await job.apply_roles(database.engine, {"auth": (role, "password")})
    async with seed.engine.begin() as connection:
        await connection.exec_driver_sql(f"DROP OWNED BY {role}")
        await connection.exec_driver_sql(f"DROP ROLE {role}")


async def _refused(asked: Any) -> None:
    with pytest.raises(CallwardenError):
        await asked


@dataclass(frozen=True)
class RoleConnection:
    """To the database as one role, recorded."""

    database: Database
    hot: HotPool


async def run_all(
    connections: Mapping[str, RoleConnection], owner: Database, seed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `connections` each service's statements as that service; `owner` is recorded, too, for what is the owner's.

    `seed` writes the rows that adapters find, unrecorded.
    """
    monkeypatch.setattr(accounts_sql, "EXPORT_PAGE", 1)
    monkeypatch.setattr(records_sql, "EXPORT_PAGE", 1)
    for each in connections.values():
        assert await schema_problem(each.database) == ""
    rating, admission = connections["rating"].database, connections["call-admission"].database
    await _rating(rating)
    alice = await _accounts(admission)
    await _rating_routes(rating, admission)
    await _calls(admission, seed, alice)
    await _shards(admission, seed, alice)
    await _admission(connections["call-admission"].hot, alice)
    await _records(admission, seed, alice)
    await _lists(admission, alice)
    await _payment(connections["payment"].database, seed)
    await _auth(connections["auth"].database, connections["auth"].hot, alice)
    await administration_on(admission, FakeClock()).trunks.delete(f"{MARK}-trunk")
    assert not (await database_role(rating)).may_delete_ledger
    assert (await database_role(owner)).may_delete_ledger
    await _roles(owner, seed)


async def _rating(database: Database) -> None:
    decks = SqlDeckStore(database)
    rows = [DeckRow(f"{DIGITS}{n}", MARK, Tariff(19_000)) for n in range(2)]
    for _ in range(2):
        await decks.replace(DeckHead(f"{MARK}-deck", "EUR"), pages(*rows))
    (head,) = await decks.heads()
    assert len([row async for page in decks.rows(head.name, head.version) for row in page]) == 2


async def _rating_routes(database: Database, admission: Database) -> None:
    decks = SqlDeckStore(database)
    await decks.set_route(RouteRow(DIGITS, f"{MARK}-trunk", 1, f"{MARK}-deck"))
    assert len(await decks.routes()) == 1
    await _refused(administration_on(admission, FakeClock()).trunks.delete(f"{MARK}-trunk"))
    assert await decks.delete_route(DIGITS, f"{MARK}-trunk")


async def _accounts(database: Database) -> UUID:
    accounts, admin = accounts_sql.SqlAccounts(database), administration_on(database, FakeClock())
    alice, carrier = uuid.uuid4(), uuid.uuid4()
    await accounts.create(uuid.uuid4(), named("reseller", type="reseller", prepaid=False), Ceilings())
    await accounts.create(alice, named("alice", "1", parent=f"{MARK}-reseller"), Ceilings())
    await accounts.create(carrier, named("carrier", type="carrier", prepaid=False))
    await _refused(accounts.create(uuid.uuid4(), named("alice")))
    await _refused(accounts.create(uuid.uuid4(), named("other", "1")))
    lines = [Line(1, named("imported", "2", parent=f"{MARK}-reseller")), Line(2, named("imported-too"))]
    assert await accounts.check(lines, {}) == []

    assert await accounts.create_all(lambda: pages(*lines), uuid.uuid4, {}, Ceilings()) == 2
    wanted = AccountFilter(realm=REALM, parent=AccountRef.parse(f"{MARK}-reseller"))
    assert len([page async for page in accounts.pages(wanted)]) == 2
    for text in (f"{MARK}-alice", f"{MARK}-alice@{REALM}", str(alice)):
        assert await accounts.find(AccountRef.parse(text)) == alice
    await accounts.owner_of(f"{DIGITS}2")
    await accounts.list("", 10, NOW_S, AccountFilter())
    await accounts.list(f"{MARK}-a@{REALM}", 10, NOW_S, wanted)
    await accounts.list(f"{MARK}-a", 10, NOW_S, wanted)
    ref = AccountRef.parse(str(alice))
    for changed in (
        change(add_numbers=(f"+{DIGITS}3",), max_lines=7),
        change(remove_numbers=(f"+{DIGITS}3",), parent=f"{MARK}-reseller"),
        change(deck=""),
        change(clear=("parent",)),
        change(currency="USD"),
        change(prepaid=False),
        change(prepaid=True),
    ):
        await admin.accounts.update(ref, changed)
    await _refused(admin.accounts.update(ref, change(add_numbers=(f"+{DIGITS}2",))))
    await admin.trunks.create(trunk(name=f"{MARK}-trunk", account=str(carrier), address=f"{MARK}.org:5060"))
    await admin.trunks.update(f"{MARK}-trunk", TrunkUpdate({"enabled": True}))
    assert len(await admin.trunks.list()) == 1
    await SqlSourceTrunks(database).refresh()
    return alice


async def _calls(database: Database, seed: Database, alice: UUID) -> None:
    call_id, by = f"{MARK}-call", {"account_id": alice, "call_id": f"{MARK}-call"}
    numbers = dict.fromkeys(("destination", "dialled", "caller_number", "prefix"), DIGITS)
    texts = {**dict.fromkeys(("source_address", "edge", "trunk", "trace_id"), MARK), **numbers, "policy_revision": 7}
    owners = scopes_bytes_of((LimitScope("account", alice, 1),), (), ())
    running = {
        "id": uuid.uuid4(), **by, **texts, "created_at": LONG_AGO, "expires_at": LONG_AGO, "granted_s": 60,
        "max_duration_s": 600, "final": False, "held_micros": 0, "spend_day": LONG_AGO.date(), "price": b"",
        "decision": b"", "owners": owners,
    }  # fmt: skip
    settled = {
        "id": uuid.uuid4(), **by, **texts, "started_at": LONG_AGO, "ended_at": LONG_AGO, "duration_s": 60,
        "billed_s": 60, "price_micros": 0, "currency": "EUR", "reason": MARK, "sip_status": 200, "decision": b"",
    }  # fmt: skip
    refused = {"id": uuid.uuid4(), **by, "at": LONG_AGO, "outcome": MARK, "body": b""}

    async def work(connection: Any) -> None:
        await connection.execute(insert(hold).values(running))
        await connection.execute(insert(cdr), [settled, settled | {"id": uuid.uuid4()}])
        await connection.execute(insert(decision).values(refused))
        await connection.execute(insert(spend_day).values(account_id=alice, day=LONG_AGO.date()))
        await connection.execute(insert(counter).values(scope=uuid.uuid4(), shard=0, updated_at=LONG_AGO))

    await seed.transaction("seed", work)
    accounts, records = accounts_sql.SqlAccounts(database), records_sql.SqlRecords(database)
    history = SqlCallHistory(database)
    await accounts.get(alice, NOW_S)
    for owner in (None, alice):
        assert await history.list(owner, 1.0, 10, running=False)
        assert await history.list(owner, 1.0, 10, running=True)
        await history.audit(owner)
        assert len([page async for page in records.export(owner, 0.0, NOW_S)]) == 2
        charges = SqlCharges(database)
        assert [page async for page in charges.calls(owner, 0.0, NOW_S)]
        assert [page async for page in charges.holds(owner)]
    assert (await history.explain(call_id)).call is not None
    for outcome in ("", MARK):
        await records.decisions(alice, 0.0, outcome, RecordPlace(int(NOW_S) * 10**6, uuid.uuid4()), 2)
    await records.ledger(alice, 0.0, RecordPlace(int(NOW_S) * 10**6, uuid.uuid4()), 2)


async def _shards(database: Database, seed: Database, alice: UUID) -> None:
    shards = SqlShards(database)
    assert await shards.grow(alice, 1, 2)
    await seed.transaction("seed", lambda connection: connection.execute(insert(counter).values(scope=alice, shard=1)))
    admin = administration_on(database, FakeClock())
    await admin.accounts.update(AccountRef.parse(str(alice)), change(shards=0))
    await admin.accounts.update(AccountRef.parse(f"{MARK}-carrier"), change(prepaid=True))


async def _admission(hot: HotPool, alice: UUID) -> None:
    store = SqlAdmissionStore(hot)
    for counted in ((alice,), ()):
        read = ReadSet((alice,), counted, (uuid.uuid4(),), NOW_S, (uuid.uuid4(),))
        await store.load(read, {(alice, 0)})
    decision = DecisionRecord(uuid.uuid4(), f"{MARK}-call", alice, NOW_S, MARK, None, b"")
    assert await store.write(Changes(decisions=[decision])) == Written()
    await store.expired(NOW_S, 10)
    await store.lapsed(NOW_S, 10)
    await store.forget_recorded(NOW_S)


async def _records(database: Database, seed: Database, alice: UUID) -> None:
    records = records_sql.SqlRecords(database)
    entry, top_up, running = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()

    async def work(connection: Any) -> None:
        await connection.execute(
            insert(ledger_entry),
            [
                {"id": entry, "account_id": alice, "kind": "call", "reference": str(entry), "amount_micros": -AMOUNT},
                {"id": top_up, "account_id": alice, "kind": "top-up", "reference": f"{MARK}", "amount_micros": AMOUNT},
            ],
        )
        call = {"call_id": MARK, "destination": MARK, "dialled": MARK, "caller_number": MARK, "source_address": MARK}
        more = {"edge": MARK, "started_at": LONG_AGO, "ended_at": LONG_AGO, "duration_s": 1, "billed_s": 1}
        rest = {
            "price_micros": AMOUNT,
            "currency": "EUR",
            "prefix": MARK,
            "trunk": MARK,
            "reason": MARK,
            "sip_status": 200,
        }
        last = {"policy_revision": 7, "trace_id": MARK, "decision": b""}
        await connection.execute(insert(cdr).values(id=entry, account_id=alice, **call, **more, **rest, **last))

    await seed.transaction("seed", work)
    for owner in (None, alice):
        assert [page async for page in SqlCharges(database).entries(owner, 0.0)]
    await _refused(records.correct_call(running, 5, MARK, MARK))
    await records.correct_call(entry, 5, MARK, f"{MARK}-1")
    await records.reverse_entry(entry, MARK, f"{MARK}-2")
    await seed.transaction("seed", _shard(alice))
    await records.correct_call(entry, 5, MARK, f"{MARK}-3")
    for kind in ("cdr", "decision", "counter", "spend_day"):
        while await records.forget(kind, ALL, NOW_S, 10):
            pass
        await records.forget(kind, (UUID(int=0), UUID(int=9)), NOW_S, 10)


def _shard(alice: UUID) -> Callable[[Any], Awaitable[None]]:
    """Gives her shards, one with a part of a limit of the day on which her call began."""

    async def work(connection: Any) -> None:
        day = day_of(LONG_AGO.timestamp(), ALICE["time_zone"]).toordinal()
        usage = usage_bytes(Usage(days=[CalendarSpan(day, AMOUNT)]))
        grants = grants_bytes({day_spend(day): (AMOUNT, 2, AMOUNT)})
        await connection.execute(update(account).where(account.c.id == alice).values(shards=2))
        await connection.execute(insert(counter).values(scope=alice, shard=0, usage=usage, transfers=grants))

    return work


async def _lists(database: Database, alice: UUID) -> None:
    lists = SqlLists(database)
    entries = [ListEntry(f"{DIGITS}{n}", MARK) for n in range(2)]
    for _ in range(2):
        await lists.replace(ListHead(f"{MARK}-list", source=MARK), pages(*entries))
    (head,) = await lists.heads()
    assert len([page async for page in lists.patterns(head.name, head.version)]) == 1
    assert len(await lists.entries(head.name, "", 10)) == 2
    assert await lists.note(head.name, entries[0].pattern) == MARK
    assert await lists.realms([alice]) == {alice: REALM}
    assert await lists.delete(head.name)


async def _payment(database: Database, seed: Database) -> None:
    books = SqlLedgerStore(database, lambda count: uuid.uuid4().bytes[:count])
    await books.credit(TopUp(f"{MARK}-imported", AMOUNT, "EUR", f"{MARK}-1", MARK))
    sharded = update(account).where(account.c.name == f"{MARK}-imported").values(shards=2)
    await seed.transaction("seed", lambda connection: connection.execute(sharded))
    await books.credit(TopUp(f"{MARK}-imported", AMOUNT, "EUR", f"{MARK}-2", MARK))


async def _auth(database: Database, hot: HotPool, alice: UUID) -> None:
    accounts, user = SqlCredentialStore(database, hot), UserKey(REALM, MARK)
    old, new = Sealed(bytes(SEALED_BYTES), "a" * 16), Sealed(bytes(SEALED_BYTES), "b" * 16)
    await accounts.set_credential(str(alice), user, old)
    assert user in await accounts.look_up([user])
    await accounts.enabled_trunks()
    await accounts.numbers("", 10)
    await accounts.users_of_digits(UserKey("", ""), 10)
    await accounts.accounts_of([UserKey("example.org", "101")])
    await accounts.owners([f"{DIGITS}2"])
    assert await accounts.realm_of(str(alice)) == REALM
    assert await accounts.sealed_otherwise("b" * 16, UserKey("", ""), 10)
    assert await accounts.replace_seal(user, old, new)
    assert await accounts.remove_credential(user) == str(alice)
