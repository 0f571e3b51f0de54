"""Accounts and trunks are taken whole or refused with the field named; what is known of calls is shown."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from admission_admin import Administration, Heard, account, administration_on, change, trunk

from callwarden.call_admission.accounts.app.account_import import Imported, ImportRequest
from callwarden.call_admission.accounts.core.accounts import AccountChange, AccountFilter, AccountRef
from callwarden.call_admission.accounts.core.checks import page_size
from callwarden.common.sql import Database
from callwarden.kernel.errors import CallwardenError, Conflict, Invalid, NotFound
from callwarden.testing import databases
from callwarden.testing.clock import FakeClock
from callwarden.testing.servers import as_owner

# ------------------------------------------------------------------ at the door


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a" * 65),
        ("name", "a b"),
        ("name", "a@b"),
        ("name", str(uuid.UUID(int=1))),
        ("realm", ""),
        ("realm", "a b"),
        ("type", "administrator"),
        ("status", "asleep"),
        ("currency", "euro"),
        ("time_zone", "Mars/Olympus"),
        ("deck", "a deck"),
        ("max_lines", 1_000_001),
        ("daily_micros", -1),
        ("numbers", ("12a",)),
        ("numbers", ("0",)),
    ],
)
def test_what_is_wrong_with_an_account_is_named(field: str, value: object) -> None:
    with pytest.raises(Invalid) as raised:
        account(**{field: value})
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"),
        ("address", "192.0.2.10"),
        ("address", "192.0.2.10:0"),
        ("address", "192.0.2.10:65536"),
        ("address", "a b:5060"),
        ("direction", "enduser"),
        ("account", ""),
        ("tech_prefix", "12a"),
        ("strip_digits", 16),
        ("add_prefix", "+49"),
    ],
)
def test_what_is_wrong_with_a_trunk_is_named(field: str, value: object) -> None:
    with pytest.raises(Invalid) as raised:
        trunk(**{field: value})
    assert raised.value.field == field


@pytest.mark.parametrize("address", ["[2001:db8::1]:5060", "sip.example.org:5061"])
def test_a_trunk_may_be_a_name_or_an_ipv6_address(address: str) -> None:
    assert trunk(address=address).address == address


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("clear", {"clear": ("everything",)}),
        ("max_lines", {"clear": ("max_lines",), "max_lines": 3}),
        ("status", {"status": ""}),
        ("add_numbers", {"add_numbers": ("x",)}),
    ],
)
def test_what_is_wrong_with_a_change_is_named(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as raised:
        change(**changes)
    assert raised.value.field == field


def test_numbers_are_brought_to_e164_and_kept_once() -> None:
    assert account(numbers=("+49 30 1234", "0049301234", "4930-5678")).numbers == ("49301234", "49305678")


@pytest.mark.parametrize("text", ["alice", "alice@example.org", "alice@EXAMPLE.org", str(uuid.UUID(int=5))])
def test_an_account_is_named_by_id_name_or_name_and_realm(text: str) -> None:
    assert str(AccountRef.parse(text)) == text.lower()


@pytest.mark.parametrize("text", ["", "a b", "@example.org", "alice@a b", "alice'; DROP TABLE account; --"])
def test_other_ways_to_name_an_account_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        AccountRef.parse(text)


def test_pages_are_bounded() -> None:
    assert page_size(0) == 100
    with pytest.raises(Invalid):
        page_size(1_001)


# ------------------------------------------------------------------ administration on a database


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as opened:
        yield opened


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def admin(database: Database, heard: Heard, fake_clock: FakeClock) -> Administration:
    return administration_on(database, fake_clock, heard)


async def test_what_was_created_is_shown(admin: Administration, heard: Heard) -> None:
    made = await admin.accounts.create(account(daily_micros=7))
    for ref in ("alice", "alice@example.org", str(made.id)):
        found = await admin.accounts.get(AccountRef.parse(ref))
        assert found == made
    assert (made.account, made.balance_micros, made.lines_in_use) == (account(daily_micros=7), 0, 0)
    assert heard.news == [(made.id, "numbers")]


@pytest.mark.parametrize(
    ("second", "field"),
    [({"numbers": ()}, "name"), ({"name": "bob"}, "numbers"), ({"name": "bob", "realm": "other.org"}, "numbers")],
)
async def test_what_is_taken_is_named_and_nothing_is_written(
    admin: Administration, second: dict[str, Any], field: str
) -> None:
    await admin.accounts.create(account())
    with pytest.raises(Conflict) as raised:
        await admin.accounts.create(account(**({"numbers": ("49301234", "49309999")} | second)))
    assert raised.value.field == field
    assert [view.account.name for view in await admin.accounts.list("", 10)] == ["alice"]


async def test_a_name_in_two_realms_must_be_said_with_its_realm(admin: Administration) -> None:
    await admin.accounts.create(account())
    await admin.accounts.create(account(realm="other.org", numbers=()))
    with pytest.raises(Conflict):
        await admin.accounts.get(AccountRef.parse("alice"))
    assert (await admin.accounts.get(AccountRef.parse("alice@other.org"))).account.realm == "other.org"


async def test_accounts_are_listed_page_by_page(admin: Administration) -> None:
    for name in ("c", "a", "b"):
        await admin.accounts.create(account(name=name, numbers=()))
    await admin.accounts.create(account(name="b", realm="zzz.org", numbers=()))
    first = await admin.accounts.list("", 2)
    assert [view.account.name for view in first] == ["a", "b"]
    rest = await admin.accounts.list(f"b@{first[-1].account.realm}", 2)
    assert [(view.account.name, view.account.realm) for view in rest] == [("b", "zzz.org"), ("c", "example.org")]


async def test_only_what_is_named_changes(admin: Administration, heard: Heard) -> None:
    made = await admin.accounts.create(account(daily_micros=7))
    heard.news.clear()
    ref = AccountRef.parse("alice")
    changed = await admin.accounts.update(ref, change(max_lines=2, status="disabled"))
    assert changed.account == replace(made.account, max_lines=2, active=False)
    assert [what for _, what in heard.news] == ["status", "limits"]
    cleared = await admin.accounts.update(ref, change(clear=("max_lines", "daily_micros"), deck="other"))
    assert (cleared.account.max_lines, cleared.account.daily_micros, cleared.account.deck) == (None, None, "other")


async def test_numbers_come_and_go_whole(admin: Administration, heard: Heard) -> None:
    await admin.accounts.create(account())
    await admin.accounts.create(account(name="bob", numbers=("4940",)))
    ref = AccountRef.parse("alice")
    changed = await admin.accounts.update(ref, change(add_numbers=("4950", "49301234"), remove_numbers=()))
    assert changed.account.numbers == ("49301234", "4950")
    changed = await admin.accounts.update(ref, change(add_numbers=("4960",), remove_numbers=("4950",)))
    assert changed.account.numbers == ("49301234", "4960")
    bad: Sequence[tuple[AccountChange, type[CallwardenError]]] = (
        (change(add_numbers=("4970", "4940"), max_lines=1), Conflict),
        (change(remove_numbers=("4960", "4940"), max_lines=1), Invalid),
    )
    for wrong, error in bad:
        with pytest.raises(error) as raised:
            await admin.accounts.update(ref, wrong)
        assert raised.value.field in ("numbers", "remove_numbers")
        assert await admin.accounts.get(ref) == changed
    # Who knows numbers is told which were given or taken, by each change that was made.
    assert heard.numbers[1:] == [("4940",), ("4950", "49301234"), ("4960", "4950")]


async def test_what_is_not_there_is_not_found(admin: Administration) -> None:
    for ref in ("nobody", str(uuid.uuid4())):
        with pytest.raises(NotFound):
            await admin.accounts.get(AccountRef.parse(ref))
        with pytest.raises(NotFound):
            await admin.accounts.update(AccountRef.parse(ref), change(max_lines=1))


async def test_a_file_may_make_a_reseller_and_accounts_that_belong_to_it(admin: Administration) -> None:
    lines = "".join(
        f"reseller-{n},reseller,\nfirst-{n},enduser,reseller-{n}\nsecond-{n},enduser,reseller-{n}\n" for n in (1, 2)
    )
    wish = ImportRequest(f"name,type,parent\n{lines}".encode(), "example.org", "EUR", dry_run=False, keep_going=False)
    done = await admin.accounts.import_(wish)
    assert (done.created, done.errors) == (6, ())
    parents = {view.account.name: view.account.parent for view in await admin.accounts.list("", 10)}
    assert (parents["second-1"], parents["first-2"]) == ("reseller-1", "reseller-2")
    early = ImportRequest(
        b"name,type,parent\nlate,enduser,reseller-3\nreseller-3,reseller,\n", "example.org", "EUR", False, False
    )
    (error,) = (await admin.accounts.import_(early)).errors
    assert (error.line, error.field) == (2, "parent")


async def test_trunks_belong_to_accounts_of_their_kind(admin: Administration, heard: Heard) -> None:
    await admin.accounts.create(account())
    carrier = await admin.accounts.create(account(name="carrier-account", type="carrier", prepaid=False, numbers=()))
    heard.news.clear()
    made = await admin.trunks.create(trunk())
    assert await admin.trunks.list() == [made]
    assert heard.news == [(carrier.id, "trunk")]
    with pytest.raises(Conflict):
        await admin.trunks.create(trunk())
    with pytest.raises(Invalid) as raised:
        await admin.trunks.create(trunk(name="other", account="alice"))
    assert raised.value.field == "account"
    with pytest.raises(NotFound):
        await admin.trunks.create(trunk(name="other", account="nobody"))
    assert await admin.trunks.delete("berlin")
    assert not await admin.trunks.delete("berlin")
    assert await admin.trunks.list() == []


async def test_a_trunk_that_routes_lead_to_stays(admin: Administration, database_url: str) -> None:
    await admin.accounts.create(account(name="carrier-account", type="carrier", prepaid=False, numbers=()))
    await admin.trunks.create(trunk())
    connection = await databases.connect(as_owner(database_url))
    await connection.execute("INSERT INTO route (prefix, trunk) VALUES ('49', 'berlin')")
    await connection.close()
    with pytest.raises(Conflict) as raised:
        await admin.trunks.delete("berlin")
    assert "+49" in raised.value.message


async def test_an_account_whose_books_are_wrong_is_named(admin: Administration, database_url: str) -> None:
    made = await admin.accounts.create(account())
    await admin.accounts.create(account(name="bob", numbers=()))
    connection = await databases.connect(database_url)
    await connection.execute("UPDATE account SET balance_micros = 5 WHERE id = $1", made.id)
    await connection.close()
    audit = await admin.records.audit(None)
    assert (audit.accounts, audit.balance_sum_micros, audit.ledger_sum_micros) == (2, 5, 0)
    assert audit.mismatched == ("alice",)
    assert (await admin.records.audit(AccountRef.parse("bob"))).mismatched == ()


async def test_nothing_is_known_of_a_call_that_never_was(admin: Administration) -> None:
    explained = await admin.records.explain("never")
    assert (explained.decisions, explained.call) == ((), None)


# ------------------------------------------------------------------ many accounts


EXAMPLE = Path(__file__).parents[3] / "deploy/examples/accounts.csv"


async def take(admin: Administration, content: str, *, dry_run: bool = False, keep_going: bool = False) -> Imported:
    return await admin.accounts.import_(ImportRequest(content.encode(), "south.example", "EUR", dry_run, keep_going))


async def test_the_example_of_many_accounts_is_taken_and_given_back(admin: Administration) -> None:
    content = EXAMPLE.read_text()
    assert await take(admin, content, dry_run=True) == Imported(4, (), 0)
    assert await take(admin, content) == Imported(4, (), 0)
    nora = (await admin.accounts.get(AccountRef(None, "nora", "south.example"))).account
    assert (nora.parent, nora.deck, nora.limits["talk_day_s"], nora.limits["daily_micros"]) == (
        "north", "", 5_400, 5_000_000
    )  # fmt: skip
    wanted = AccountFilter(realm="south.example")
    given = "".join([part async for part in admin.accounts.export(wanted)])
    assert "north" in given.splitlines()[1], "a reseller stands before its accounts"
    for line in ("south.example", "49301234567"):
        assert line in given
    # Elsewhere it makes the same accounts.
    there = given.replace("south.example", "west.example").replace("4930123456", "4420794601")
    assert await take(admin, there) == Imported(4, (), 0)
    again = "".join([part async for part in admin.accounts.export(AccountFilter(realm="west.example"))])
    assert again == there


async def test_an_account_comes_after_its_reseller_and_a_wrong_one_has_none(admin: Administration) -> None:
    head = "name,type,parent,lines\n"
    before = await take(admin, f"{head}nora,,north,\nnorth,reseller,,\n")
    assert [(error.line, error.field) for error in before.errors] == [(2, "parent")]
    await take(admin, f"{head}north,reseller,,\n")
    # The one in the file is refused, the one that there is already bears the account.
    taken = await take(
        admin, f"{head}north,reseller,,\nnora,,north,\nwest,reseller,,many\nnele,,west,\n", keep_going=True
    )
    assert [(error.line, error.field) for error in sorted(taken.errors, key=lambda error: error.line)] == [
        (2, "name"), (4, "lines"), (5, "parent")
    ]  # fmt: skip
    assert taken.created == 1
