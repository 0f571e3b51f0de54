"""Policies applied with kubectl: the real kubectl, a real API server, the operator's process, a real NATS."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bucket, Bus
from callwarden.common.policy import BUNDLE_KEY, parse_bundle
from callwarden.policy.bundle import PolicySet
from callwarden.testing import kube_tools
from callwarden.testing.waiting import eventually
from tests.kubernetes.cluster import CLUSTER_TIMEOUT_S, missing
from tests.kubernetes.conftest import OperatorSite

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(CLUSTER_TIMEOUT_S),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    kube_tools.needs_kube_tools(),
]


def policy(name: str, *, kind: str = "SecurityPolicy", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": "default"} if kind == "SecurityPolicy" else {})}
    return {"apiVersion": "callwarden.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def conditions(resource: dict[str, Any]) -> dict[str, tuple[str, str]]:
    found = resource.get("status", {}).get("conditions", ())
    return {one["type"]: (one["status"], one["reason"]) for one in found}


def message(resource: dict[str, Any], kind: str) -> str:
    return next(str(one["message"]) for one in resource["status"]["conditions"] if one["type"] == kind)


async def bundle(site: OperatorSite) -> PolicySet:
    async with Bus(site.nats.url, name="test", declare=False) as bus:
        entry = await bus.kv(Bucket.POLICY).get(BUNDLE_KEY)
        return parse_bundle(entry.value) if entry is not None else PolicySet.build(0, ())


async def waits(site: OperatorSite, what: str, condition: str) -> None:
    await site.kubectl.do("wait", f"--for=condition={condition}", what, "--timeout=60s")


async def test_a_policy_is_applied_edited_and_deleted_and_every_pod_follows(site: OperatorSite) -> None:
    async with site.pods(6) as pods, site.operator():
        await site.kubectl.apply(
            policy("base", kind="ClusterSecurityPolicy", lines={"max": 7}), policy("house", lines={"max": 3})
        )
        await waits(site, "cwsp/house", "Applied")
        assert {pod.for_realm("").lines.max for pod in pods} == {3}
        first = await site.kubectl.get("cwsp", "house", "--show-managed-fields")
        assert conditions(first) == {
            "Accepted": ("True", "Valid"),
            "Applied": ("True", "Enforced"),
            "Degraded": ("False", "AsSpecified"),
        }
        assert [one["pods"] == one["running"] == 1 for one in first["status"]["services"]] == [True] * 6
        table = await site.kubectl.do("get", "cwsp")
        assert "ACCEPTED" in table
        assert "REVISION" in table
        assert (await site.kubectl.do("get", "callwarden", "-A")).count("house") == 1

        await site.kubectl.do("patch", "cwsp", "house", "--type=merge", "-p", '{"spec":{"lines":{"max":4}}}')
        await eventually(lambda: {pod.for_realm("").lines.max for pod in pods} == {4}, what="the edit everywhere")
        await waits(site, "cwsp/house", "Applied")

        async def seen() -> bool:
            second = await site.kubectl.get("cwsp", "house")
            return bool(
                second["status"]["observedGeneration"] == second["metadata"]["generation"] == 2
                and second["status"]["revision"] > first["status"]["revision"]
            )

        await eventually(seen, what="the status of the edit")
        await site.kubectl.do("delete", "cwsp", "house", "--timeout=60s")
        # The finalizer: it is gone only when the bundle has it no more.
        assert [document.name for document in (await bundle(site)).documents] == ["base"]
        await eventually(
            lambda: {pod.for_realm("").lines.max for pod in pods} == {7}, what="the next policy everywhere"
        )
        which = "involvedObject.kind=SecurityPolicy,involvedObject.name=house"
        events = (await site.kubectl.get("events", "--field-selector", which))["items"]
        reasons = [one["reason"] for one in events]
        assert reasons.count("Accepted") == 1, "however many rounds saw it"
        assert 1 <= reasons.count("Applied") <= 2, "once for each form of it"
        managers = {one["manager"] for one in first["metadata"]["managedFields"]}
        assert "callwarden-security-policy" in managers
        assert not any("ython" in name for name in managers)


def binding(name: str, *namespaces: str, realms: list[str], **spec: Any) -> dict[str, Any]:
    body = {"namespaces": list(namespaces), "realms": realms, **spec}
    return {"apiVersion": "callwarden.io/v1", "kind": "RealmBinding", "metadata": {"name": name}, "spec": body}


@pytest.mark.cases
async def test_policies_apply_to_the_realms_of_their_namespace_as_long_as_it_may_act_on_them(
    site: OperatorSite,
) -> None:
    def foreign(name: str, **spec: Any) -> dict[str, Any]:
        return {**policy(name, **spec), "metadata": {"name": name, "namespace": "kube-public"}}

    async def lines_are(in_a: int, elsewhere: int) -> bool:
        return {(pod.for_realm("a.example").lines.max, pod.for_realm("").lines.max) for pod in pods} == {
            (in_a, elsewhere)
        }

    async def wait(name: str, condition: str) -> dict[str, Any]:
        await site.kubectl.do("wait", "-n", "kube-public", f"--for=condition={condition}", f"cwsp/{name}")
        found: dict[str, Any] = await site.kubectl.get("-n", "kube-public", "cwsp", name)
        return found

    async with site.pods(2) as pods, site.operator():
        # Without a RealmBinding only the release's namespace acts, "default" here.
        await site.kubectl.apply(
            policy("house", lines={"max": 9}),
            foreign("all", priority=5, lines={"max": 1}),
            foreign("a", realm="A.example", lines={"max": 2}),
        )
        await waits(site, "cwsp/house", "Applied")
        for name in ("all", "a"):
            refused = await wait(name, "Applied=False")
            assert conditions(refused) == {
                "Accepted": ("True", "Valid"),
                "Applied": ("False", "RealmNotAllowed"),
                "Degraded": ("True", "NotInForce"),
            }
            assert "namespace kube-public may act on none" in message(refused, "Applied")
        assert await lines_are(9, 9)

        await site.kubectl.apply(foreign("a", realm="a.example", lines={"max": 2}))
        await site.kubectl.apply(binding("public", "kube-public", realms=["a.example"]))
        await wait("a", "Applied")
        assert conditions(await wait("all", "Applied=False"))["Applied"] == ("False", "RealmNotAllowed")
        await eventually(lambda: lines_are(2, 9), what="the policy of its realm")
        table = await site.kubectl.do("get", "cwrealm")
        assert "kube-public" in table
        assert "a.example" in table

        await site.kubectl.apply(binding("public", "kube-public", realms=["b.example"]))
        assert "b.example only" in message(await wait("a", "Applied=False"), "Applied")
        await eventually(lambda: lines_are(9, 9), what="the withdrawal")
        await site.kubectl.apply(binding("public", "kube-public", realms=["*"]))
        await wait("a", "Applied")
        await wait("all", "Applied")
        await eventually(lambda: lines_are(2, 1), what="both")
        await site.kubectl.do("delete", "cwrealm", "public")
        await wait("a", "Applied=False")
        await wait("all", "Applied=False")
        await eventually(lambda: lines_are(9, 9), what="the withdrawal of both")

        async def reported() -> bool:
            events = (await site.kubectl.get("-n", "kube-public", "events"))["items"]
            return any(one["reason"] == "RealmNotAllowed" and "b.example" in one["message"] for one in events)

        await eventually(reported, what="an event that names the realm")
        await site.kubectl.do("delete", "-n", "kube-public", "cwsp", "a", "all", "--timeout=60s")


@pytest.mark.cases
async def test_a_realm_binding_is_checked_by_the_api_server(site: OperatorSite) -> None:
    assert "spec.realms" in await site.kubectl.refused(binding("x", "sales", realms=["*", "a.example"]))
    assert "spec.realms" in await site.kubectl.refused(binding("x", "sales", realms=[]))
    assert "spec.namespaces" in await site.kubectl.refused(binding("x", "*", "sales", realms=["*"]))
    assert "spec.namespaces" in await site.kubectl.refused(binding("x", "Sales", realms=["*"]))
    assert "spec.rateDecks" in await site.kubectl.refused(binding("x", "sales", realms=["*"], rateDecks=["a", "*"]))


async def test_an_invalid_policy_is_refused_and_names_the_field(site: OperatorSite) -> None:
    async with site.operator():
        # By the schema.
        assert "spec.lines.max" in await site.kubectl.refused(policy("bad", lines={"max": "many"}))
        assert "spec.lines.max" in await site.kubectl.refused(policy("bad", lines={"max": -1}))
        assert "spec.profile" in await site.kubectl.refused(policy("bad", profile="Harsh"))
        assert "spec.lines.maximum" in await site.kubectl.refused(policy("bad", lines={"maximum": 1}))
        # By a rule across fields (CEL).
        assert "spec.spend.slice.minimum" in await site.kubectl.refused(
            policy("bad", spend={"slice": {"first": 60, "minimum": 600}})
        )
        # By the operator: what a schema can't know.
        await site.kubectl.apply(policy("nowhere", lines={"timeZone": "Mars/Phobos"}, realm="a.example"))
        await waits(site, "cwsp/nowhere", "Accepted=False")
        nowhere = await site.kubectl.get("cwsp", "nowhere")
        assert "spec.lines.timeZone" in message(nowhere, "Accepted")
        assert conditions(nowhere)["Degraded"] == ("True", "NotInForce")
        assert (await bundle(site)).documents == ()


async def test_an_invalid_edit_leaves_the_last_good_version_and_all_others_in_force(
    site: OperatorSite,
) -> None:
    async with site.pods(2) as pods, site.operator():
        await site.kubectl.apply(
            policy("one", realm="a.example", lines={"max": 3}), policy("two", realm="b.example", lines={"max": 4})
        )
        await waits(site, "cwsp/one", "Applied")
        await site.kubectl.apply(policy("one", realm="a.example", lines={"max": 9, "timeZone": "Mars/Phobos"}))
        await waits(site, "cwsp/one", "Accepted=False")
        await site.kubectl.apply(policy("two", realm="b.example", lines={"max": 5}))
        await eventually(lambda: {pod.for_realm("b.example").lines.max for pod in pods} == {5}, what="the other one")
        assert {pod.for_realm("a.example").lines.max for pod in pods} == {3}
        one = await site.kubectl.get("cwsp", "one")
        assert conditions(one)["Degraded"] == ("True", "LastGoodInForce")


async def test_of_two_conflicting_policies_the_younger_is_refused(
    site: OperatorSite,
) -> None:
    async with site.operator():
        await site.kubectl.apply(policy("elder", priority=1, lines={"max": 3}))
        await waits(site, "cwsp/elder", "Accepted")
        await site.kubectl.apply(
            policy("younger", priority=1, lines={"max": 4}),
            policy("beside", priority=1, spend={"daily": {"endUser": 5}}),
        )
        await waits(site, "cwsp/younger", "Accepted=False")
        await waits(site, "cwsp/beside", "Accepted")  # it says nothing that another one says
        younger = await site.kubectl.get("cwsp", "younger")
        assert conditions(younger)["Accepted"] == ("False", "Conflict")
        assert "default/elder" in message(younger, "Accepted")
        assert "spec.lines.max" in message(younger, "Accepted")
        await site.kubectl.do("delete", "cwsp", "elder", "--timeout=60s")
        await waits(site, "cwsp/younger", "Accepted")  # the conflict is over


async def test_two_managers_that_use_server_side_apply_get_a_conflict(site: OperatorSite) -> None:
    async with site.operator():
        ours, theirs = ("--server-side", "--field-manager=ours"), ("--server-side", "--field-manager=theirs")
        await site.kubectl.apply(policy("shared", lines={"max": 3}), options=ours)
        await site.kubectl.apply(policy("shared", spend={"daily": {"endUser": 5}}), options=theirs)
        code, _, errors = await site.kubectl.run(
            "apply", "-f", "-", *theirs, stdin=json.dumps(policy("shared", lines={"max": 4}))
        )
        assert code != 0
        assert ".spec.lines.max" in errors
        await waits(site, "cwsp/shared", "Accepted")

        async def both() -> bool:
            documents = (await bundle(site)).documents
            return [dict(one.spec) for one in documents] == [{"lines": {"max": 3}, "spend": {"daily": {"endUser": 5}}}]

        await eventually(both, what="both managers' fields")


async def test_an_operator_killed_amid_two_hundred_policies_continues(site: OperatorSite) -> None:
    wanted = [policy(f"realm-{n}", realm=f"r{n}.example", lines={"max": n + 1}) for n in range(200)]
    async with site.pods(6) as pods:
        first = await site.start_operator()
        await site.kubectl.apply(*wanted[:100])
        await eventually(lambda: pods[0].current.revision > 0, what="a first bundle")
        await first.kill()
        await site.kubectl.apply(*wanted[100:])
        async with site.operator():

            async def all_applied() -> bool:  # `kubectl wait --all` asks one by one, five a second
                listed = (await site.kubectl.get("cwsp"))["items"]
                return [conditions(one).get("Applied") for one in listed] == [("True", "Enforced")] * 200

            await eventually(all_applied, timeout_s=90.0, interval_s=0.5, what="all of them in force")
            await waits(site, "cwsp/realm-199", "Applied")
            assert len((await bundle(site)).documents) == 200
            assert {pod.for_realm("r199.example").lines.max for pod in pods} == {200}
            before = (await bundle(site)).revision
            # Nothing is written where nothing has changed.
            second = await site.start_operator()
            await second.kill()
            assert (await bundle(site)).revision == before


async def test_of_two_operators_one_leads_and_the_other_takes_over(site: OperatorSite) -> None:
    async def holder() -> str:
        lease = await site.kubectl.get("lease", "callwarden-security-policy")
        return str(lease["spec"].get("holderIdentity", ""))

    first = await site.start_operator()
    await eventually(lambda: _is_logged(first.log, "leader.elected"), what="a leader")
    async with site.operator() as second:
        await site.kubectl.apply(policy("house", lines={"max": 3}))
        await waits(site, "cwsp/house", "Accepted")
        assert await holder() == first.name
        assert not _is_logged(second.log, "leader.elected")
        await first.kill()
        await site.kubectl.apply(policy("house", lines={"max": 4}))

        async def taken() -> bool:
            documents = (await bundle(site)).documents
            return [one.spec["lines"]["max"] for one in documents] == [4]

        await eventually(taken, timeout_s=60.0, what="the other one's work")
        assert await holder() == second.name


async def test_a_hundred_pods_enforce_a_change(site: OperatorSite) -> None:
    async with site.pods(100) as pods, site.operator():
        await site.kubectl.apply(policy("house", lines={"max": 3}))
        await waits(site, "cwsp/house", "Applied")
        assert {pod.for_realm("").lines.max for pod in pods} == {3}
        services = (await site.kubectl.get("cwsp", "house"))["status"]["services"]
        assert sum(one["running"] for one in services) == 100


async def test_pods_that_shut_down_in_order_no_longer_count(site: OperatorSite) -> None:
    async with site.operator():
        async with site.pods(2):
            await site.kubectl.apply(policy("house", lines={"max": 3}))
            await waits(site, "cwsp/house", "Applied")
        await waits(site, "cwsp/house", "Applied=Unknown")
        house = await site.kubectl.get("cwsp", "house")
        assert house["status"]["services"] == []
        assert conditions(house)["Applied"] == ("Unknown", "NoPods")


async def test_while_nats_is_away_nothing_is_reported_as_applied(site: OperatorSite) -> None:
    async with site.operator():
        await site.kubectl.apply(policy("house", lines={"max": 3}))
        await waits(site, "cwsp/house", "Accepted")
        await site.nats.kill()
        await site.kubectl.apply(policy("house", lines={"max": 4}))
        await asyncio.sleep(0)
        await site.nats.restart()

        async def written() -> bool:
            return [one.spec["lines"]["max"] for one in (await bundle(site)).documents] == [4]

        await eventually(written, timeout_s=60.0, what="the bundle")


async def test_a_ban_resource_bans_as_long_as_it_exists(site: OperatorSite) -> None:
    async def banned() -> dict[str, str]:
        async with Bus(site.nats.url, name="test", declare=False) as bus:
            entries = (await bus.kv(Bucket.BANS).items()).values()
        bans = [events_pb2.Ban.FromString(entry.value) for entry in entries]
        return {one.address: one.reason for one in bans}

    def ban(name: str, **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "default"}
        return {"apiVersion": "callwarden.io/v1", "kind": "Ban", "metadata": metadata, "spec": spec}

    async with site.rate_guard(own_addresses="198.51.100.0/24") as address, site.operator(rate_guard=address):
        # One of our own: refused, and in nobody's way.
        await site.kubectl.apply(ban("own", address="198.51.100.7"))
        await site.kubectl.apply(ban("guest", address="192.0.2.7", reason="abuse", duration="1h"))
        await site.kubectl.apply(ban("later", address="192.0.2.7", reason="other"))
        await waits(site, "cwban/guest", "Applied")
        await waits(site, "cwban/own", "Accepted=False")
        await waits(site, "cwban/later", "Accepted=False")
        assert await banned() == {"192.0.2.7": "abuse"}
        assert "spec.address" in message(await site.kubectl.get("cwban", "own"), "Accepted")
        assert conditions(await site.kubectl.get("cwban", "later"))["Accepted"] == ("False", "Conflict")
        guest = await site.kubectl.get("cwban", "guest")
        table = await site.kubectl.do("get", "cwban", "guest")
        assert guest["status"]["until"] in table, "as a date it would be <invalid>, since it is to come"
        assert guest["status"]["until"] > guest["metadata"]["creationTimestamp"]
        assert "spec.address" in await site.kubectl.refused(ban("guest", address="192.0.2.8", duration="1h"))

        await site.kubectl.do("delete", "cwban", "guest", "--timeout=60s")
        await waits(site, "cwban/later", "Applied")  # the next one that names the address
        assert await banned() == {"192.0.2.7": "other"}
        await site.kubectl.do("delete", "cwban", "later", "own", "--timeout=60s")
        assert await banned() == {}


def _is_logged(log: Path, event: str) -> bool:
    return log.exists() and event in log.read_text()
