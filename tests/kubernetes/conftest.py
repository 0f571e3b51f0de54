"""The operator's real process on a real Kubernetes API and a real NATS, and members that take what it writes."""

import asyncio
import json
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
from tests.kubernetes.cluster import ClusterKubectl, KubernetesCluster

START_TIMEOUT_S = 40.0
SERVICES = ("edge-proxy", "auth", "rate-guard", "call-admission", "rating", "payment")


@dataclass(slots=True)
class OperatorSite:
    """One cluster, one bus."""

    folder: Path
    cluster: KubernetesCluster
    nats: NatsServer
    members: list[Policies] = field(default_factory=list)
    _count: int = 0

    @property
    def kubectl(self) -> ClusterKubectl:
        return self.cluster.kubectl

    async def start_operator(self, kubeconfig: Path | None = None, **settings: str) -> Child:
        """Another process of it, ready; `settings` without their prefix."""
        self._count += 1
        name = f"operator-{self._count}"
        ready = self.folder / f"{name}.json"
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CALLWARDEN_")},
            "KUBECONFIG": str(kubeconfig or self.cluster.kubeconfig),
            "CALLWARDEN_NATS_URL": self.nats.url,
            "CALLWARDEN_INSTANCE": name,
            "CALLWARDEN_READY_FILE": str(ready),
            "CALLWARDEN_GRPC_OPEN": "true",  # unless the settings have certificates
            "CALLWARDEN_LEASE_S": "3",
            **{f"CALLWARDEN_{key.upper()}": value for key, value in settings.items()},
        }
        argv = [sys.executable, "-m", "callwarden.security_policy_operator.main"]
        child = await Child.start(name, argv, log=self.folder / f"{name}.log", env=env)
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
    async def rate_guard(self, **settings: str) -> AsyncIterator[str]:
        """A real one while inside; its host:port."""
        ready = self.folder / "rate-guard.json"
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CALLWARDEN_")},
            "CALLWARDEN_NATS_URL": self.nats.url,
            "CALLWARDEN_INSTANCE": "rate-guard",
            "CALLWARDEN_READY_FILE": str(ready),
            "CALLWARDEN_GRPC_OPEN": "true",  # unless the settings have certificates
            **{f"CALLWARDEN_{key.upper()}": value for key, value in settings.items()},
        }
        argv = [sys.executable, "-m", "callwarden.rate_guard.main"]
        child = await Child.start("rate-guard", argv, log=self.folder / "rate-guard.log", env=env)
        try:
            await child.until(asyncio.ensure_future(file_appears(ready)), START_TIMEOUT_S)
            yield f"127.0.0.1:{json.loads(ready.read_text())['grpc_port']}"
        finally:
            await child.stop((signal.SIGTERM, 20.0))

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


OperatorSites = Callable[[], AbstractAsyncContextManager[OperatorSite]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KubernetesCluster]:
    """One for all tests of this worker: its start takes ten seconds."""
    async with KubernetesCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def site(cluster: KubernetesCluster, state_dir: Path) -> AsyncIterator[OperatorSite]:
    """The cluster without resources of ours, and an empty bus."""
    async with NatsServer(state_dir / "nats") as nats:
        yield OperatorSite(state_dir, cluster, nats)
    await cluster.clear()
