"""What the chart says is started: each pod's command line and environment as a process of this machine, and a call goes
through. So the chart and the code can't drift apart.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
import pytest_asyncio
from sqlalchemy import make_url

from callwarden.api.rating.v1 import rating_pb2
from callwarden.common.bus.rights import RIGHTS
from callwarden.common.rpc.client import unary
from callwarden.common.rpc.server import TlsFiles
from callwarden.kernel.errors import Unavailable
from callwarden.local.nats import NatsServer
from callwarden.local.ports import reserve
from callwarden.local.process import Child, file_appears
from callwarden.local.services import base_environment
from callwarden.testing import databases
from callwarden.testing.certificates import Authority
from callwarden.testing.kube_tools import needs_kube_tools
from callwarden.testing.operator import PASSWORD, OperatorClient
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.chart.rendering import NAMESPACE, VERSIONS, Object, pods, rendered
from tests.kubernetes.cluster import CLUSTER_TIMEOUT_S, OWN_CLUSTER, KubernetesCluster, missing

pytestmark = [pytest.mark.integration, needs_kube_tools()]

REALM: Final = "sip.example.com"
DATABASE_USERS: Final = ("auth", "call-admission", "rating", "payment")
RATES: Final = "prefix,description,rate\n49,Germany,0.06\n"
NOT_OURS: Final = {"backup"}  # CockroachDB's own program


class World:
    """A cluster's stand-ins: what the chart's names, mounts and Secrets are on this machine. All in one place.

    - host:port of a Service, and what a pod listens on, is a loopback port of that service
    - $(POD_IP) is 127.0.0.1
    - the folders that pods mount are folders below `folder`
    - a Secret's keys are `secrets`
    """

    def __init__(self, folder: Path, secrets: Mapping[str, Mapping[str, str]]) -> None:
        self.state_dir = folder
        self.secrets = secrets
        self._ports = {
            name: {"grpc": reserve(), "metrics": reserve()}
            for name in (*DATABASE_USERS, "administration", "rate-guard")
        }
        self._ports["edge-proxy"] = {"sip": reserve(), "metrics": reserve()}
        self._ports["security-policy"] = {"metrics": reserve()}

    def targets(self, service: str) -> list[str]:
        return [self.at(service, "grpc")]

    def at(self, service: str, port: str) -> str:
        return f"127.0.0.1:{self._ports[service][port].number}"

    def release(self) -> None:
        for ports in self._ports.values():
            for port in ports.values():
                port.release()

    def environment(self, service: str, container: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in container.get("env", ()):
            source = each.get("valueFrom", {})
            if secret := source.get("secretKeyRef"):
                value = self.secrets[secret["name"]].get(secret["key"])
                if value is None:
                    assert secret.get("optional"), f"{service}: no key {secret['key']} in {secret['name']}"
                    continue
            elif field := source.get("fieldRef"):
                value = {"status.podIP": "127.0.0.1", "metadata.name": f"{service}-0", "metadata.namespace": NAMESPACE}[
                    field["fieldPath"]
                ]
            else:
                value = self._local(service, each["value"], found)
            found[each["name"]] = value
        return found

    def _local(self, service: str, value: str, earlier: Mapping[str, str]) -> str:
        for name, text in earlier.items():  # as the kubelet does
            value = value.replace(f"$({name})", text)
        for name, ports in self._ports.items():
            if "grpc" in ports:
                value = value.replace(f"cw-callwarden-{name}:7000", self.at(name, "grpc"))
        for host in ("0.0.0.0", "127.0.0.1", REALM):
            for number, port in ((7000, "grpc"), (9464, "metrics"), (5060, "sip")):
                if port in self._ports.get(service, {}):
                    value = value.replace(f"{host}:{number}", self.at(service, port))
        for mount in ("/var/run/callwarden", "/var/lib/callwarden"):
            value = value.replace(mount, str(self.state_dir / service))
        return value


def command_of(container: Object) -> list[str]:
    """The console script beside this interpreter."""
    script, *arguments = container["command"]
    path = shutil.which(script, path=str(Path(sys.executable).parent))
    assert path is not None, f"{script} is no command of ours"
    return [path, *arguments]


@pytest_asyncio.fixture
async def nats_with_users(state_dir: Path) -> AsyncIterator[NatsServer]:
    """A user for each role, as in files/nats-users.conf."""
    async with NatsServer(state_dir / "nats", users={role: f"password-of-{role}" for role in RIGHTS}) as server:
        yield server


@asynccontextmanager
async def installed(
    case: str, folder: Path, nats: NatsServer, database_url: str, kubernetes: KubernetesCluster | None = None
) -> AsyncIterator[World]:
    """Every service of a preset as processes, then its migrations Job, for which they wait. The operator's pod, too,
    where there is a Kubernetes for it: with the account and the rights that the chart gives it.
    """
    owner = make_url(database_url)

    def login(user: str) -> str:
        # Roles are the server's, which other tests share: names of this run's own.
        return owner.set(username=f"{user}_{owner.database}", password="it's").render_as_string(hide_password=False)

    world = World(
        folder,
        {
            "callwarden-database": {user: login(user) for user in DATABASE_USERS} | {"migrations": database_url},
            "callwarden-nats": {role: nats.url_of(role) for role in RIGHTS},
            "callwarden-auth": {"credential-key": "5a" * 32},
            "callwarden-edge-proxy": {"nonce-key": "a5" * 16},
        },
    )
    # One NATS server is what is here; and the price list of a test is in the namespace that kubectl has by itself.
    objects = rendered(case, VERSIONS[-1], "--set", "nats.replicas=1", "--set", "rateDecks.namespaces={default}")
    containers = {pod["spec"]["containers"][0]["name"]: pod["spec"]["containers"][0] for _, pod in pods(objects)}
    authority = Authority(folder, "ours")
    make_mounts(world, authority, "admin")
    try:
        async with AsyncExitStack() as stack:
            migrations = containers.pop("schema")
            # What a pod finds at its service account's mount and in the cluster's own variables.
            account = {} if kubernetes is None else {"KUBECONFIG": str(await kubernetes.account(objects))}
            left_out = {"security-policy"} if kubernetes is None else set()
            children = []
            for name in sorted(containers.keys() - left_out - NOT_OURS):
                make_mounts(world, authority, name)
                children.append(child := await _start(name, containers[name], world, account))
                stack.push_async_callback(child.kill)
            for name in (*DATABASE_USERS, "administration"):
                await eventually(partial(_waits_for_its_role, world.at(name, "metrics")), timeout_s=60)
            job = await _start("schema", migrations, world)
            stack.push_async_callback(_drop_roles, database_url)
            assert await asyncio.wait_for(job.wait(), 60) == 0, job.log_tail()
            for child in children:
                ready = asyncio.ensure_future(file_appears(folder / f"{child.name}.ready"))
                await child.until(ready, 60)
            yield world
    finally:
        world.release()


async def _waits_for_its_role(metrics: str) -> bool:
    """Up, and unready for want of what the Job makes: Helm, Argo CD and the kubelet wait for such a pod."""
    try:
        reader, writer = await asyncio.open_connection(*metrics.split(":"))
    except ConnectionRefusedError:
        return False
    writer.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return b"503" in answer and b"schema (the database doesn't" in answer


def make_mounts(world: World, authority: Authority, name: str) -> None:
    (world.state_dir / name / "spool").mkdir(parents=True)
    tls = world.state_dir / name / "tls"
    tls.mkdir()
    authority.files(name, name)
    for kind, mounted in (("crt", "tls.crt"), ("key", "tls.key"), ("ca", "ca.crt")):
        (world.state_dir / f"ours-{name}.{kind}").rename(tls / mounted)


async def _start(name: str, container: Object, world: World, more: Mapping[str, str] = MappingProxyType({})) -> Child:
    environment = {**base_environment(), **world.environment(name, container), **more}
    # The one thing that no pod is told: probes look at /readyz, we wait for a file.
    environment["CALLWARDEN_READY_FILE"] = str(world.state_dir / f"{name}.ready")
    return await Child.start(name, command_of(container), log=world.state_dir / f"{name}.log", env=environment)


async def _drop_roles(database_url: str) -> None:
    url = make_url(database_url)
    connection = await databases.connect(database_url)
    for user in DATABASE_USERS:
        role = f"{user}_{url.database}"
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        await connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    await connection.close()


@pytest.mark.setting("https")
@pytest.mark.setting("db-roles")
@pytest.mark.timeout(150)
async def test_what_production_says_is_started_and_a_call_goes_through(
    state_dir: Path, nats_with_users: NatsServer, database_url: str
) -> None:
    """With mutual TLS between all services, and a database role for each."""
    async with installed("production", state_dir, nats_with_users, database_url) as world:
        edge = world.at("edge-proxy", "sip")
        async with OperatorClient(world, _admin(world)) as operator, Phones(edge) as carrier, Phones(edge) as phones:
            await operator.deck()
            await operator.carrier(carrier.address)
            await operator.account("alice", realm=REALM, credit_micros=10_000_000)
            call = phones.call("alice", PASSWORD, REALM, "493012345")
            assert await asyncio.wait_for(call.status, 20) == 200
            await phones.hang_up(call)

            async def settled() -> bool:
                return [each.state for each in await operator.calls()] == ["settled"]

            await eventually(settled)
            books = await operator.audit()
            assert books.balance_sum_micros == books.ledger_sum_micros
            assert books.held_sum_micros == 0
        async with OperatorClient(world, Authority(state_dir, "theirs").files("admin", "admin")) as stranger:
            with pytest.raises(Unavailable):
                await stranger.get("alice")


@pytest.mark.long
@pytest.mark.timeout(CLUSTER_TIMEOUT_S)
@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.skipif(OWN_CLUSTER, reason="makes ServiceAccounts and roles: not on somebody's cluster")
async def test_what_kubectl_applies_is_carried_out_by_the_pods_that_production_describes(
    state_dir: Path, nats_with_users: NatsServer, database_url: str
) -> None:
    """The operator's pod among them: with its own account, over mutual TLS, to the addresses that it is told."""
    async with (
        KubernetesCluster(state_dir / "kubernetes") as kubernetes,
        installed("production", state_dir, nats_with_users, database_url, kubernetes) as world,
        OperatorClient(world, _admin(world)) as operator,
        Phones(world.at("edge-proxy", "sip")) as carrier,
        Phones(world.at("edge-proxy", "sip")) as phones,
    ):
        kubectl = kubernetes.kubectl

        async def apply(kind: str, name: str, **spec: Any) -> None:
            metadata = {"name": name, "namespace": "default"}
            await kubectl.apply({"apiVersion": "callwarden.io/v1", "kind": kind, "metadata": metadata, "spec": spec})
            await kubectl.do("wait", "--for=condition=Applied", f"{kind}.callwarden.io/{name}", "--timeout=60s")

        async def status_of_a_call() -> int:
            call = phones.call("alice", PASSWORD, REALM, "493012345")
            status = await asyncio.wait_for(call.status, 20)
            if status == 200:
                await phones.hang_up(call)
            return status

        # The namespace isn't the release's: it acts on the realms that it is granted.
        spec = {"namespaces": ["default"], "realms": ["*"]}
        binding = {
            "apiVersion": "callwarden.io/v1",
            "kind": "RealmBinding",
            "metadata": {"name": "default"},
            "spec": spec,
        }
        await kubectl.apply(binding)
        # rating and call-admission have what these say before anybody calls.
        rates = {"name": "rates", "namespace": "default"}
        await kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": rates, "data": {"rates.csv": RATES}})
        await apply("RateDeck", "retail", configMap={"name": "rates"})
        await apply("Trunk", "carrier", address=carrier.address)
        await unary(operator.rating.SetRoute, rating_pb2.SetRouteRequest(trunk="carrier"))
        await operator.account("alice", realm=REALM, credit_micros=10_000_000)
        assert await status_of_a_call() == 200
        await apply("SecurityPolicy", "house", fraud={"destinations": {"block": ["+49"]}})
        assert await status_of_a_call() == 403
        await apply("SecurityPolicy", "house", fraud={"destinations": {"block": ["+53"]}})
        assert await status_of_a_call() == 200
        await apply("Ban", "elsewhere", address="192.0.2.7", duration="1h", reason="test")


def _admin(world: World) -> TlsFiles:
    """The operator's own certificate, of the same authority."""
    tls = world.state_dir / "admin" / "tls"
    return TlsFiles(tls / "tls.crt", tls / "tls.key", tls / "ca.crt")
