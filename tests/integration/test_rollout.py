"""An edge is replaced while people talk and call: nobody notices."""

import asyncio
from pathlib import Path

import pytest

from callwarden.local.system import LocalSystem
from callwarden.testing import databases
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually
from tests.integration.balancer import FlowBalancer, edges_behind

TALKS = 20
DRAIN_S = 20.0
CREDIT_MICROS = 500_000_000
# Hundreds of calls that last no time would be taken for an attack.
POLICY = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: rollout}
spec:
  fraud: {dynamicList: {enabled: false}, smartList: {enabled: false}}
"""


class Callers:
    """Calls that begin and end all the time, until they are to stop."""

    def __init__(self, phones: Phones) -> None:
        self._phones = phones
        self._stop = asyncio.Event()
        self.statuses: list[tuple[str, int]] = []
        """What each INVITE and each BYE was answered with."""

    async def run(self) -> None:
        """About twenty a second, one after the other by each of four callers."""
        await asyncio.gather(*(self._one(number) for number in range(4)))

    async def _one(self, number: int) -> None:
        while not self._stop.is_set():
            call = self._phones.call("alice", PASSWORD, DEFAULT_REALM, f"493055500{number}")
            status = await call.status
            self.statuses.append(("INVITE", status))
            if status == 200:
                self.statuses.append(("BYE", await self._phones.hang_up(call)))

    def stop(self) -> None:
        self._stop.set()


async def talk(phones: Phones, number: int) -> PhoneCall:
    call = phones.call("alice", PASSWORD, DEFAULT_REALM, f"49301234{number:02}")
    assert await call.status == 200
    return call


@pytest.mark.parametrize("moved_early", [True, False], ids=["its flows move while it drains", "its flows stay"])
async def test_an_edge_that_is_replaced_loses_no_call(state_dir: Path, moved_early: bool) -> None:
    async with (
        FlowBalancer() as balancer,
        LocalSystem(
            state_dir, processes={"edge-proxy": 2}, env=edges_behind(balancer), drain_timeout_s=DRAIN_S
        ) as system,
        Phones(balancer.address) as carrier,
        Phones(balancer.address) as phones,
        OperatorClient(system) as operator,
    ):
        first, second = system.sip_addresses
        balancer.use(first)
        await operator.apply_policy(POLICY)
        await operator.deck()
        await operator.carrier(carrier.address)
        await operator.account("alice", lines=200, credit_micros=CREDIT_MICROS)
        talks = [await talk(phones, number) for number in range(TALKS)]
        callers = Callers(phones)
        calling = asyncio.ensure_future(callers.run())
        stopping = asyncio.ensure_future(system.stop("edge-proxy", 0))

        async def is_unready() -> bool:
            return "edge.draining" in system.process("edge-proxy", 0).log.read_text()

        await eventually(is_unready, what="the edge drains")
        before = len(callers.statuses)
        await eventually(lambda: len(callers.statuses) > before + 20, what="calls by the edge that drains")
        if moved_early:
            balancer.use(second)
        await stopping  # with exit code 0
        balancer.use(second)
        before = len(callers.statuses)
        await eventually(lambda: len(callers.statuses) > before + 20, what="calls by the other edge")
        callers.stop()
        await calling
        assert set(callers.statuses) == {("INVITE", 200), ("BYE", 200)}

        assert not [call for call in talks if call.ended.is_set()]
        assert [await phones.hang_up(call) for call in talks] == [200] * TALKS

        async def is_settled() -> bool:
            return (await operator.get("alice")).lines_in_use == 0

        await eventually(is_settled, timeout_s=30, what="all calls are settled")
        connection = await databases.connect(system.database_url)
        records = await connection.fetch("SELECT call_id, reason, duration_s, price_micros FROM cdr")
        await connection.close()
        assert {record["reason"] for record in records} == {"caller-bye"}
        assert len(records) == carrier.incoming
        alice = await operator.get("alice")
        assert alice.held_micros == 0
        assert alice.balance_micros == CREDIT_MICROS - sum(record["price_micros"] for record in records)
        talked = {record["call_id"]: record["duration_s"] for record in records}
        assert all(talked[call.call_id] > 0 for call in talks)
        code, shown = await operator.command("ledger", "check")
        assert code == 0, shown
