"""Cases: guesses at one user from address after address, and names with their realm."""

import os
from collections.abc import Iterable
from dataclasses import replace

import pytest
from auth_rig import PASSWORD, REALM, AuthUnderTest, answer

from callwarden.api.auth.v1 import auth_pb2
from callwarden.auth.adapters.grpc_server import AuthServicer
from callwarden.auth.core.digest import DigestAnswer, ha1s_of
from callwarden.auth.core.sealing import SALT_BYTES
from callwarden.auth.core.users import AuthIdentity, UserKey
from callwarden.kernel.errors import Invalid
from callwarden.kernel.verdict import Reason
from callwarden.sip.digest import Algorithm

pytestmark = pytest.mark.cases


def from_(made: DigestAnswer, source: str, *, is_registered: bool = False) -> DigestAnswer:
    made.source, made.is_registered = source, is_registered
    return made


async def guess(rig: AuthUnderTest, name: str, sources: Iterable[str]) -> None:
    for source in sources:
        verdict = rig.auth.verify_now(from_(answer(name, "wrong"), source))
        if verdict is None:  # the first one is looked up
            verdict = await rig.auth.verify(from_(answer(name, "wrong"), source))
        assert verdict is Reason.CREDENTIALS


@pytest.mark.parametrize(
    "sources",
    [
        [f"198.51.{n // 250}.{n % 250 + 1}" for n in range(60)],
        ["203.0.113.9"] * 60,
        [f"2001:db8:{n:x}::1" for n in range(60)],
    ],
    ids=["from address after address", "from one address", "from network after network"],
)
async def test_guesses_at_one_user_are_slowed_and_its_owner_is_not(sources: list[str]) -> None:
    rig = AuthUnderTest()
    await rig.user()
    at_home = from_(answer(), "192.0.2.7")
    assert isinstance(await rig.auth.verify(at_home), AuthIdentity)
    await guess(rig, "alice", sources)
    # The right password is worth nothing where alice never was, and is answered as a wrong one.
    elsewhere = from_(answer(), "203.0.113.9")
    assert rig.auth.verify_now(elsewhere) is Reason.CREDENTIALS
    assert rig.auth.stats.slowed == 1
    # Where she was, it is; and where the edge knows a phone of hers, after a restart of this process.
    assert isinstance(rig.auth.verify_now(at_home), AuthIdentity)
    assert isinstance(rig.auth.verify_now(from_(answer(), "192.0.2.99", is_registered=True)), AuthIdentity)
    # Others aren't touched, and an hour later she may come from anywhere.
    await rig.user("bob")
    assert isinstance(await rig.auth.verify(from_(answer("bob"), "203.0.113.9")), AuthIdentity)
    rig.clock.advance(3_900)
    assert isinstance(await rig.auth.verify(elsewhere), AuthIdentity)


async def test_mistakes_at_home_use_up_nothing() -> None:
    rig = AuthUnderTest()
    await rig.user()
    assert isinstance(await rig.auth.verify(from_(answer(), "2001:db8::1")), AuthIdentity)
    await guess(rig, "alice", (f"2001:db8::{n:x}" for n in range(2, 100)))  # one /64 is one place
    assert isinstance(rig.auth.verify_now(from_(answer(), "203.0.113.9")), AuthIdentity)


async def test_the_budget_of_users_who_do_not_exist_is_the_same() -> None:
    rig = AuthUnderTest()
    await guess(rig, "nobody", (f"198.51.100.{n}" for n in range(60)))
    await rig.user("nobody")
    rig.auth.forget_all()
    assert await rig.auth.verify(from_(answer("nobody"), "203.0.113.9")) is Reason.CREDENTIALS


@pytest.mark.parametrize("algorithm", [*Algorithm, None])
async def test_a_name_with_its_realm_is_the_same_user(algorithm: Algorithm | None) -> None:
    rig = AuthUnderTest()
    account_id = await rig.user()
    for name, is_right in (
        (f"alice@{REALM}", True),
        ("alice@other.example", False),
        (f"alice@other.{REALM}", False),
        (f"alice@{REALM}@{REALM}", False),
        (f"@{REALM}", False),
        (f"nobody@{REALM}", False),
    ):
        made = answer(name, algorithm=algorithm)
        reply = await AuthServicer(rig.auth).Verify(
            auth_pb2.VerifyRequest(
                username=name,
                realm=REALM,
                method=made.method,
                uri=made.uri,
                nonce=made.nonce,
                nonce_count=made.nonce_count,
                cnonce=made.cnonce,
                qop=made.qop,
                algorithm=made.algorithm,
                response=made.response,
                source_address="192.0.2.7",
            ),
            None,
        )
        assert (reply.identity.account_id == account_id) is is_right, name
    with pytest.raises(Invalid):
        await rig.auth.set_password(account_id, UserKey(REALM, f"x@{REALM}"), PASSWORD)


async def test_a_credential_from_before_names_with_realms_were_kept_opens_still() -> None:
    rig = AuthUnderTest()
    account_id = await rig.user()
    alice = UserKey(REALM, "alice")
    old = replace(ha1s_of(alice, PASSWORD), in_full=None)
    await rig.accounts.set_credential(account_id, alice, rig.keys.seal(alice, old, os.urandom(SALT_BYTES)))
    assert isinstance(await rig.auth.verify(answer()), AuthIdentity)
    in_full = answer(f"alice@{REALM}")
    in_full.user, in_full.in_full = alice, True
    assert await rig.auth.verify(in_full) is Reason.CREDENTIALS
