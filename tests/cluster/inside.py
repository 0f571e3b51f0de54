"""The first process of a node's namespaces: starts Kubernetes and containerd, collects orphans, and ends when one of
its processes does. `python -m tests.cluster.inside FOLDER`, which `tests.cluster.node` starts under unshare.

It is process 1 of a process namespace, so its death ends everything in there, pods included; the mounts and the network
go with it. Kernel settings that the kubelet would change for the whole machine are covered by files.
"""

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.cluster import layout
from tests.cluster.build import CNI, program
from tests.cluster.layout import ADDRESS, API_PORT, CLUSTER_DOMAIN, NODE, PODS, SERVICES

START_TIMEOUT_S: Final = 120.0
ETCD: Final = "http://127.0.0.1:2379"
# What the kubelet insists on; the machine's own values aren't ours to change.
COVERED: Final = {"vm/overcommit_memory": "1\n", "kernel/panic": "10\n", "kernel/panic_on_oops": "1\n"}
SBIN: Final = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"


class Processes:
    """What was started, by name; each with a log of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[int, str] = {}

    def start(self, name: str, *argv: str | Path, env: Mapping[str, str] | None = None) -> None:
        """Starts a program that is to run as long as the node."""
        with (self._folder / "log" / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": f"{program('containerd').parent}:{SBIN}", "HOME": str(self._folder), **(env or {})},
            )
        self._running[started.pid] = name

    def wait(self) -> str:
        """Until one of them ends; says which and how. Orphans of the pods are collected meanwhile."""
        while True:
            pid, status = os.wait()
            if pid in self._running:
                return f"{self._running[pid]} ended with {os.waitstatus_to_exitcode(status)}"


def run(*argv: str | Path) -> None:
    subprocess.run([str(part) for part in argv], check=True, env={"PATH": SBIN})


def main(folder: Path) -> int:
    # That of whoever starts us is for private files; here pods of other users read what containerd unpacks.
    os.umask(0o022)
    cover_settings(folder / "settings")
    make_network()
    processes = Processes(folder)
    start_control_plane(processes, folder)
    start_node(processes, folder)
    sys.stderr.write(f"{processes.wait()}\n")
    return 1


def cover_settings(folder: Path) -> None:
    run("mount", "--make-rshared", "/")
    folder.mkdir()
    for name, value in COVERED.items():
        cover = folder / name.replace("/", ".")
        cover.write_text(value)
        run("mount", "--bind", cover, Path("/proc/sys", name))


def make_network() -> None:
    """Loopback, and a bridge with the node's address; there is no way out."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "node0", "type", "bridge")
    run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node0")
    for outside in (layout.PHONES, layout.CARRIER):
        run("ip", "address", "add", f"{outside}/32", "dev", "node0")
    run("ip", "link", "set", "node0", "up")
    # Kubernetes' programs want a default route to find the node's address by.
    run("ip", "route", "add", "default", "via", layout.NOWHERE, "dev", "node0")
    for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        Path("/proc/sys", name).write_text("1\n")


def start_control_plane(processes: Processes, folder: Path) -> None:
    kube, certs = program("kube"), folder / "certs"
    config = f"--kubeconfig={folder / 'kubeconfig'}"
    etcd = shutil.which("etcd", path=SBIN) or "etcd"
    clients = [f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}", "--unsafe-no-fsync"]
    peers = "http://127.0.0.1:2380"
    processes.start("etcd", etcd, f"--data-dir={folder / 'etcd'}", *clients, f"--listen-peer-urls={peers}")
    processes.start(
        "apiserver", kube, "kube-apiserver", f"--etcd-servers={ETCD}", f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={certs / 'server.crt'}", f"--tls-private-key-file={certs / 'server.key'}",
        f"--client-ca-file={certs / 'ca.crt'}", f"--cert-dir={certs}",
        f"--service-account-key-file={certs / 'accounts.key'}",
        f"--service-account-signing-key-file={certs / 'accounts.key'}",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=Node,RBAC", "--allow-privileged",
        f"--admission-control-config-file={folder / 'admission.json'}",
        f"--advertise-address={ADDRESS}", "--bind-address=0.0.0.0", f"--secure-port={API_PORT}",
        "--kubelet-preferred-address-types=InternalIP",
    )  # fmt: skip
    wait_for_api(certs / "ca.crt")
    processes.start(
        "controllers", kube, "kube-controller-manager", config, "--use-service-account-credentials",
        f"--service-account-private-key-file={certs / 'accounts.key'}", f"--root-ca-file={certs / 'ca.crt'}",
        "--allocate-node-cidrs", f"--cluster-cidr={PODS}", "--bind-address=127.0.0.1", "--leader-elect=false",
    )  # fmt: skip
    processes.start("scheduler", kube, "kube-scheduler", config, "--bind-address=127.0.0.1", "--leader-elect=false")


def wait_for_api(authority: Path) -> None:
    """TimeoutError where it doesn't come. Polls: no event crosses from a foreign process."""
    context = ssl.create_default_context(cafile=authority)
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{API_PORT}/readyz", context=context, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError("the API server")


def start_node(processes: Processes, folder: Path) -> None:
    config = f"--kubeconfig={folder / 'kubeconfig'}"
    (folder / "cni").mkdir()
    write(folder / "cni" / "10-bridge.conflist", cni(folder))
    (folder / "containerd.toml").write_text(containerd(folder))
    processes.start("containerd", program("containerd"), "--config", folder / "containerd.toml")
    (folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
    write(folder / "kubelet.json", kubelet(folder))
    processes.start(
        "kubelet", program("kube"), "kubelet", config, f"--config={folder / 'kubelet.json'}",
        f"--hostname-override={NODE}", f"--node-ip={ADDRESS}", f"--root-dir={folder / 'kubelet'}",
        f"--cert-dir={folder / 'kubelet-pki'}",
    )  # fmt: skip
    processes.start(
        "proxy", program("kube"), "kube-proxy", config, f"--hostname-override={NODE}", "--proxy-mode=iptables",
        # Zero leaves these settings of the whole machine alone.
        "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s",
        "--conntrack-udp-timeout=0s", "--conntrack-udp-timeout-stream=0s",
    )  # fmt: skip
    processes.start("dns", sys.executable, "-m", "tests.cluster.dns", folder, env={"PYTHONPATH": os.getcwd()})


def cni(folder: Path) -> dict[str, Any]:
    """Pods on one bridge. Port mappings make `hostPort` work."""
    ranges = [[{"subnet": layout.NODE_PODS}]]
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "addresses"),
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    mappings = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "callwarden", "plugins": [bridge, mappings]}


def containerd(folder: Path) -> str:
    """Its configuration. What it unpacked once stays in the cache."""
    return f"""\
version = 3
root = "{layout.CONTAINERD}"
state = "{folder / "containerd"}"
[grpc]
address = "{layout.socket(folder)}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE a process can't be made less likely to be killed than its parent.
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{CNI}"]
conf_dir = "{folder / "cni"}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "{shutil.which("runc", path=SBIN)}"
"""


def kubelet(folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # It listens in a network namespace that nobody else is in.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{layout.socket(folder)}",
        "resolvConf": str(folder / "resolv.conf"),
        # The machine is shared: what others fill must not evict pods, and images stay.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "enforceNodeAllocatable": [],
    }


def write(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
