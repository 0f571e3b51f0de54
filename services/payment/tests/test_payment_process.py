"""Whole payment processes on a real PostgreSQL: the same payment sent to all of them, killed in the middle."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from callwarden.api.payment.v1 import payment_pb2, payment_pb2_grpc
from callwarden.api.policy.v1 import policy_pb2
from callwarden.common.bus import Bucket, Bus
from callwarden.common.rpc.client import channel, unary
from callwarden.kernel.errors import CallwardenError, Conflict, Invalid, NotFound, Unavailable
from callwarden.local.system import LocalSystem
from callwarden.policy.bundle import Document
from callwarden.testing import databases
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration

StartSystem = Callable[..., Awaitable[LocalSystem]]


async def add_account(database: asyncpg.Connection, name: str) -> str:
    account_id = uuid.uuid4()
    await database.execute(
        "INSERT INTO account (id, realm, name, type, currency, prepaid) VALUES ($1, 'r', $2, 'enduser', 'EUR', true)",
        account_id,
        name,
    )
    return str(account_id)


def pay(account: str, key: str, amount_micros: int = 1_000_000, currency: str = "EUR") -> payment_pb2.TopUpRequest:
    return payment_pb2.TopUpRequest(account=account, amount_micros=amount_micros, currency=currency, key=key)


async def test_what_is_refused_says_which_field(rig: "PaymentProcesses") -> None:
    refused: list[tuple[payment_pb2.TopUpRequest, type[CallwardenError], str]] = [
        (pay("alice", "k", amount_micros=-5), Invalid, "amount_micros"),
        (pay("alice", "k", amount_micros=2**63 - 1), Invalid, "amount_micros"),
        (pay("alice", "k", currency="USD"), Invalid, "currency"),
        (pay("alice", ""), Invalid, "key"),
        (pay("", "k"), Invalid, "account"),
        (pay("nobody", "k"), NotFound, "account"),
    ]
    for request, error, field in refused:
        with pytest.raises(error) as caught:
            await rig.top_up(request)
        assert caught.value.field == field
    assert await rig.entries() == 0


async def test_a_payment_is_told_apart_from_its_repetition_and_from_another(rig: "PaymentProcesses") -> None:
    first = await rig.top_up(pay("alice", "k1"))
    again = await rig.top_up(pay(rig.account_id, "k1"), process=1)
    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.entry_id, again.balance_micros, again.currency) == (first.entry_id, 1_000_000, "EUR")
    with pytest.raises(Conflict):
        await rig.top_up(pay("alice", "k1", amount_micros=2))


async def test_a_process_killed_in_the_middle_loses_and_doubles_nothing(rig: "PaymentProcesses") -> None:
    async def until_answered(key: str) -> payment_pb2.TopUpReply:
        """As a gateway does it: the same key until somebody answers."""
        for attempt in range(20):
            try:
                return await rig.top_up(pay("alice", key), process=attempt % 2)
            except (Unavailable, Conflict):
                continue
        raise AssertionError(f"nobody answered {key}")

    work = asyncio.gather(*(until_answered(f"key-{number}") for number in range(100)))

    async def under_way() -> bool:
        return await rig.entries() >= 5

    await eventually(under_way, timeout_s=30, interval_s=0.001)
    await rig.system.kill("payment", 0)
    await rig.system.restart("payment", 0)
    replies = await work
    assert len({reply.entry_id for reply in replies}) == 100
    assert await rig.database.fetchval("SELECT balance_micros FROM account") == 100 * 1_000_000
    assert await rig.database.fetchval("SELECT sum(amount_micros) FROM ledger_entry") == 100 * 1_000_000
    assert await rig.database.fetchval("SELECT count(*) FROM payment") == 100


async def test_every_process_acknowledges_a_policy_and_keeps_the_last_good_one(rig: "PaymentProcesses") -> None:
    async with Bus(rig.system.nats_url, name="test", declare=False) as bus:

        async def apply(value: bytes) -> None:
            await bus.kv(Bucket.POLICY).put("bundle", value)

        async def acknowledged() -> list[tuple[str, int]]:
            acks = [policy_pb2.Ack.FromString(ack.value) for ack in (await bus.kv(Bucket.POLICY_ACKS).items()).values()]
            return [(ack.service, ack.revision) for ack in acks]

        async def wanted() -> bool:
            return await acknowledged() == [("payment", revision)] * 2

        revision = 0
        await eventually(wanted)
        for revision in (7, 8):
            bundle = policy_pb2.Bundle(revision=revision)
            bundle.documents.add(name="lines", json=Document("lines", {"lines": {"max": revision}}).to_json())
            await apply(bundle.SerializeToString())
            await eventually(wanted)
            await apply(b"no bundle")  # and the next one is taken all the same
        assert (await rig.top_up(pay("alice", "k"))).balance_micros == 1_000_000


class PaymentProcesses:
    """Two payment processes and one account, "alice"."""

    def __init__(self, system: LocalSystem, database: asyncpg.Connection, account_id: str) -> None:
        self.system = system
        self.database = database
        self.account_id = account_id

    async def top_up(self, request: payment_pb2.TopUpRequest, *, process: int = 0) -> payment_pb2.TopUpReply:
        async with channel(self.system.targets("payment")[process], self.system.credentials("admin")) as opened:
            reply: payment_pb2.TopUpReply = await unary(payment_pb2_grpc.PaymentServiceStub(opened).TopUp, request)
            return reply

    async def entries(self) -> int:
        return int(await self.database.fetchval("SELECT count(*) FROM ledger_entry"))


@pytest.fixture
async def rig(local_system: StartSystem) -> AsyncIterator["PaymentProcesses"]:
    system = await local_system(services={"payment"}, processes={"payment": 2})
    database = await databases.connect(system.database_url)
    yield PaymentProcesses(system, database, await add_account(database, "alice"))
    await database.close()
