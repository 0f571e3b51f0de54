"""Verdicts, the cache, and changes; over accounts in memory, which pass the same contract as the database."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any
from uuid import uuid4

import pytest
from auth_rig import KEY, NEW_KEY, PASSWORD, REALM, AuthUnderTest, answer, following, request

from callwarden.api.auth.v1 import auth_pb2
from callwarden.auth.adapters.credentials_memory import MemoryCredentialStore
from callwarden.auth.adapters.grpc_server import AuthServicer
from callwarden.auth.app import LOOK_UPS_MAX, REFUSAL_S, WAITING_MAX, Auth
from callwarden.auth.core.cache import ABSENT_TTL_S, KNOWN_TTL_S
from callwarden.auth.core.digest import ha1s_of
from callwarden.auth.core.sealing import SALT_BYTES, SealingKeys
from callwarden.auth.core.trunks import AuthTrunk
from callwarden.auth.core.users import AuthAccount, AuthIdentity, UserKey
from callwarden.auth.ports import AuthAccountChange
from callwarden.kernel.errors import Conflict, Exhausted, Internal, Invalid, NotFound, Unavailable
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import PolicySet
from callwarden.sip.digest import Algorithm


@pytest.mark.parametrize("algorithm", [*Algorithm, None])
async def test_who_knows_the_password_is_told_who_he_is(algorithm: Algorithm | None) -> None:
    rig = AuthUnderTest()
    account_id = await rig.user(numbers=("+49301234",))
    verdict = await rig.auth.verify(answer(algorithm=algorithm))
    assert isinstance(verdict, AuthIdentity)
    assert (verdict.account.id, verdict.account.kind) == (account_id, "enduser")
    assert verdict.account.numbers == ("+49301234",)
    assert verdict.ttl_s == KNOWN_TTL_S


async def test_a_wrong_password_and_an_unknown_user_are_refused() -> None:
    rig = AuthUnderTest()
    await rig.user()
    assert await rig.auth.verify(answer(password="wrong horse")) is Reason.CREDENTIALS
    assert await rig.auth.verify(answer("nobody")) is Reason.CREDENTIALS
    assert await rig.auth.verify(answer("no:body")) is Reason.CREDENTIALS


async def test_a_disabled_account_is_told_so_only_by_who_knows_its_password() -> None:
    rig = AuthUnderTest()
    await rig.user(active=False)
    assert await rig.auth.verify(answer(password="wrong horse")) is Reason.CREDENTIALS
    assert await rig.auth.verify(answer()) is Reason.ACCOUNT_DISABLED


@pytest.mark.setting("useshadigestauh")
@pytest.mark.parametrize(
    ("setting", "good"),
    [(0, {Algorithm.MD5, None}), (1, {*Algorithm, None}), (2, {Algorithm.SHA_256, Algorithm.SHA_512_256})],
)
async def test_an_answer_by_an_algorithm_that_the_policy_excludes_is_refused(
    setting: int, good: set[Algorithm | None]
) -> None:
    rig = AuthUnderTest({"authentication": {"digest": {"algorithms": setting}}})
    await rig.user()
    for algorithm in (*Algorithm, None):
        verdict = await rig.auth.verify(answer(algorithm=algorithm))
        assert isinstance(verdict, AuthIdentity) == (algorithm in good)


HASHING = {"decrypt", "hexdigest", "openssl_md5", "openssl_sha256", "new", "compare_digest"}


@contextmanager
def the_work() -> Iterator[list[str]]:
    """Every function that is entered, in order: ours, and what hashes, decrypts and compares. Not the making of values
    of the row that is there or isn't (adapters and ports): reading it is what a query is for.
    """
    calls: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            if module.startswith(("callwarden.auth.app", "callwarden.auth.core", "callwarden.sip")):
                calls.append(f"{module}.{frame.f_code.co_name}")
        elif event == "c_call" and argument.__name__ in HASHING:
            calls.append(argument.__name__)

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def test_unknown_user_and_wrong_password_take_the_same_work_from_the_cache() -> None:
    rig = AuthUnderTest()
    await rig.user()
    wrong, unknown = answer(password="wrong horse"), answer("carol")
    for each in (wrong, unknown):
        assert await rig.auth.verify(each) is Reason.CREDENTIALS  # Now both are in the cache.
    with the_work() as of_wrong:
        rig.auth.verify_now(wrong)
    with the_work() as of_unknown:
        rig.auth.verify_now(unknown)
    assert of_wrong == of_unknown
    assert [call for call in of_wrong if call in HASHING].count("hexdigest") == 2
    assert "compare_digest" in of_wrong


async def test_unknown_user_and_wrong_password_take_the_same_work_from_the_database() -> None:
    rig = AuthUnderTest()
    await rig.user()
    works = []
    for each in (answer(password="wrong horse"), answer("carol")):
        rig.accounts.asked.clear()
        with the_work() as work:
            assert await rig.auth.verify(each) is Reason.CREDENTIALS
        assert len(rig.accounts.asked) == 1
        works.append(work)
    assert works[0] == works[1]
    assert "decrypt" in works[0]
    assert "callwarden.auth.core.cache.put" in works[0]


async def test_the_answers_to_unknown_user_wrong_password_and_wrong_algorithm_are_the_same_bytes() -> None:
    rig = AuthUnderTest({"authentication": {"digest": {"algorithms": 2}}})
    await rig.user()
    grpc = AuthServicer(rig.auth)
    md5 = request()
    md5.algorithm = "MD5"
    replies = [
        await grpc.Verify(each, None)
        for each in (request(password="wrong horse"), request("nobody"), request("x" * 500), request("a:b"), md5)
    ]
    assert len({reply.SerializeToString() for reply in replies}) == 1
    assert replies[0].rejected.reason == "credentials"
    assert (await grpc.Verify(request(), None)).WhichOneof("verdict") == "identity"


async def test_a_user_is_looked_up_once_and_then_known() -> None:
    rig = AuthUnderTest()
    await rig.user()
    for _ in range(5):
        assert isinstance(await rig.auth.verify(answer()), AuthIdentity)
    assert len(rig.accounts.asked) == 1
    assert (rig.auth.stats.hits, rig.auth.stats.misses) == (4, 1)


async def test_names_that_nobody_can_have_are_not_looked_up() -> None:
    rig = AuthUnderTest()
    for name in ("", "a:b", "nul\0", "x" * 1_000):
        assert await rig.auth.verify(answer(name)) is Reason.CREDENTIALS
    assert rig.accounts.asked == []


async def test_an_unknown_user_is_looked_up_once_for_a_while() -> None:
    rig = AuthUnderTest()
    for _ in range(5):
        await rig.auth.verify(answer("nobody"))
    assert len(rig.accounts.asked) == 1
    rig.clock.advance(ABSENT_TTL_S)
    await rig.auth.verify(answer("nobody"))
    assert len(rig.accounts.asked) == 2


async def test_what_nobody_told_of_is_noticed_after_a_while() -> None:
    rig = AuthUnderTest()
    account_id = await rig.user()
    await rig.auth.verify(answer())
    rig.disable(account_id)
    rig.clock.advance(KNOWN_TTL_S - 1)
    verdict = await rig.auth.verify(answer())
    assert isinstance(verdict, AuthIdentity)
    assert verdict.ttl_s == 1
    rig.clock.advance(1)
    assert await rig.auth.verify(answer()) is Reason.ACCOUNT_DISABLED


@pytest.mark.parametrize("tell_user", [True, False])
async def test_a_change_that_is_told_holds_at_once(tell_user: bool) -> None:
    rig = AuthUnderTest()
    account_id = await rig.user()
    await rig.auth.verify(answer())
    rig.disable(account_id)
    change = AuthAccountChange(account_id, "status", UserKey(REALM, "alice") if tell_user else None)
    rig.auth.account_changed(change)
    assert await rig.auth.verify(answer()) is Reason.ACCOUNT_DISABLED


async def test_a_new_user_can_log_in_at_once_though_he_was_unknown_a_moment_ago() -> None:
    rig = AuthUnderTest()
    assert await rig.auth.verify(answer()) is Reason.CREDENTIALS
    await rig.user()
    assert isinstance(await rig.auth.verify(answer()), AuthIdentity)


async def test_a_new_password_replaces_the_old_one_at_once_and_everybody_is_told() -> None:
    rig = AuthUnderTest()
    account_id = await rig.user()
    await rig.auth.verify(answer())
    await rig.auth.set_password(account_id, UserKey("", "alice"), "battery staple")
    await rig.auth.set_password(account_id, UserKey(REALM.upper(), "alice"), "battery staple")
    assert await rig.auth.verify(answer()) is Reason.CREDENTIALS
    assert isinstance(await rig.auth.verify(answer(password="battery staple")), AuthIdentity)
    assert rig.told.changes[-1] == AuthAccountChange(account_id, "credential", UserKey(REALM, "alice"))


async def test_a_removed_user_is_unknown_at_once_and_everybody_is_told() -> None:
    rig = AuthUnderTest()
    account_id = await rig.user()
    await rig.auth.verify(answer())
    assert await rig.auth.remove_credential(UserKey(REALM, "alice"))
    assert await rig.auth.verify(answer()) is Reason.CREDENTIALS
    assert rig.told.changes[-1] == AuthAccountChange(account_id, "credential", UserKey(REALM, "alice"))
    assert not await rig.auth.remove_credential(UserKey(REALM, "alice"))
    assert len(rig.told.changes) == 2


async def test_passwords_are_refused_that_cannot_be_set() -> None:
    rig = AuthUnderTest()
    account_id = await rig.user()
    told = len(rig.told.changes)
    with pytest.raises(NotFound):
        await rig.auth.set_password(str(uuid4()), UserKey(REALM, "alice"), PASSWORD)
    with pytest.raises(Invalid):
        await rig.auth.set_password(account_id, UserKey(REALM, "alice"), "short")
    with pytest.raises(Invalid):
        await rig.auth.set_password(account_id, UserKey("other.example", "alice"), PASSWORD)
    with pytest.raises(Invalid):
        await rig.auth.set_password(account_id, UserKey(REALM, "al:ice"), PASSWORD)
    other = str(uuid4())
    rig.accounts.accounts[other] = REALM, AuthAccount(other, "enduser", True)
    with pytest.raises(Conflict):
        await rig.auth.set_password(other, UserKey(REALM, "alice"), PASSWORD)
    assert len(rig.told.changes) == told
    assert isinstance(await rig.auth.verify(answer()), AuthIdentity)


class HeldCredentialStore(MemoryCredentialStore):
    """Whose look-ups wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = asyncio.Event()
        self.entered = asyncio.Event()

    async def look_up(self, users: Any) -> Any:
        found = await super().look_up(users)
        self.entered.set()
        await self.opened.wait()
        return found


@asynccontextmanager
async def gated() -> AsyncIterator[tuple[AuthUnderTest, HeldCredentialStore]]:
    rig, gate = AuthUnderTest(), HeldCredentialStore()
    rig.accounts = gate
    rig.auth = Auth(gate, rig.told, PolicySet.build(1, []), rig.keys, rig.clock, os.urandom)
    yield rig, gate


async def test_what_comes_while_a_query_is_under_way_shares_the_next_one() -> None:
    async with gated() as (rig, gate):
        await rig.user()
        first = asyncio.ensure_future(rig.auth.verify(answer()))
        await gate.entered.wait()
        others = [asyncio.ensure_future(rig.auth.verify(answer(str(number % 50)))) for number in range(200)]
        again = asyncio.ensure_future(rig.auth.verify(answer()))
        await asyncio.sleep(0)
        gate.opened.set()
        assert set(await asyncio.gather(*others)) == {Reason.CREDENTIALS}
        assert isinstance(await first, AuthIdentity)
        assert isinstance(await again, AuthIdentity)
        assert [len(users) for users in gate.asked] == [1, 50]


async def test_queries_and_the_queue_before_them_are_bounded() -> None:
    async with gated() as (rig, gate):
        waiting = [asyncio.ensure_future(rig.auth.verify(answer(str(n)))) for n in range(WAITING_MAX)]
        await gate.entered.wait()
        with pytest.raises(Exhausted):
            await rig.auth.verify(answer("one too many"))
        gate.opened.set()
        await asyncio.gather(*waiting)
        assert max(len(users) for users in gate.asked) == LOOK_UPS_MAX


async def test_who_gives_up_waiting_does_not_take_the_others_with_him() -> None:
    async with gated() as (rig, gate):
        await rig.user()
        impatient = asyncio.ensure_future(rig.auth.verify(answer()))
        patient = asyncio.ensure_future(rig.auth.verify(answer()))
        await gate.entered.wait()
        impatient.cancel()
        with suppress(asyncio.CancelledError):
            await impatient
        gate.opened.set()
        assert isinstance(await patient, AuthIdentity)


async def test_what_changed_while_it_was_looked_up_is_not_kept() -> None:
    async with gated() as (rig, gate):
        account_id = await rig.user()
        asking = asyncio.ensure_future(rig.auth.verify(answer()))
        await gate.entered.wait()
        rig.disable(account_id)  # After it was read …
        rig.auth.account_changed(AuthAccountChange(account_id, "status"))
        gate.opened.set()
        await asking
        assert await rig.auth.verify(answer()) is Reason.ACCOUNT_DISABLED  # … and asked for again.


async def test_without_the_database_known_users_go_on_and_others_are_told_to_come_back() -> None:
    rig = AuthUnderTest()
    await rig.user()
    await rig.user("bob")
    await rig.auth.verify(answer())
    rig.accounts.down = True
    assert isinstance(await rig.auth.verify(answer()), AuthIdentity)
    with pytest.raises(Unavailable):
        await rig.auth.verify(answer("bob"))
    rig.accounts.down = False
    assert isinstance(await rig.auth.verify(answer("bob")), AuthIdentity)


async def test_a_credential_that_no_key_opens_is_an_error_and_not_a_refusal() -> None:
    rig = AuthUnderTest()
    await rig.user()
    await rig.user("bob")
    account_id, sealed = rig.accounts.credentials[UserKey(REALM, "alice")]
    rig.accounts.credentials[UserKey(REALM, "bob")] = account_id, sealed  # Swapped rows don't open.
    rig.auth.forget_all()
    results = await asyncio.gather(rig.auth.verify(answer("bob")), rig.auth.verify(answer()), return_exceptions=True)
    assert isinstance(results[0], Internal)
    assert isinstance(results[1], AuthIdentity)
    assert rig.auth.stats.unreadable == 1


async def test_after_a_rotation_everything_is_sealed_with_the_new_key() -> None:
    rig = AuthUnderTest()
    for number in range(5):
        await rig.user(f"user-{number}")
    rotated = AuthUnderTest(key=NEW_KEY, old=(KEY,))
    rotated.accounts.accounts, rotated.accounts.credentials = rig.accounts.accounts, rig.accounts.credentials
    lost = UserKey(REALM, "a-lost-one")
    stranger = SealingKeys("33" * 32).seal(lost, ha1s_of(lost, PASSWORD), os.urandom(SALT_BYTES))
    rotated.accounts.credentials[lost] = next(iter(rig.accounts.accounts)), stranger
    assert await rotated.auth.reseal() == 5
    assert await rotated.auth.reseal() == 0
    only_new = AuthUnderTest(key=NEW_KEY)
    only_new.accounts = rotated.accounts
    only_new.auth = Auth(
        rotated.accounts, only_new.told, PolicySet.build(1, []), only_new.keys, only_new.clock, os.urandom
    )
    assert isinstance(await only_new.auth.verify(answer("user-3")), AuthIdentity)


async def test_a_call_from_a_trunks_address_is_its_accounts() -> None:
    rig = AuthUnderTest()
    sender = AuthAccount("1", "traffic-sender", True)
    off = AuthAccount("2", "traffic-sender", False)
    rig.accounts.trunks = [
        AuthTrunk("wholesale", "192.0.2.7", "77", sender),
        AuthTrunk("gone", "192.0.2.8", "", off),
    ]
    with pytest.raises(Unavailable):
        rig.auth.verify_address("192.0.2.7", "774930")
    async with following(rig):
        verdict = rig.auth.verify_address("192.0.2.7", "774930")
        assert isinstance(verdict, AuthIdentity)
        assert (verdict.account, verdict.tech_prefix) == (sender, "77")
        assert rig.auth.verify_address("192.0.2.7", "4930") is Reason.UNAUTHENTICATED
        assert rig.auth.verify_address("192.0.2.9", "774930") is Reason.UNAUTHENTICATED
        assert rig.auth.verify_address("192.0.2.8", "4930") is Reason.ACCOUNT_DISABLED
        reply = await AuthServicer(rig.auth).VerifyAddress(
            auth_pb2.VerifyAddressRequest(source_address="192.0.2.7", called="774930"), None
        )
        identity = reply.identity
        assert (identity.account_id, identity.tech_prefix, identity.trunk) == ("1", "77", "wholesale")


async def test_trunks_are_loaded_again_when_something_changed_and_kept_while_the_database_is_away() -> None:
    rig = AuthUnderTest()
    async with following(rig):
        rig.accounts.trunks = [AuthTrunk("new", "192.0.2.7", "", AuthAccount("1", "traffic-sender", True))]
        rig.auth.account_changed(AuthAccountChange("1", "trunk"))
        await asyncio.sleep(0)
        assert isinstance(rig.auth.verify_address("192.0.2.7", "4930"), AuthIdentity)
        rig.accounts.down = True
        rig.auth.forget_all()
        await asyncio.sleep(0)
        assert isinstance(rig.auth.verify_address("192.0.2.7", "4930"), AuthIdentity)


@pytest.mark.cases
@pytest.mark.parametrize("user", ["alice", "nobody", "x:y"])
@pytest.mark.parametrize("seen_before", [False, True])
async def test_a_refusal_takes_the_same_time_whoever_is_asked_for(user: str, seen_before: bool) -> None:
    rig = AuthUnderTest()
    await rig.user("alice")
    if seen_before:
        await rig.auth.verify(answer(user, "wrong"))
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("callwarden.auth.app.asyncio.sleep", note)
        assert await rig.auth.verify(answer(user, "wrong")) is Reason.CREDENTIALS
    assert waits == [pytest.approx(REFUSAL_S)]
    assert isinstance(await rig.auth.verify(answer("alice")), AuthIdentity)
