"""Two running edges, and a caller and a carrier that are sockets: for cases where the second edge knows no call yet.

In: the system, its price list and its carrier. Out: accounts, policies' contents and messages (the tests).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from callwarden.local.files import TemporaryFolder
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import OperatorClient
from tests.integration.wire import Wire


@dataclass(frozen=True, slots=True)
class TwoEdges:
    """The edges, and the two sides as sockets that do nothing by themselves."""

    system: LocalSystem
    operator: OperatorClient
    caller: Wire
    carrier: Wire

    @property
    def first(self) -> str:
        return self.edge(0)

    @property
    def second(self) -> str:
        return self.edge(1)

    def edge(self, number: int) -> str:
        """In turn."""
        return self.system.sip_addresses[number % 2]


@asynccontextmanager
async def two_edges(
    caller: str, carrier: str, policy: str, env: Mapping[str, Mapping[str, str]] | None = None
) -> AsyncIterator[TwoEdges]:
    """Runs them until the end of the block, then checks the books; the sides have these addresses of the loopback.
    `env` is as `LocalSystem` takes it."""
    folder = TemporaryFolder("state")
    async with AsyncExitStack() as stack:
        stack.callback(folder.remove)
        system = await stack.enter_async_context(LocalSystem(folder.path, processes={"edge-proxy": 2}, env=env))
        operator = await stack.enter_async_context(OperatorClient(system))
        site = TwoEdges(
            system,
            operator,
            await stack.enter_async_context(Wire(caller)),
            await stack.enter_async_context(Wire(carrier)),
        )
        await operator.deck()
        await operator.carrier(site.carrier.address)
        await operator.apply_policy(policy)
        yield site
        # Whatever the cases did: each charge agrees with its price and talk, and no call is held that no edge knows.
        code, found = await operator.command("ledger", "check")
        assert code == 0, found
