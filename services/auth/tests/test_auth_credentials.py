"""The contract of ports.CredentialStore, over the database and over the one in memory that the other tests stand on."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import insert, update

from callwarden.auth.adapters.credentials_memory import MemoryCredentialStore
from callwarden.auth.adapters.credentials_sql import SqlCredentialStore
from callwarden.auth.core.digest import ha1s_of
from callwarden.auth.core.numbers import is_digits
from callwarden.auth.core.sealing import SALT_BYTES, Sealed, SealingKeys
from callwarden.auth.core.trunks import AuthTrunk
from callwarden.auth.core.users import AuthAccount, UserKey
from callwarden.auth.ports import CredentialStore
from callwarden.common.sql import Database
from callwarden.kernel.errors import Conflict, NotFound, Unavailable
from callwarden.schema import tables
from callwarden.testing.servers import as_owner

REALM = "sip.example"
KEYS = SealingKeys("11" * 32)


class CredentialWorld(Protocol):
    """The accounts, and how a test furnishes them."""

    accounts: CredentialStore

    async def add_account(self, kind: str = "enduser", numbers: tuple[str, ...] = ()) -> AuthAccount: ...

    async def disable(self, account: AuthAccount) -> None: ...

    async def add_trunk(self, trunk: AuthTrunk) -> None: ...


class MemoryCredentialWorld:
    def __init__(self) -> None:
        self.memory = MemoryCredentialStore()
        self.accounts: CredentialStore = self.memory

    async def add_account(self, kind: str = "enduser", numbers: tuple[str, ...] = ()) -> AuthAccount:
        account = AuthAccount(str(uuid4()), kind, True, numbers)
        self.memory.accounts[account.id] = REALM, account
        return account

    async def disable(self, account: AuthAccount) -> None:
        self.memory.accounts[account.id] = REALM, AuthAccount(account.id, account.kind, False, account.numbers)

    async def add_trunk(self, trunk: AuthTrunk) -> None:
        self.memory.trunks.append(trunk)


class SqlCredentialWorld:
    def __init__(self, owner: Database, accounts: SqlCredentialStore) -> None:
        """`owner` is the database as its tables' owner."""
        self.owner = owner
        self.accounts: CredentialStore = accounts

    async def add_account(self, kind: str = "enduser", numbers: tuple[str, ...] = ()) -> AuthAccount:
        id_ = uuid4()
        account = {"id": id_, "realm": REALM, "name": str(id_), "type": kind, "currency": "EUR", "prepaid": False}
        await self.execute(insert(tables.account).values(account))
        for number in numbers:
            row = {"number": number.removeprefix("+"), "account_id": id_}
            await self.execute(insert(tables.account_number).values(row))
        return AuthAccount(str(id_), kind, True, numbers)

    async def disable(self, account: AuthAccount) -> None:
        which = tables.account.c.id == UUID(account.id)
        await self.execute(update(tables.account).where(which).values(status="disabled"))

    async def add_trunk(self, trunk: AuthTrunk, enabled: bool = True) -> None:
        row = {
            "name": trunk.name,
            "direction": "traffic-sender" if trunk.is_sender else "carrier",
            "add_prefix": trunk.add_prefix,
            "strip_digits": trunk.strip_digits,
            "account_id": UUID(trunk.account.id),
            "address": trunk.address,
            "tech_prefix": trunk.tech_prefix,
            "enabled": enabled,
        }
        await self.execute(insert(tables.trunk).values(row))

    async def execute(self, statement: Any) -> None:
        async def work(connection: Any) -> None:
            await connection.execute(statement)

        await self.owner.transaction("furnish", work)


@asynccontextmanager
async def sql_world_at(url: str) -> AsyncIterator[SqlCredentialWorld]:
    async with Database(url) as database, await database.hot(connections=2) as hot, Database(as_owner(url)) as owner:
        yield SqlCredentialWorld(owner, SqlCredentialStore(database, hot))


@pytest_asyncio.fixture
async def sql_world(database_url: str) -> AsyncIterator[SqlCredentialWorld]:
    async with sql_world_at(database_url) as world:
        yield world


@pytest_asyncio.fixture(params=["memory", pytest.param("sql", marks=[pytest.mark.integration, pytest.mark.database])])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[CredentialWorld]:
    if request.param == "memory":
        yield MemoryCredentialWorld()
        return
    async with sql_world_at(request.getfixturevalue("database_url")) as world:
        yield world


def sealed(user: UserKey, password: str = "correct horse", keys: SealingKeys = KEYS) -> Sealed:
    return keys.seal(user, ha1s_of(user, password), os.urandom(SALT_BYTES))


def user(name: str) -> UserKey:
    return UserKey(REALM, name)


async def test_those_who_exist_are_found_with_their_account(world: CredentialWorld) -> None:
    alice, bob = await world.add_account(numbers=("+49301234", "+49305678")), await world.add_account("traffic-sender")
    seals = {user("alice"): sealed(user("alice")), user("bob"): sealed(user("bob"))}
    await world.accounts.set_credential(alice.id, user("alice"), seals[user("alice")])
    await world.accounts.set_credential(bob.id, user("bob"), seals[user("bob")])
    found = await world.accounts.look_up(
        [user("alice"), user("nobody"), user("bob"), UserKey("other.example", "alice"), user("'; --"), user("日本")]
    )
    assert set(found) == {user("alice"), user("bob")}
    assert found[user("alice")].account == alice
    assert found[user("bob")].account == bob
    assert {key: stored.sealed for key, stored in found.items()} == seals
    assert KEYS.open(user("alice"), found[user("alice")].sealed) == ha1s_of(user("alice"), "correct horse")


async def test_nobody_is_found_among_nobody(world: CredentialWorld) -> None:
    assert await world.accounts.look_up([]) == {}


async def test_an_account_is_found_as_it_is_now(world: CredentialWorld) -> None:
    account = await world.add_account()
    await world.accounts.set_credential(account.id, user("alice"), sealed(user("alice")))
    await world.disable(account)
    found = await world.accounts.look_up([user("alice")])
    assert not found[user("alice")].account.active


async def test_a_credential_is_replaced(world: CredentialWorld) -> None:
    account, again = await world.add_account(), sealed(user("alice"), "battery staple")
    await world.accounts.set_credential(account.id, user("alice"), sealed(user("alice")))
    await world.accounts.set_credential(account.id, user("alice"), again)
    assert (await world.accounts.look_up([user("alice")]))[user("alice")].sealed == again


async def test_another_accounts_user_name_is_not_taken_over(world: CredentialWorld) -> None:
    owner, thief, own = await world.add_account(), await world.add_account(), sealed(user("alice"))
    await world.accounts.set_credential(owner.id, user("alice"), own)
    with pytest.raises(Conflict):
        await world.accounts.set_credential(thief.id, user("alice"), sealed(user("alice"), "battery staple"))
    found = (await world.accounts.look_up([user("alice")]))[user("alice")]
    assert (found.sealed, found.account.id) == (own, owner.id)


@pytest.mark.parametrize("account_id", ["0b5cf1d8-5f0f-4f5b-9f7e-3b1f6a1d2c3e", "no uuid", ""])
async def test_an_account_that_is_not_there_is_said_to_be_not_there(world: CredentialWorld, account_id: str) -> None:
    with pytest.raises(NotFound):
        await world.accounts.set_credential(account_id, user("alice"), sealed(user("alice")))
    with pytest.raises(NotFound):
        await world.accounts.realm_of(account_id)
    assert await world.accounts.look_up([user("alice")]) == {}


async def test_an_account_has_its_realm(world: CredentialWorld) -> None:
    assert await world.accounts.realm_of((await world.add_account()).id) == REALM


async def test_what_is_removed_is_gone_and_whose_it_was_is_known(world: CredentialWorld) -> None:
    account = await world.add_account()
    await world.accounts.set_credential(account.id, user("alice"), sealed(user("alice")))
    assert await world.accounts.remove_credential(user("alice")) == account.id
    assert await world.accounts.remove_credential(user("alice")) is None
    assert await world.accounts.look_up([user("alice")]) == {}


async def test_credentials_under_another_key_are_found_page_by_page_in_order(world: CredentialWorld) -> None:
    account, new_keys = await world.add_account(), SealingKeys("22" * 32)
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        keys = new_keys if name == "c" else KEYS
        await world.accounts.set_credential(account.id, user(name), sealed(user(name), keys=keys))
    pages, after = [], UserKey("", "")
    while page := await world.accounts.sealed_otherwise(new_keys.current_id, after, 3):
        pages.append([key.username for key in page])
        after = list(page)[-1]
    assert pages == [["a", "b", "d"], ["e"]]


async def test_a_seal_is_replaced_only_where_the_old_one_still_stands(world: CredentialWorld) -> None:
    account, first, second = await world.add_account(), sealed(user("alice")), sealed(user("alice"))
    third = sealed(user("alice"), keys=SealingKeys("22" * 32))
    await world.accounts.set_credential(account.id, user("alice"), first)
    assert await world.accounts.replace_seal(user("alice"), first, second)
    assert not await world.accounts.replace_seal(user("alice"), first, third)
    assert not await world.accounts.replace_seal(user("nobody"), first, third)
    assert (await world.accounts.look_up([user("alice")]))[user("alice")].sealed == second


async def test_enabled_trunks_come_with_their_accounts(world: CredentialWorld) -> None:
    account = await world.add_account("traffic-sender", numbers=("+49301234",))
    trunks = [
        AuthTrunk("a", "192.0.2.7", "77", account),
        AuthTrunk("b", "192.0.2.0/24", "", account),
        AuthTrunk("out", "carrier.example:5060", "", account, is_sender=False, add_prefix="00", strip_digits=2),
    ]
    for trunk in trunks:
        await world.add_trunk(trunk)
    assert await world.accounts.enabled_trunks() == trunks


@pytest.mark.integration
async def test_disabled_trunks_are_none(sql_world: SqlCredentialWorld) -> None:
    account = await sql_world.add_account("carrier")
    await sql_world.add_trunk(AuthTrunk("off", "192.0.2.8", "", account), enabled=False)
    assert await sql_world.accounts.enabled_trunks() == []


@pytest.mark.cases
async def test_numbers_come_in_pages_and_by_name_with_their_owners(world: CredentialWorld) -> None:
    alice, bob = (
        await world.add_account(numbers=("+49301234", "+4930123456")),
        await world.add_account(numbers=("+12",)),
    )
    rows = [("12", UUID(bob.id)), ("49301234", UUID(alice.id)), ("4930123456", UUID(alice.id))]
    assert await world.accounts.numbers("", 10) == rows
    assert await world.accounts.numbers("12", 1) == rows[1:2]
    assert await world.accounts.numbers("4930123456", 10) == []
    assert await world.accounts.owners(["12", "4930123456", "49"]) == {"12": UUID(bob.id), "4930123456": UUID(alice.id)}


async def test_users_whose_names_are_of_digits_are_read_in_order_and_by_name(world: CredentialWorld) -> None:
    account_id = (await world.add_account()).id
    names = ("101", "alice", "1" * 15, "1" * 16, "99", "+101")
    for name in names:
        await world.accounts.set_credential(account_id, UserKey(REALM, name), sealed(UserKey(REALM, name)))
    users = [UserKey(REALM, name) for name in sorted(name for name in names if is_digits(name))]
    owner = UUID(account_id)
    assert await world.accounts.users_of_digits(UserKey("", ""), 10) == [(user, owner) for user in users]
    assert await world.accounts.users_of_digits(users[0], 1) == [(users[1], owner)]
    assert await world.accounts.users_of_digits(users[-1], 10) == []
    known = UserKey(REALM, "101")
    assert await world.accounts.accounts_of([known, UserKey("other.example", "101")]) == {known: owner}


@pytest.mark.integration
@pytest.mark.setting("securepasswords")
async def test_nothing_in_the_database_holds_the_password_or_what_is_as_good(sql_world: SqlCredentialWorld) -> None:
    account, alice = await sql_world.add_account(), user("alice")
    await sql_world.accounts.set_credential(account.id, alice, sealed(alice))

    async def everything(connection: Any) -> bytes:
        rows = []
        for table in tables.metadata.sorted_tables:
            rows += [repr(tuple(row)) for row in await connection.execute(table.select())]
        return "\n".join(rows).encode()

    stored = await sql_world.owner.transaction("dump", everything)
    ha1s = ha1s_of(alice, "correct horse")
    assert b"alice" in stored
    for secret in (b"correct horse", ha1s.md5.encode(), ha1s.sha256.encode(), ha1s.sha512_256.encode()):
        assert secret not in stored
        assert repr(bytes.fromhex(secret.decode()) if len(secret) >= 32 else secret).encode()[2:-1] not in stored


@pytest.mark.integration
async def test_a_database_that_is_away_is_unavailable(database_url: str) -> None:
    async with Database(database_url) as database, await database.hot(connections=1) as hot:
        accounts = SqlCredentialStore(database, hot)
        await hot.aclose()
        with pytest.raises(Unavailable):
            await accounts.look_up([user("alice")])
