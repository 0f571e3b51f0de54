"""Bad input at each door of call-admission: the field is named, and nothing in the database is another than before."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from admission_admin import Limits, account, administration_on
from admission_site import Site, running
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from test_admission_watch import Process

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.accounts.adapters.accounts_grpc import AccountGrpc
from callwarden.call_admission.accounts.adapters.accounts_sql import SqlAccounts
from callwarden.call_admission.accounts.adapters.trunks_sql import SqlTrunks
from callwarden.call_admission.accounts.app.account_import import Imported, ImportRequest
from callwarden.call_admission.accounts.app.account_service import PolicyCeilings
from callwarden.call_admission.accounts.app.limit_queries import LimitQueries
from callwarden.call_admission.accounts.core.accounts import AccountFilter, check_account, check_change
from callwarden.call_admission.admission.adapters.admission_grpc import AdmissionGrpc
from callwarden.call_admission.admission.adapters.events_nats import CallEvents
from callwarden.call_admission.lists.adapters.lists_memory import MemoryListed
from callwarden.call_admission.model.calls import Route
from callwarden.call_admission.model.policy import AdmissionPolicies
from callwarden.common.bus import Delivery
from callwarden.common.sql import Database
from callwarden.kernel.errors import CallwardenError, Conflict, Exhausted, Invalid, NotFound
from callwarden.policy.bundle import default_set
from callwarden.schema.tables import metadata
from callwarden.testing.clock import FakeClock

HUGE = 2**62
FAR_S = 1e12
ID = str(uuid.UUID(int=7))
NUL, LONG = "a\0b", "a" * 300


class Doors:
    """Both servicers and the event consumer of one process, with an account, a settled call and a running one."""

    def __init__(self, site: Site, clock: FakeClock) -> None:
        self.site = site
        watch = Process(clock, MemoryListed()).watch
        admin, trunks = administration_on(site.database, clock), SqlTrunks(site.database)
        limits = LimitQueries(site.app, site.accounts, trunks, AdmissionPolicies(default_set()), clock)
        self.accounts = AccountGrpc(admin.accounts, admin.trunks, admin.records, limits)
        self.admissions = AdmissionGrpc(site.app, watch)
        self.events = CallEvents(site.app, watch)

    async def open(self) -> None:
        site = self.site
        site.quotes.routes = (Route("berlin", "192.0.2.1:5060"),)
        self.account_id = await site.account(name="alice", numbers=("49301234",))
        await site.account(name="carrier-account", type="carrier", prepaid=False, credit_micros=0)
        await self.ask("CreateTrunk", trunk())
        self.settled = await site.admit(self.account_id)
        await site.app.ended(site.ended(self.settled, self.account_id, 60))
        self.running = await site.admit(self.account_id)

    async def ask(self, method: str, request: Any) -> Any:
        """What the door answers; of one that streams, all of it."""
        door = self.admissions if method in ("Admit", "Extend") else self.accounts
        if method == "ImportAccounts":
            request = _one(request)
        answer = getattr(door, method)(request, None)
        if hasattr(answer, "__aiter__"):
            return [part async for part in answer]
        return await answer

    async def counts(self) -> dict[str, int]:
        async with self.site.owner.engine.connect() as connection:
            return {
                table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in metadata.sorted_tables
            }

    async def money(self) -> tuple[int, int, int]:
        view = await self.site.accounts.get(self.account_id, self.site.clock.unix_s())
        return view.balance_micros, view.held_micros, view.spent_today_micros


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


@pytest_asyncio.fixture
async def doors(database_url: str, fake_clock: FakeClock) -> AsyncIterator[Doors]:
    async with running(database_url, fake_clock) as site:
        opened = Doors(site, fake_clock)
        await opened.open()
        yield opened


def but_for(changes: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The values of a request that is right, but for these changes."""
    return values | changes


def created(**changes: Any) -> pb.CreateAccountRequest:
    values = but_for(changes, name="bob", realm="example.org", type="enduser", currency="EUR", deck="retail")
    return pb.CreateAccountRequest(account=pb.Account(**values))


def trunk(**changes: Any) -> pb.Trunk:
    values = but_for(changes, name="berlin", address="192.0.2.1:5060", direction="carrier", account="carrier-account")
    return pb.Trunk(**values)


def admit(**changes: Any) -> pb.AdmitRequest:
    values = but_for(changes, hold_id=str(uuid.uuid4()), call_id="c", account_id=ID, destination="4930")
    return pb.AdmitRequest(**values)


def extend(**changes: Any) -> pb.ExtendRequest:
    return pb.ExtendRequest(**but_for(changes, hold_id=ID, call_id="c", account_id=ID, granted_s=60))


def correct(**changes: Any) -> pb.CorrectCallRequest:
    return pb.CorrectCallRequest(**but_for(changes, hold_id=ID, price_micros=0, reason="r", key="k"))


def reverse(**changes: Any) -> pb.ReverseEntryRequest:
    return pb.ReverseEntryRequest(**but_for(changes, entry_id=ID, reason="r", key="k"))


def changed(**changes: Any) -> pb.UpdateAccountRequest:
    return pb.UpdateAccountRequest(**but_for(changes, account="alice"))


def simulated(**changes: Any) -> pb.SimulateCallRequest:
    return pb.SimulateCallRequest(**but_for(changes, account="alice", destination="4930"))


def bad_texts(method: str, made: Any, *fields: str) -> Iterator[tuple[str, Any, str]]:
    for field in fields:
        for text in (NUL, LONG):
            yield method, made(**{field: text}), field


BAD: list[tuple[str, Any, str]] = [
    *bad_texts("Admit", admit, "hold_id", "call_id", "account_id", "destination", "dialled", "caller_number"),
    *bad_texts("Admit", admit, "source_address", "edge"),
    ("Admit", admit(hold_id="{" + ID[1:]), "hold_id"),
    ("Admit", admit(hold_id=ID.replace("-", "")), "hold_id"),
    ("Admit", admit(destination="+4930"), "destination"),
    ("Admit", admit(destination="٤٩٣٠"), "destination"),
    ("Admit", admit(destination="4"), "destination"),
    ("Admit", admit(destination="1" * 16), "destination"),
    *[("Admit", admit(at_s=at_s), "at_s") for at_s in (-1.0, FAR_S, float("nan"), float("inf"))],
    *bad_texts("Extend", extend, "hold_id", "call_id", "account_id"),
    *[("Extend", extend(answered_at_s=at_s), "answered_at_s") for at_s in (-1.0, FAR_S, float("nan"))],
    *bad_texts("CreateAccount", created, "name", "realm", "type", "status", "currency", "time_zone", "deck", "parent"),
    ("CreateAccount", created(time_zone="../../etc/passwd"), "time_zone"),
    ("CreateAccount", created(currency="eur"), "currency"),
    ("CreateAccount", created(profile=pb.Profile(country="ß")), "country"),
    ("CreateAccount", created(profile=pb.Profile(email="a\0@example.org")), "email"),
    ("CreateAccount", created(profile=pb.Profile(email_verified=True)), "email_verified"),
    ("CreateAccount", created(shards=65), "shards"),
    ("CreateAccount", created(numbers=["49\0"]), "numbers"),
    ("CreateAccount", created(numbers=["49301234"]), "numbers"),
    ("CreateAccount", created(name="alice"), "name"),
    ("CreateAccount", created(parent="alice"), "parent"),
    ("CreateAccount", created(lists=["a b"]), "lists"),
    *[
        ("CreateAccount", created(limits=pb.Limits(**{name: value})), name)
        for name in ("daily_micros", "monthly_micros", "talk_day_s")
        for value in (-1, HUGE)
    ],
    *bad_texts("GetAccount", pb.GetAccountRequest, "account"),
    *bad_texts("ListAccounts", pb.ListAccountsRequest, "after", "type", "realm", "parent"),
    ("ListAccounts", pb.ListAccountsRequest(page_size=1_001), "page_size"),
    *bad_texts("UpdateAccount", changed, "account", "status", "deck", "currency", "time_zone", "parent"),
    ("UpdateAccount", changed(currency="USD"), "currency"),
    ("UpdateAccount", changed(limits=pb.Limits(daily_micros=-1)), "daily_micros"),
    ("UpdateAccount", changed(remove_numbers=["4999"]), "remove_numbers"),
    ("UpdateAccount", changed(clear=["balance_micros"]), "clear"),
    *bad_texts("ImportAccounts", pb.ImportAccountsRequest, "realm", "currency"),
    *bad_texts("ExportAccounts", pb.ExportAccountsRequest, "type", "realm", "parent"),
    *bad_texts("CreateTrunk", trunk, "name", "address", "direction", "account", "tech_prefix", "add_prefix"),
    ("CreateTrunk", trunk(name="other", strip_digits=16), "strip_digits"),
    ("CreateTrunk", trunk(), "name"),
    *bad_texts("UpdateTrunk", pb.UpdateTrunkRequest, "name"),
    ("UpdateTrunk", pb.UpdateTrunkRequest(name="berlin", address="a\0:1"), "address"),
    *bad_texts("DeleteTrunk", pb.DeleteTrunkRequest, "name"),
    *bad_texts("ListCalls", pb.ListCallsRequest, "account"),
    ("ListCalls", pb.ListCallsRequest(since_s=-1), "since_s"),
    *bad_texts("ExportCalls", pb.ExportCallsRequest, "account", "format"),
    ("ExportCalls", pb.ExportCallsRequest(format="csv", since_s=FAR_S), "since_s"),
    ("ExportCalls", pb.ExportCallsRequest(format="csv", since_s=2, until_s=1), "until_s"),
    *bad_texts("Explain", pb.ExplainRequest, "call_id"),
    *[
        ("ListDecisions", pb.ListDecisionsRequest(**but_for({name: text}, account="alice")), name)
        for name in ("account", "outcome", "after")
        for text in (NUL, LONG)
    ],
    *bad_texts("ShowLimits", pb.ShowLimitsRequest, "account"),
    *bad_texts("Simulate", simulated, "account", "destination", "caller_number", "trunk", "source_address"),
    ("Simulate", simulated(at_s=float("nan")), "at_s"),
    ("Simulate", simulated(at_s=1.0), "at_s"),
    *bad_texts("CorrectCall", correct, "hold_id", "reason", "key"),
    *[("CorrectCall", correct(price_micros=micros), "price_micros") for micros in (-1, HUGE, -HUGE)],
    ("CorrectCall", correct(reason=" \n"), "reason"),
    ("CorrectCall", correct(key=""), "key"),
    *bad_texts("ReverseEntry", reverse, "entry_id", "reason", "key"),
    *bad_texts("AuditLedger", pb.AuditLedgerRequest, "account"),
]

UNKNOWN: list[tuple[str, Any, str]] = [
    ("GetAccount", pb.GetAccountRequest(account="nobody"), "account"),
    ("GetAccount", pb.GetAccountRequest(account=ID), "account"),
    ("UpdateAccount", changed(account="nobody", deck="other"), "account"),
    ("CreateAccount", created(parent="nobody"), "parent"),
    ("CreateTrunk", trunk(name="other", account="nobody"), "account"),
    ("UpdateTrunk", pb.UpdateTrunkRequest(name="nothing"), "name"),
    ("ListCalls", pb.ListCallsRequest(account="nobody"), "account"),
    ("ExportCalls", pb.ExportCallsRequest(account="nobody", format="csv"), "account"),
    ("ListDecisions", pb.ListDecisionsRequest(account="nobody"), "account"),
    ("ShowLimits", pb.ShowLimitsRequest(account="nobody"), "account"),
    ("Simulate", simulated(account="nobody"), "account"),
    ("CorrectCall", correct(), "hold_id"),
    ("ReverseEntry", reverse(), "entry_id"),
    ("AuditLedger", pb.AuditLedgerRequest(account="nobody"), "account"),
]


async def test_what_is_wrong_is_named_and_nothing_changes(doors: Doors) -> None:
    counts, money = await doors.counts(), await doors.money()
    missed: list[str] = []
    for errors, cases in (((Invalid, Conflict), BAD), ((NotFound,), UNKNOWN)):
        for method, request, field in cases:
            said = f"{method}({request})"
            try:
                answer = await doors.ask(method, request)
            except CallwardenError as error:
                if not isinstance(error, errors) or error.field != field:
                    missed.append(f"{said}: {error!r} of {error.field!r}, not of {field!r}")
            except Exception as error:
                missed.append(f"{said}: {error!r}")
            else:
                missed.append(f"{said} was answered {answer!r}")
    assert missed == []
    assert (await doors.counts(), await doors.money()) == (counts, money)


async def test_a_call_of_an_account_that_there_is_not_is_refused_and_can_not_go_on(doors: Doors) -> None:
    money = await doors.money()
    reply = await doors.ask("Admit", admit())
    assert reply.refused.reason == "account-unknown"
    for hold_id, account_id in ((ID, str(doors.account_id)), (str(doors.running), ID)):
        with pytest.raises(NotFound):
            await doors.ask("Extend", extend(hold_id=hold_id, account_id=account_id))
    assert await doors.money() == money


@pytest.mark.parametrize("granted_s", [0, 2**32 - 1])
async def test_whatever_an_edge_says_it_was_granted_a_call_holds_what_it_has_time_for(
    doors: Doors, granted_s: int
) -> None:
    request = extend(
        hold_id=str(doors.running), account_id=str(doors.account_id), granted_s=granted_s,
        answered_at_s=doors.site.clock.unix_s() + 10**6,
    )  # fmt: skip
    reply = await doors.ask("Extend", request)
    balance, held, _ = await doors.money()
    assert 0 < reply.extended.granted_s <= 86_400
    assert 0 < held <= balance
    await doors.site.audit()


@pytest.mark.parametrize("field", ["hold_id", "account_id", "reason", "trunk", "answered_at_s", "ended_at_s"])
async def test_an_end_that_makes_no_sense_is_refused_and_the_call_runs_on(doors: Doors, field: str) -> None:
    money, counts = await doors.money(), await doors.counts()
    bad: dict[str, Any] = {field: FAR_S if field.endswith("_s") else NUL}
    event = events_pb2.CallEnded(**({"hold_id": str(doors.running), "account_id": str(doors.account_id)} | bad))
    with pytest.raises(Invalid) as raised:
        await doors.events.call(delivered(event))
    assert raised.value.field == field
    assert (await doors.money(), await doors.counts()) == (money, counts)


@pytest.mark.parametrize(
    ("answered_ago_s", "ended_ago_s"), [(-5_000, -6_000), (10, 20), (10 * 366 * 86_400, 0), (5_000, -5_000)]
)
async def test_an_end_by_a_clock_gone_wrong_charges_no_more_than_was_held(
    doors: Doors, answered_ago_s: float, ended_ago_s: float
) -> None:
    before, unix_s = await doors.money(), doors.site.clock.unix_s()
    event = events_pb2.CallEnded(
        hold_id=str(doors.running), account_id=str(doors.account_id), reason="caller-bye", sip_status=2**32 - 1,
        answered_at_s=unix_s - answered_ago_s, ended_at_s=unix_s - ended_ago_s,
    )  # fmt: skip
    await doors.events.call(delivered(event))
    balance, held, _ = await doors.money()
    assert held == 0
    assert before[0] - before[1] <= balance <= before[0]
    (call, _) = await doors.site.history.list(doors.account_id, 0.0, 10, running=False)
    assert call.ended_at_s <= unix_s
    assert call.duration_s <= 366 * 86_400
    await doors.site.audit()


async def test_an_end_told_for_another_account_ends_nothing(doors: Doors) -> None:
    money, counts = await doors.money(), await doors.counts()
    event = events_pb2.CallEnded(hold_id=str(doors.running), account_id=ID, reason="caller-bye", ended_at_s=1.0)
    await doors.events.call(delivered(event))
    assert (await doors.money(), await doors.counts()) == (money, counts)


def delivered(event: events_pb2.CallEnded) -> Delivery:
    return Delivery("calls.ended", event.SerializeToString(), str(uuid.uuid4()), 1, 1)


_TEXTS = ("realm", "name", "currency", "time_zone", "deck", "parent", "country", "email", "phone")


@given(st.dictionaries(st.sampled_from(_TEXTS), st.text(max_size=80)))
def test_an_account_of_any_texts_is_clean_or_refused_by_field(texts: dict[str, str]) -> None:
    values: dict[str, Any] = {
        "realm": "example.org", "name": "bob", "type": "enduser", "status": "", "currency": "EUR", "time_zone": "UTC",
        "prepaid": True, "deck": "",
    }  # fmt: skip
    try:
        new = check_account(values | texts)
        changes: dict[str, Any] = {name: text for name, text in texts.items() if name not in ("realm", "name")}
        change = check_change(changes)
    except Invalid as error:
        assert error.field
        return
    for checked in ({name: getattr(new, name) for name in _TEXTS}, change.values):
        for text in (checked.get(name) or "" for name in _TEXTS):
            assert text.isascii()
            assert text.isprintable()


# ------------------------------------------------------------------ ceilings


@pytest.mark.setting("licensecfg")
@pytest.mark.parametrize("limits", [Limits(system=7), Limits(realm=7), Limits(system=9, realm=7)])
async def test_of_many_accounts_created_at_once_exactly_as_many_are_as_the_ceiling_allows(
    database_url: str, fake_clock: FakeClock, limits: Limits
) -> None:
    # Two connections a process: who waits must not keep the one that whose turn it is needs.
    async with Database(database_url, connections_max=2) as one, Database(database_url, connections_max=2) as other:
        sides = [administration_on(database, fake_clock, limits=limits) for database in (one, other)]
        outcomes = await asyncio.gather(
            *(insist(sides[n % 2].accounts.create, account(name=f"a{n}", numbers=())) for n in range(16))
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exhausted)]
        assert len(refused) == 9
        assert {error.field for error in refused} <= {"spec.system.maxAccounts", "spec.system.perRealm.maxAccounts"}
        assert len(await sides[0].accounts.list("", 100)) == 7
        if limits.system is None or limits.system > 7:
            await sides[0].accounts.create(account(name="a", realm="other.org", numbers=()))


@pytest.mark.setting("licensecfg")
async def test_imports_and_creations_at_once_come_to_no_more_than_the_ceiling_and_imports_are_whole(
    database_url: str, fake_clock: FakeClock
) -> None:
    limits = Limits(system=20)
    async with Database(database_url, connections_max=3) as one, Database(database_url, connections_max=3) as other:
        sides = [administration_on(database, fake_clock, limits=limits) for database in (one, other)]
        files = [
            "name,type,parent\n" + f"r{file},reseller,\n" + "".join(f"i{file}-{n},enduser,r{file}\n" for n in range(7))
            for file in range(4)
        ]
        requests = [ImportRequest(text.encode(), "example.org", "EUR", False, False) for text in files]
        outcomes = await asyncio.gather(
            *(insist(sides[n % 2].accounts.import_, request) for n, request in enumerate(requests)),
            *(insist(sides[n % 2].accounts.create, account(name=f"a{n}", numbers=())) for n in range(6)),
        )
        assert [outcome.errors for outcome in outcomes if isinstance(outcome, Imported) and outcome.errors] == []
        names = {view.account.name for view in await sides[0].accounts.list("", 100)}
        assert len(names) <= 20
        for file in range(4):
            assert len({name for name in names if name.startswith((f"i{file}-", f"r{file}"))}) in (0, 8)
        # As many as fit: another file doesn't, and single ones do up to the last.
        assert len(names) > 12
        for n in range(20 - len(names)):
            await sides[0].accounts.create(account(name=f"z{n}", numbers=()))
        with pytest.raises(Exhausted):
            await sides[1].accounts.create(account(name="one-more", numbers=()))


async def insist(ask: Any, what: Any) -> Any:
    """The answer, or Exhausted; asked again while others come between too often."""
    while True:
        try:
            return await ask(what)
        except Exhausted as error:
            return error
        except Conflict:
            await asyncio.sleep(0.01)


@pytest.mark.setting("licensecfg")
async def test_who_knows_of_no_ceiling_takes_no_turns(database_url: str, fake_clock: FakeClock) -> None:
    async with Database(database_url) as database:
        accounts = SqlAccounts(database)
        await accounts.create(UUID(int=1), account(), PolicyCeilings(Limits()))
        assert len(await accounts.list("", 10, fake_clock.unix_s(), AccountFilter())) == 1
        async with database.engine.connect() as connection:
            counters = select(func.count()).select_from(metadata.tables["counter"])
            assert (await connection.execute(counters)).scalar_one() == 0
