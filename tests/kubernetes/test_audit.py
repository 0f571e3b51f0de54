"""`callwarden audit` of a real cluster by the real kubectl: what is weak or missing is found."""

import asyncio
import os
import shlex
from typing import Any

import pytest

from callwarden.cli.audit import report
from callwarden.cli.audit.finding import AuditFinding
from callwarden.cli.audit.sources.cluster import SELECTOR, ClusterUnreachable, Kubectl, evidence
from callwarden.testing import kube_tools
from tests.kubernetes.cluster import CLUSTER_TIMEOUT_S, OWN_CLUSTER, missing
from tests.kubernetes.conftest import OperatorSite
from tests.kubernetes.test_resources import resource

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(CLUSTER_TIMEOUT_S),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.setting("audit-checklist"),
    kube_tools.needs_kube_tools(),
]


@pytest.fixture(autouse=True)
def administrator(site: OperatorSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """kubectl in PATH, with the cluster in its configuration."""
    folder = kube_tools.program("kubectl").parent
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("KUBECONFIG", str(site.cluster.kubeconfig))


async def audited() -> dict[str, AuditFinding]:
    """What is to be done, by rule."""
    found = await asyncio.to_thread(evidence, Kubectl())
    return {one.rule.id: one for one in report.findings(found) if one.severity.rank}


def labelled(kind: str, version: str, name: str, **content: Any) -> dict[str, Any]:
    key, _, value = SELECTOR.partition("=")
    metadata = {"name": name, "namespace": "default", "labels": {key: value}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}


async def test_a_weak_policy_is_found_and_its_line_closes_it(site: OperatorSite) -> None:
    weak = {"profile": "Hardened", "fraud": {"blockPremium": False}, "modes": {"lines": "Report"}}
    await site.kubectl.apply(resource("SecurityPolicy", "main", **weak))
    before = await audited()
    assert set(before) == {"policy/opened/fraud.blockPremium", "policy/modes"}
    for finding in before.values():
        assert finding.place.name == "SecurityPolicy default/main"
        line = [finding.fix if word == "LINE" else word for word in shlex.split(finding.how)]
        assert line.pop(0) == "kubectl"
        await site.kubectl.do(*line)
    assert await audited() == {}


@pytest.mark.skipif(OWN_CLUSTER, reason="another cluster may have more of Callwarden")
async def test_without_any_policy_the_defaults_are_audited(site: OperatorSite) -> None:
    with pytest.raises(ClusterUnreachable, match="nothing of Callwarden"):
        await audited()
    sender = {"address": "192.0.2.7:5060", "direction": "traffic-sender", "account": "office"}
    await site.kubectl.apply(resource("Trunk", "office", **sender))
    found = await audited()
    assert found["policy/maxwrongauthfromip"].place.name == "no policy"
    assert "kubectl apply" in found["policy/maxwrongauthfromip"].how
    assert "techPrefix" in found["trunk/address-alone"].fix


async def test_rights_secrets_and_what_the_cluster_lacks_are_found(
    site: OperatorSite,
) -> None:
    every = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    weak = (
        labelled("Role", "rbac.authorization.k8s.io/v1", "auditee", rules=[every]),
        labelled("ConfigMap", "v1", "auditee", data={"NATS_PASSWORD": "hunter2"}),
    )
    await site.kubectl.apply(resource("SecurityPolicy", "main", profile="Hardened"), *weak)
    try:
        found = await asyncio.to_thread(evidence, Kubectl())
        assert {one.rule.id for one in report.findings(found) if one.severity.rank} == {
            "deploy/rights", "deploy/secret-in-config-map"
        }  # fmt: skip
        lacking = {note.removeprefix("not looked at: ").partition(" ")[0] for note in found.notes}
        assert OWN_CLUSTER or {"deployments", "pods", "networkpolicies"} <= lacking
        assert "roles" not in lacking
    finally:
        await site.kubectl.do("delete", "role/auditee", "configmap/auditee")
