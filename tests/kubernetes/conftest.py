"""The operator's real process on a real Kubernetes API and a real NATS, and members that take what it writes."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from callwarden.common.bus import Bus
from callwarden.common.clock import SystemClock
from callwarden.common.metrics import Metrics
from callwarden.common.policy import Policies
from callwarden.local.nats import NatsServer
from callwarden.local.process import Child, file_appears
from tests.kubernetes.cluster import Cluster, Kubectl

START_TIMEOUT_S = 40.0
SERVICES = ("edge-proxy", "auth", "rate-guard", "call-admission", "rating", "payment")


@dataclass(slots=True)
class Site:
    """One cluster, one bus."""

    folder: Path
    cluster: Cluster
    nats: NatsServer
    members: list[Policies] = field(default_factory=list)
    _count: int = 0

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    async def start_operator(self, kubeconfig: Path | None = None, **settings: str) -> Child:
        """Another process of it, ready."""
        self._count += 1
        name = f"operator-{self._count}"
        ready = self.folder / f"{name}.json"
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CALLWARDEN_")},
            "KUBECONFIG": str(kubeconfig or self.cluster.kubeconfig),
            "CALLWARDEN_NATS_URL": self.nats.url,
            "CALLWARDEN_INSTANCE": name,
            "CALLWARDEN_READY_FILE": str(ready),
            "CALLWARDEN_LEASE_S": "3",
            **settings,
        }
        child = await Child.start(
            name,
            [sys.executable, "-m", "callwarden.security_policy_operator.main"],
            log=self.folder / f"{name}.log",
            env=env,
        )
        appears = asyncio.ensure_future(file_appears(ready))
        await child.until(appears, START_TIMEOUT_S)
        return child

    @asynccontextmanager
    async def operator(self, kubeconfig: Path | None = None, **settings: str) -> AsyncIterator[Child]:
        """Running inside, stopped after."""
        child = await self.start_operator(kubeconfig, **settings)
        try:
            yield child
        finally:
            assert await child.stop((signal.SIGTERM, 20.0)) in (0, -signal.SIGKILL), child.log_tail

    @asynccontextmanager
    async def pods(self, count: int) -> AsyncIterator[list[Policies]]:
        """So many processes' real following and acknowledging of policies, over all services."""
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(Bus(self.nats.url, name="members"))
            members = [
                Policies(bus, SERVICES[number % len(SERVICES)], f"pod-{number}", SystemClock(), Metrics())
                for number in range(count)
            ]
            tasks = [asyncio.ensure_future(work) for one in members for work in (one.follow(), one.acknowledge())]
            try:
                for one in members:
                    await one.wait_synced()
                self.members = members
                yield members
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)


Sites = Callable[[], AbstractAsyncContextManager[Site]]


@pytest_asyncio.fixture
async def site(state_dir: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with NatsServer(state_dir / "nats") as nats, Cluster(state_dir / "cluster") as cluster:
        yield Site(state_dir, cluster, nats)
    with contextlib.suppress(OSError):
        (state_dir / "cluster" / "accounts.pem").unlink()
