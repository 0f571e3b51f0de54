"""The documentation's installation on a real node: its commands, word for word, read out of the page.

One test, since each step stands on the one before.
"""

import json
import os
import re
import signal
import subprocess
from asyncio import create_subprocess_exec, timeout
from pathlib import Path

import pytest

from tests.cluster.documented import blocks, folder_of_a_reader
from tests.cluster.node import COMMAND_TIMEOUT_S, ClusterNode

pytestmark = [pytest.mark.long, pytest.mark.node, pytest.mark.integration, pytest.mark.timeout(3_600)]
NAMESPACE = "callwarden"
REALM = "callwarden.local"


class Reader:
    """Somebody who types what the page says, in one folder."""

    def __init__(self, node: ClusterNode, folder: Path) -> None:
        self._node = node
        self._folder = folder_of_a_reader(folder)
        self._blocks = blocks()

    async def types(self, name: str) -> str:
        """The output of a block of the page. AssertionError, with what it said, where a command fails."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            shell = await create_subprocess_exec(
                *self._node.command("bash", "-euxo", "pipefail", "-c", self._blocks[name]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env=self._node.environment(),
                start_new_session=True,
            )
        try:
            async with timeout(COMMAND_TIMEOUT_S):
                code = await shell.wait()
        finally:
            # What the block left in the background, such as a port-forward.
            try:
                os.killpg(shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        said = log.read_text()
        assert code == 0, f"{name}:\n{said}"
        return said


async def pods(node: ClusterNode) -> dict[str, bool]:
    """Whether each pod of ours that isn't a Job's is ready, by name."""
    found = await node.get("pods", "--namespace", NAMESPACE)
    return {
        pod["metadata"]["name"]: all(
            each["ready"] for each in pod["status"].get("containerStatuses", [{"ready": False}])
        )
        for pod in found["items"]
        if pod["metadata"]["ownerReferences"][0]["kind"] != "Job"
    }


@pytest.mark.asyncio(loop_scope="session")
async def test_an_installation_as_the_page_says(node: ClusterNode, tmp_path: Path) -> None:
    reader = Reader(node, tmp_path / "reader")

    await reader.types("install")
    there = await pods(node)
    assert len(there) == 10
    assert all(there.values()), there

    await reader.types("policy")

    said = await reader.types("account")
    password = re.search(r"^Password, shown only this once: (\S+)$", said, re.MULTILINE)
    assert password, said

    address = await node.kubectl(
        "get", "service", "callwarden-edge-proxy-sip", "--namespace", NAMESPACE, "--output=jsonpath={.spec.clusterIP}"
    )
    load = {
        "edge": f"{address}:5060",
        "users": ["alice"],
        "password": password[1],
        "realm": REALM,
        "prefix": "4930",
    }
    code, out, errors = await node.run("python", "-m", "tests.cluster.calls", json.dumps(load))
    assert code == 0, errors
    (outcome,) = json.loads(out.splitlines()[-1])
    assert (outcome["invite"], outcome["bye"], outcome["cut"]) == (200, 200, False)

    await reader.types("scale")
    status = ["rollout", "status", "deployment/callwarden-auth", "--namespace", NAMESPACE, "--timeout=300s"]
    await node.kubectl(*status)
    assert sum(name.startswith("callwarden-auth-") for name in await pods(node)) >= 3
