"""A real Kubernetes of one node for a test: `async with ClusterNode() as node`.

Everything runs in network, process and mount namespaces of its own (`tests.cluster.inside`); their end is its end.
Pods run by the restricted Pod Security Standard in every namespace. Not there: NetworkPolicies' enforcement, load
balancers, a second node.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from callwarden.local.process import Child
from callwarden.testing import kube_tools
from callwarden.testing.waiting import eventually
from tests.cluster import authority, build, images, layout
from tests.cluster.build import ROOT

START_TIMEOUT_S: Final = 300.0
COMMAND_TIMEOUT_S: Final = 600.0
VOLUMES: Final = 8
_CGROUPS: Final = Path("/sys/fs/cgroup")


def missing() -> str:
    """What isn't here and would be needed, for the line that says why tests are skipped; empty: nothing."""
    if reason := build.lacking():
        return reason
    if not all(module.is_built() for module in build.MODULES):
        return "needs the programs of a node: make cluster"
    if not all(image.archive.exists() for image in images.wanted()):
        return "needs the images of the present sources: make cluster"
    if _pods_run():
        return "another kubelet runs on this machine"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else f"namespaces can't be made here: {tried.stderr.decode().strip()}"


def _pod_groups() -> list[Path]:
    return [*_CGROUPS.glob("kubepods"), *_CGROUPS.glob("*/kubepods")]


def _pods_run() -> bool:
    """Empty groups are what a test left that was killed; the next node takes them over."""
    return any(file.read_text() for group in _pod_groups() for file in group.rglob("cgroup.procs"))


class ClusterNode:
    """The running node. `shell` runs commands as an operator of it would."""

    def __init__(self) -> None:
        self.folder = layout.RUN
        self.kubeconfig = self.folder / "kubeconfig"
        self._alone = ExitStack()
        self._inside: Child | None = None
        self._pid = 0

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._alone.enter_context, build.locked("node"))
        try:
            self._prepare()
            await self._start()
            await self._import_images()
            await self._add_volumes()
            ready = ["wait", "--for=condition=Ready", f"node/{layout.NODE}", f"--timeout={START_TIMEOUT_S:g}s"]
            await self.kubectl(*ready)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    def command(self, *argv: str | Path) -> list[str]:
        """`argv`, to be run in the node's network."""
        return ["nsenter", f"--target={self._pid}", "--net", "--", *(str(part) for part in argv)]

    def environment(self) -> dict[str, str]:
        """For commands of an operator: kubectl, helm and callwarden in PATH, and whom they ask."""
        tools = [kube_tools.program("kubectl").parent, Path(sys.executable).parent]
        path = os.pathsep.join([*map(str, tools), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CALLWARDEN_")}
        return {**inherited, "PATH": path, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}

    async def run(
        self, *argv: str | Path, stdin: str = "", cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """One command in the node's network: exit code, output, errors. TimeoutError after COMMAND_TIMEOUT_S."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**self.environment(), **(env or {})},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                out, errors = await process.communicate(stdin.encode())
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Its output; AssertionError with what it said where it fails."""
        code, out, errors = await self.run(kube_tools.program("kubectl"), *arguments, stdin=stdin)
        assert code == 0, f"kubectl {' '.join(arguments)}: {out}{errors}"
        return out

    async def get(self, *arguments: str) -> Any:
        return json.loads(await self.kubectl("get", *arguments, "-o", "json"))

    def _prepare(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("certs", "log", "volumes"):
            (self.folder / name).mkdir(parents=True)
        authority.write_certificates(self.folder / "certs")
        (self.folder / "tokens.csv").write_text(f'{layout.ADMIN_TOKEN},admin,1,"system:masters"\n')
        restricted = {
            "apiVersion": "pod-security.admission.config.k8s.io/v1",
            "kind": "PodSecurityConfiguration",
            "defaults": {"enforce": "restricted", "enforce-version": "latest"},
        }
        plugins = [{"name": "PodSecurity", "configuration": restricted}]
        admission = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": plugins,
        }
        (self.folder / "admission.json").write_text(json.dumps(admission))
        server = {
            "server": f"https://{layout.ADDRESS}:{layout.API_PORT}",
            "certificate-authority": str(self.folder / "certs" / "ca.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"token": layout.ADMIN_TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(config))

    async def _start(self) -> None:
        unshare = shutil.which("unshare")
        assert unshare is not None
        namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        self._inside = await Child.start(
            "the node",
            [unshare, *namespaces, sys.executable, "-m", "tests.cluster.inside", self.folder],
            log=self.folder / "log" / "inside.log",
            env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(Path.home())},
            cwd=ROOT,
        )
        await self._until(self._find_pid, "its first process")
        await self._until(self._answers, "its API server and containerd")

    async def _until(self, ready: Any, what: str) -> None:
        assert self._inside is not None
        waiting = asyncio.ensure_future(eventually(ready, timeout_s=START_TIMEOUT_S, interval_s=0.2, what=what))
        await self._inside.until(waiting, START_TIMEOUT_S + 10)

    def _find_pid(self) -> bool:
        assert self._inside is not None
        pid = self._inside.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._pid = int(children[0]) if children else 0
        return bool(children)

    async def _answers(self) -> bool:
        if not layout.socket(self.folder).exists():
            return False
        code, _, _ = await self.run(kube_tools.program("kubectl"), "get", "--raw", "/readyz")
        return code == 0

    async def _ctr(self, *arguments: str | Path) -> str:
        # In the mount namespace, too: that is where images are unpacked.
        ctr = [build.program("ctr"), f"--address={layout.socket(self.folder)}", "--namespace=k8s.io", *arguments]
        command = ["nsenter", f"--target={self._pid}", "--net", "--mount", "--", *map(str, ctr)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, errors = await process.communicate()
        assert process.returncode == 0, f"ctr {arguments}: {errors.decode()}"
        return out.decode()

    async def _import_images(self) -> None:
        """What containerd hasn't unpacked before; then the names that the chart uses, and older images go."""
        there = set((await self._ctr("images", "list", "--quiet")).split())
        for image in images.wanted():
            if image.reference not in there:
                await self._ctr("images", "import", image.archive)
            for tag in image.tags:
                await self._ctr("images", "tag", "--force", image.reference, tag)
        kept = {name for image in images.wanted() for name in (image.reference, *image.tags)}
        if stale := [name for name in there - kept if not name.startswith("sha256:")]:
            await self._ctr("images", "remove", *stale)

    async def _add_volumes(self) -> None:
        """A default storage class with volumes that claims find; there is nobody to make them on demand."""
        name = "local"
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        objects: list[dict[str, Any]] = [
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": name, "annotations": default},
                "provisioner": "kubernetes.io/no-provisioner",
            }
        ]
        for number in range(VOLUMES):
            place = self.folder / "volumes" / str(number)
            place.mkdir()
            place.chmod(0o777)
            spec = {
                "capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": name,
                "hostPath": {"path": str(place)},
            }
            metadata = {"name": f"local-{number}"}
            objects.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec})
        await self.kubectl("apply", "--filename=-", stdin="\n---\n".join(map(json.dumps, objects)))

    async def _stop(self) -> None:
        try:
            if self._inside is not None:
                # The first process of a process namespace takes all others with it.
                if self._pid:
                    try:
                        os.kill(self._pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                await self._inside.stop((signal.SIGTERM, 30.0))
            await eventually(_groups_are_removed, timeout_s=30, interval_s=0.2, what="empty control groups")
        finally:
            self._alone.close()


def _groups_are_removed() -> bool:
    """Removes the pods' control groups; False while there are processes in one."""
    for group in _pod_groups():
        for path, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                return False
    return True
