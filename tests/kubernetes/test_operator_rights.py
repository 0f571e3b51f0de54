"""The operator works with exactly what the chart lets it do."""

import re

import pytest

from callwarden.testing import kube_tools
from tests.chart.rendering import NAMESPACE, VERSIONS, rendered
from tests.kubernetes.cluster import BUILD_TIMEOUT_S, OWN_CLUSTER, missing
from tests.kubernetes.conftest import Site

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(BUILD_TIMEOUT_S),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(OWN_CLUSTER, reason="makes ServiceAccounts and roles: not on somebody's cluster"),
    kube_tools.needs_kube_tools(),
]

AS_OPERATOR = ("--as", f"system:serviceaccount:{NAMESPACE}:cw-callwarden-security-policy")


async def test_the_charts_rights_are_enough_and_nothing_else_is_asked_for(site: Site) -> None:
    kubeconfig = await site.cluster.account(rendered("default", VERSIONS[-1], "--set", "rateDecks.namespaces={sales}"))
    readable = {
        namespace: await site.kubectl.run("auth", "can-i", "get", "configmaps", "-n", namespace, *AS_OPERATOR)
        for namespace in (NAMESPACE, "sales", "default", "kube-system")
    }
    assert {name for name, (code, _, _) in readable.items() if code == 0} == {NAMESPACE, "sales"}
    async with site.pods(2), site.operator(kubeconfig, lease_namespace=NAMESPACE) as operator:
        house = {
            "apiVersion": "callwarden.io/v1",
            "kind": "SecurityPolicy",
            "metadata": {"name": "house", "namespace": "default"},
            "spec": {"lines": {"max": 3}},
        }
        await site.kubectl.apply(house)
        await site.kubectl.do("wait", "--for=condition=Applied", "cwsp/house", "--timeout=60s")
        events = await site.kubectl.get("events")
        assert "Accepted" in {each["reason"] for each in events["items"]}
        await site.kubectl.do("delete", "cwsp", "house", "--timeout=60s")
        said = operator.log.read_text()
    assert not re.search(r"forbidden|denied|Unauthorized", said, re.IGNORECASE), said
