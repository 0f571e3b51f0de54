"""One node for all tests of the run: its start takes ten seconds, and there can be one on a machine."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cluster.node import ClusterNode, missing


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def node() -> AsyncIterator[ClusterNode]:
    """Running; skips with what would be needed where it can't."""
    if reason := missing():
        pytest.skip(reason)
    async with ClusterNode() as node:
        yield node
