"""Whose a called number is, as auth answers it: from the moment that it is given until it is taken away."""

from uuid import uuid4

import pytest
from auth_rig import AuthUnderTest, following, request, settled

from callwarden.api.auth.v1 import auth_pb2
from callwarden.auth.adapters.grpc_server import AuthServicer
from callwarden.auth.core.trunks import AuthTrunk
from callwarden.auth.core.users import AuthAccount
from callwarden.auth.ports import AuthAccountChange
from callwarden.kernel.errors import Unavailable


async def owner_of(rig: AuthUnderTest, called: str) -> str:
    made = request()
    made.called = called
    reply = await AuthServicer(rig.auth).Verify(made, None)
    assert reply.HasField("identity")
    return reply.identity.called_owner.account_id


@pytest.mark.cases
async def test_a_caller_comes_with_the_owner_of_the_number_that_it_calls() -> None:
    rig = AuthUnderTest()
    await rig.user("alice")
    bob = await rig.user("bob", numbers=("+4930222",))
    owner = AuthAccount(str(uuid4()), "traffic-sender", True, ("+4930333",))
    rig.accounts.accounts[owner.id] = "other.example", owner
    rig.accounts.trunks = [AuthTrunk("pbx", "192.0.2.7:5062", "", owner, add_prefix="0", strip_digits=2)]
    with pytest.raises(Unavailable):
        await owner_of(rig, "+4930222")  # nobody knows yet whose it is
    async with following(rig):
        assert await owner_of(rig, "+4930222") == await owner_of(rig, "004930-222") == bob
        assert await owner_of(rig, "+4930999") == await owner_of(rig, "bob") == await owner_of(rig, "") == ""
        made = request()
        made.called = "4930333"
        found = (await AuthServicer(rig.auth).Verify(made, None)).identity.called_owner
        assert found.account_id == owner.id
        (trunk,) = found.trunks
        assert (trunk.name, trunk.address, trunk.add_prefix, trunk.strip_digits) == ("pbx", "192.0.2.7:5062", "0", 2)
        reply = await AuthServicer(rig.auth).VerifyAddress(
            auth_pb2.VerifyAddressRequest(source_address="192.0.2.7", called="+4930222"), None
        )
        assert reply.identity.called_owner.account_id == bob


@pytest.mark.cases
async def test_a_number_that_is_given_moved_or_taken_is_so_at_once_and_stays_known_while_the_database_is_away() -> None:
    rig = AuthUnderTest()
    await rig.user("alice")
    bob, carol = await rig.user("bob"), await rig.user("carol")

    async def give(account_id: str, numbers: tuple[str, ...]) -> None:
        realm, account = rig.accounts.accounts[account_id]
        rig.accounts.accounts[account_id] = realm, AuthAccount(account_id, account.kind, True, numbers)

    async with following(rig):
        assert await owner_of(rig, "+4930222") == ""
        await give(bob, ("+4930222",))
        rig.auth.account_changed(AuthAccountChange(bob, "numbers", numbers=("4930222",)))
        await settled()
        assert await owner_of(rig, "+4930222") == bob
        await give(bob, ())
        await give(carol, ("+4930222",))
        rig.auth.account_changed(AuthAccountChange(carol, "numbers", numbers=("4930222",)))
        await settled()
        assert await owner_of(rig, "+4930222") == carol
        rig.accounts.down = True
        rig.auth.forget_all()  # NATS was away
        await settled()
        rig.accounts.down = False
        assert await owner_of(rig, "+4930222") == carol
        await give(carol, ())
        rig.auth.account_changed(AuthAccountChange(carol, "numbers"))  # of an import: any may have changed
        await settled()
        assert await owner_of(rig, "+4930222") == ""
