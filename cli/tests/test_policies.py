"""The bundle in NATS: changed by compare-and-set, acknowledged by every process that lives, shown truthfully."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callwarden.cli import state
from callwarden.cli.failure import Failure
from callwarden.cli.main import run
from callwarden.cli.policies import PolicyStore, connect
from callwarden.common.bus import Bucket, Bus
from callwarden.common.clock import SystemClock
from callwarden.common.metrics import Metrics
from callwarden.common.policy import Policies
from callwarden.local.nats import NatsServer
from callwarden.policy.bundle import BadPolicy, Document, Key
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration

LINES_3 = "apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {name: lines}\nspec: {lines: {max: 3}}\n"


def policy(name: str, **spec: object) -> Document:
    return Document.from_object(
        {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": name}, "spec": spec}
    )


@asynccontextmanager
async def follower(nats_url: str, service: str, instance: str) -> AsyncIterator[Policies]:
    """A process that follows the policy as every service does."""
    async with Bus(nats_url, name=service) as bus:
        policies = Policies(bus, service, instance, SystemClock(), Metrics())
        tasks = [asyncio.create_task(policies.follow()), asyncio.create_task(policies.acknowledge())]
        await policies.wait_synced()
        try:
            acks = bus.kv(Bucket.POLICY_ACKS)
            await eventually(lambda: acks.get(f"{service}.{instance}"))
            yield policies
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def store(nats_url: str) -> AsyncIterator[PolicyStore]:
    async with Bus(nats_url, name="declares"), connect(nats_url) as opened:
        yield opened


@pytest.fixture
def command(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs a command line against the test's NATS, in a thread: it brings an event loop of its own."""
    for name in (*state.TARGETS_VARIABLE.values(), state.STATE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(state.NATS_VARIABLE, nats_server.url)

    async def execute(*arguments: str) -> int:
        return await asyncio.to_thread(run, arguments)

    return execute


async def test_each_change_is_one_revision_and_none_is_none(nats_server: NatsServer) -> None:
    async with store(nats_server.url) as policies:
        assert (await policies.load()).revision == 0
        first = await policies.apply([policy("a", lines={"max": 3})])
        assert (first.policies.revision, first.changed) == (1, ("a",))
        same = await policies.apply([policy("a", lines={"max": 3})])
        assert (same.policies.revision, same.changed) == (1, ())
        second = await policies.apply([policy("a", lines={"max": 3}), policy("b", priority=1, lines={"max": 4})])
        assert (second.policies.revision, second.changed) == (2, ("b",))
        assert (await policies.load()).for_realm("").lines.max == 4
        third = await policies.delete(Key("SecurityPolicy", "", "b"))
        assert third.policies.revision == 3
        assert (await policies.load()).for_realm("").lines.max == 3


async def test_two_who_apply_at_the_same_time_both_have_their_policy(nats_server: NatsServer) -> None:
    async with store(nats_server.url) as one, store(nats_server.url) as other:
        changes = await asyncio.gather(
            *(who.apply([policy(f"p{i}", priority=i)]) for i, who in enumerate([one, other, one, other]))
        )
        held = await one.load()
        assert sorted(change.policies.revision for change in changes) == [1, 2, 3, 4]
        assert [document.name for document in held.documents] == ["p0", "p1", "p2", "p3"]
        assert held.revision == 4


async def test_what_cannot_hold_together_changes_nothing(nats_server: NatsServer) -> None:
    async with store(nats_server.url) as policies:
        await policies.apply([policy("a", spend={"slice": {"first": "10s"}})])
        with pytest.raises(BadPolicy):
            await policies.apply([policy("b", priority=1, spend={"slice": {"minimum": "20s"}})])
        held = await policies.load()
        assert (held.revision, [document.name for document in held.documents]) == (1, ["a"])


async def test_deleting_what_is_not_there_says_so(nats_server: NatsServer) -> None:
    async with store(nats_server.url) as policies:
        with pytest.raises(Failure, match="no SecurityPolicy is called x"):
            await policies.delete(Key("SecurityPolicy", "", "x"))


async def test_apply_returns_when_everyone_runs_it(
    nats_server: NatsServer, command: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines.yaml"
    file.write_text(LINES_3)
    async with (
        follower(nats_server.url, "edge-proxy", "edge-0") as edge,
        follower(nats_server.url, "call-admission", "admission-0") as admission,
    ):
        assert await command("policy", "apply", "-f", str(file), "--output", "json") == 0
        assert edge.for_realm("any").lines.max == 3
        assert admission.for_realm("any").lines.max == 3
        shown = json.loads(capsys.readouterr().out)
        assert (shown["revision"], shown["changed"], shown["behind"]) == (1, ["lines"], [])
        assert [(one["service"], one["revision"]) for one in shown["running"]] == [
            ("call-admission", 1),
            ("edge-proxy", 1),
        ]
        assert await command("policy", "apply", "-f", str(file)) == 0
        assert "policy lines unchanged" in capsys.readouterr().out
        assert await command("policy", "status") == 0
        table = capsys.readouterr().out
        assert "edge-proxy" in table
        assert "revision 1" in table


async def test_who_does_not_take_it_is_named(
    nats_server: NatsServer, command: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from callwarden.api.policy.v1.policy_pb2 import Ack

    file = tmp_path / "lines.yaml"
    file.write_text(LINES_3)
    async with Bus(nats_server.url, name="stuck") as bus:
        stuck = Ack(service="edge-proxy", instance="stuck", revision=0, applied_at_s=time.time())
        await bus.kv(Bucket.POLICY_ACKS).put("edge-proxy.stuck", stuck.SerializeToString())
        assert await command("policy", "apply", "-f", str(file)) == 1
        shown = capsys.readouterr()
        assert "revision 1 doesn't run in edge-proxy.stuck yet" in shown.err
        assert await command("policy", "status") == 1


async def test_a_bad_file_leaves_the_last_good_policy_in_force(
    nats_server: NatsServer, command: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(LINES_3)
    bad.write_text(LINES_3.replace("max: 3", "max: many"))
    async with follower(nats_server.url, "edge-proxy", "edge-0") as edge:
        assert await command("policy", "apply", "-f", str(good)) == 0
        assert await command("policy", "apply", "-f", str(bad)) == 1
        assert "spec.lines.max" in capsys.readouterr().err
        assert edge.current.revision == 1
        assert edge.for_realm("").lines.max == 3


async def test_list_and_show_give_back_what_was_applied(
    nats_server: NatsServer, command: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines.yaml"
    file.write_text(LINES_3)
    async with Bus(nats_server.url, name="declares"):
        assert await command("policy", "list") == 0
        assert "profile Default is in force" in capsys.readouterr().out
        assert await command("policy", "apply", "-f", str(file)) == 0
        capsys.readouterr()
        assert await command("policy", "list", "--output", "json") == 0
        listed = json.loads(capsys.readouterr().out)
        assert [entry["metadata"]["name"] for entry in listed["policies"]] == ["lines"]
        assert await command("policy", "show", "lines") == 0
        assert "max: 3" in capsys.readouterr().out
        assert await command("policy", "show", "--output", "json") == 0
        assert json.loads(capsys.readouterr().out)["lines"]["max"] == 3
        assert await command("policy", "show", "other") == 1
        assert await command("policy", "delete", "lines") == 0
        assert await command("policy", "delete", "lines") == 1


async def test_without_nats_one_line_says_so(
    nats_server: NatsServer, command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    await nats_server.kill()
    assert await command("policy", "list") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("callwarden: NATS doesn't answer")
    assert nats_server.url not in shown
