"""The node itself: pods run, names are found, unrestricted pods are refused, and nothing of it reaches the machine."""

import json
from pathlib import Path

import pytest

from tests.cluster.inside import COVERED
from tests.cluster.layout import ADDRESS
from tests.cluster.node import ClusterNode

pytestmark = [pytest.mark.long, pytest.mark.node, pytest.mark.integration, pytest.mark.timeout(900)]
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "runAsUser": 20_001,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, script: str, security: dict[str, object]) -> str:
    container = {
        "name": "main",
        "image": "docker.io/library/postgres:18",
        "command": ["python3", "-c", script],
        "securityContext": security,
    }
    spec = {"containers": [container], "restartPolicy": "Never"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def of_this_machine() -> tuple[set[str], str]:
    """Its network interfaces and its mounts."""
    return {path.name for path in Path("/sys/class/net").iterdir()}, Path("/proc/self/mountinfo").read_text()


@pytest.mark.asyncio(loop_scope="session")
async def test_a_pod_finds_the_api_server_by_its_name_and_its_log_can_be_read(node: ClusterNode) -> None:
    script = "import socket; print(socket.gethostbyname('kubernetes.default.svc'))"
    await node.kubectl("apply", "--filename=-", stdin=pod("looks-up", script, RESTRICTED))
    await node.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/looks-up", "--timeout=300s")
    assert await node.kubectl("logs", "looks-up") == "10.96.0.1\n"
    await node.kubectl("delete", "pod", "looks-up")


@pytest.mark.asyncio(loop_scope="session")
async def test_a_pod_that_is_not_restricted_is_refused(node: ClusterNode) -> None:
    code, _, errors = await node.run(
        "kubectl", "apply", "--filename=-", stdin=pod("root", "pass", {**RESTRICTED, "runAsUser": 0})
    )
    assert code != 0
    assert "violates PodSecurity" in errors


@pytest.mark.asyncio(loop_scope="session")
async def test_its_network_and_the_kubelets_settings_are_its_own(node: ClusterNode) -> None:
    assert await node.get("nodes")
    _, addresses, _ = await node.run("ip", "-brief", "address")
    assert ADDRESS in addresses
    links, mounts = of_this_machine()
    assert not links & {"node0", "cni0"}
    assert not [name for name in COVERED if name in mounts]
    assert str(node.folder) not in mounts
