"""A real Kubernetes API for a test: etcd and an API server built from Go modules, or the cluster that
CALLWARDEN_TEST_CLUSTER=1 and KUBECONFIG name.

The API server is the generic control plane of k8s.io/kubernetes (`apiserver/main.go`): everything of a cluster that has
to do with resources, nothing that has to do with pods. `make apiserver` builds it.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from unittest import mock

import aiohttp
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from callwarden.local import ports
from callwarden.local.process import Child
from callwarden.policy.crd import GROUP, KINDS
from callwarden.security_policy_operator.adapters.kubernetes import Kubernetes
from callwarden.testing import kube_tools
from callwarden.testing.waiting import eventually
from tests.kubernetes import build

ROOT: Final = Path(__file__).resolve().parents[2]
CRDS: Final = ROOT / "deploy" / "helm" / "callwarden" / "crds"
PLURALS: Final = tuple(kind.plural for kind in KINDS)
CLUSTER_TIMEOUT_S: Final = 300  # of a test: on a busy machine the cluster alone takes a minute to start
START_TIMEOUT_S: Final = 60.0
KUBECTL_TIMEOUT_S: Final = 90.0
RBAC: Final = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
OWN_CLUSTER: Final = os.environ.get("CALLWARDEN_TEST_CLUSTER") == "1"
_TOKEN: Final = "test"  # of a server on loopback that lives as long as the test


def missing() -> str:
    """What isn't here and would be needed, for the line that says why tests are skipped."""
    if OWN_CLUSTER:
        return ""
    wanted = [
        *(["the API server (Go 1.26 and make apiserver)"] if not build.binary().exists() else []),
        *(["etcd (apt-get install etcd-server)"] if shutil.which("etcd") is None else []),
    ]
    return f"needs {' and '.join(wanted)}, or CALLWARDEN_TEST_CLUSTER=1 and KUBECONFIG" if wanted else ""


class ClusterKubectl:
    """The real kubectl against one cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, output, errors."""
        process = await asyncio.create_subprocess_exec(
            kube_tools.program("kubectl"),
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)},
        )
        async with asyncio.timeout(KUBECTL_TIMEOUT_S):
            out, errors = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()

    async def do(self, *arguments: str, stdin: str = "") -> str:
        """Its output; AssertionError with what it said where it fails."""
        code, out, errors = await self.run(*arguments, stdin=stdin)
        assert code == 0, f"kubectl {' '.join(arguments)}: {errors}"
        return out

    async def apply(self, *objects: dict[str, Any], options: Sequence[str] = ()) -> str:
        return await self.do("apply", "-f", "-", *options, stdin=_together(objects))

    async def refused(self, *objects: dict[str, Any]) -> str:
        """What the API server says against these."""
        code, _, errors = await self.run("apply", "-f", "-", stdin=_together(objects))
        assert code != 0, "it was taken"
        return errors

    async def get(self, *arguments: str) -> Any:
        return json.loads(await self.do("get", *arguments, "-o", "json"))


def _together(objects: Sequence[dict[str, Any]]) -> str:
    return "\n---\n".join(json.dumps(each) for each in objects)


class KubernetesCluster:
    """`async with KubernetesCluster(folder) as cluster`: a running API with our kinds; `kubectl`, `kubeconfig`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.kubectl = ClusterKubectl(self.kubeconfig)
        self._children: list[Child] = []
        self._ports: list[ports.Port] = []

    async def __aenter__(self) -> Self:
        try:
            if OWN_CLUSTER:
                self.kubeconfig = Path(os.environ["KUBECONFIG"])
                self.kubectl = ClusterKubectl(self.kubeconfig)
            else:
                await self._start(build.binary())
            await self.kubectl.do("apply", "--server-side", "-f", str(CRDS))
            await self.kubectl.do("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def clear(self) -> None:
        """Take all resources of ours away without asking an operator, and what operators leave behind."""
        with mock.patch.dict(os.environ, KUBECONFIG=str(self.kubeconfig)):
            async with Kubernetes() as api:
                for plural in PLURALS:
                    metadata = [one["metadata"] for one in await api.list(plural)]
                    free = {"metadata": {"finalizers": None}}
                    await asyncio.gather(
                        *(api.patch(plural, one.get("namespace", ""), one["name"], free) for one in metadata)
                    )
        for plural in PLURALS:
            await self.kubectl.do("delete", f"{plural}.{GROUP}", "--all", "--all-namespaces", "--wait=false")
        await self.kubectl.do("delete", "--raw", "/apis/coordination.k8s.io/v1/namespaces/default/leases")
        await self.kubectl.do("delete", "--raw", "/api/v1/namespaces/default/events")

    async def _start(self, binary: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        client, peer, secure = (self._port() for _ in range(3))
        etcd = shutil.which("etcd")
        assert etcd is not None
        await self._run(
            "etcd",
            [
                etcd,
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster=default=http://127.0.0.1:{peer}",
            ],
        )
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self.folder / "accounts.pem").write_bytes(pem)
        (self.folder / "tokens.csv").write_text(f'{_TOKEN},admin,1,"system:masters"\n')
        await self._run(
            "apiserver",
            [
                binary,
                f"--etcd-servers=http://127.0.0.1:{client}",
                "--bind-address=127.0.0.1",
                f"--secure-port={secure}",
                f"--cert-dir={self.folder / 'certs'}",
                f"--token-auth-file={self.folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.folder / 'accounts.pem'}",
                f"--service-account-signing-key-file={self.folder / 'accounts.pem'}",
            ],
        )
        self.kubeconfig.write_text(self.config_for(_TOKEN, secure))
        self._secure = secure
        await eventually(
            lambda: self._is_ready(secure), timeout_s=START_TIMEOUT_S, interval_s=0.1, what="the API server"
        )

    async def account(self, objects: Sequence[Mapping[str, Any]]) -> Path:
        """A kubeconfig of the ServiceAccount that the roles and bindings among `objects` are for. Makes it and them."""
        roles = [each for each in objects if each["kind"] in RBAC]
        ((name, namespace),) = {(it["name"], it["namespace"]) for each in roles for it in each.get("subjects", ())}
        for space in {namespace, *(each["metadata"].get("namespace", namespace) for each in roles)} - {"default"}:
            await self.kubectl.do("create", "namespace", space)
        await self.kubectl.do("create", "serviceaccount", name, "-n", namespace)
        await self.kubectl.do("apply", "-f", "-", stdin=yaml.safe_dump_all(roles))
        token = (await self.kubectl.do("create", "token", name, "-n", namespace)).strip()
        kubeconfig = self.folder / f"{namespace}-{name}.json"
        kubeconfig.write_text(self.config_for(token))
        return kubeconfig

    def config_for(self, token: str, secure: int | None = None) -> str:
        """A kubeconfig of somebody else on the same server."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "test",
                        "cluster": {
                            "server": f"https://127.0.0.1:{secure or self._secure}",
                            "certificate-authority": str(self.folder / "certs" / "apiserver.crt"),
                        },
                    }
                ],
                "users": [{"name": "test", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
                "current-context": "test",
            }
        )

    async def _is_ready(self, port: int) -> bool:
        for child in self._children:
            if child.returncode is not None:
                raise child.failed("ended while it started")
        try:
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {_TOKEN}"}) as session,
                session.get(f"https://127.0.0.1:{port}/readyz", ssl=False) as reply,
            ):
                return reply.status == 200
        except aiohttp.ClientError:
            return False

    async def _run(self, name: str, argv: Sequence[str | Path]) -> None:
        self._children.append(await Child.start(name, argv, log=self.folder / f"{name}.log", env=dict(os.environ)))

    def _port(self) -> int:
        port = ports.reserve()
        self._ports.append(port)
        return port.number

    async def _stop(self) -> None:
        for child in reversed(self._children):
            await child.stop((signal.SIGTERM, 10.0))
        for port in self._ports:
            port.release()
