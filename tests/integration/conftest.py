"""Whole systems: real processes on a real NATS and PostgreSQL, real SIP on loopback."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from callwarden.local.system import LocalSystem
from callwarden.testing.operator import OperatorClient
from callwarden.testing.phones import Phones


@dataclass(frozen=True, slots=True)
class Site:
    """A running system with its operator, a carrier that answers, and a deck that prices +49."""

    system: LocalSystem
    operator: OperatorClient
    carrier: Phones


Sites = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def site(state_dir: Path) -> Sites:
    """`async with site(processes=…, env=…) as s`: a system of the test's own."""

    @asynccontextmanager
    async def start(
        processes: Mapping[str, int] | None = None, env: Mapping[str, Mapping[str, str]] | None = None
    ) -> AsyncIterator[Site]:
        async with (
            LocalSystem(state_dir, processes=processes, env=env) as system,
            Phones(system.sip_address) as carrier,
            OperatorClient(system) as operator,
        ):
            await operator.deck()
            await operator.carrier(carrier.address)
            yield Site(system, operator, carrier)

    return start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)
