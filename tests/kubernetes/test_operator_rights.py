"""The operator works with exactly what the chart lets it do."""

import re

import pytest

from callwarden.testing import kube_tools
from callwarden.testing.waiting import eventually
from tests.chart.rendering import NAMESPACE, VERSIONS, rendered
from tests.kubernetes.cluster import CLUSTER_TIMEOUT_S, OWN_CLUSTER, missing
from tests.kubernetes.conftest import OperatorSite
from tests.kubernetes.test_operator import binding

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(CLUSTER_TIMEOUT_S),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(OWN_CLUSTER, reason="makes ServiceAccounts and roles: not on somebody's cluster"),
    kube_tools.needs_kube_tools(),
]

AS_OPERATOR = ("--as", f"system:serviceaccount:{NAMESPACE}:cw-callwarden-security-policy")
OTHERS = ("Ban", "Trunk", "RateDeck")


async def test_the_charts_rights_are_sufficient_and_all_are_used(site: OperatorSite) -> None:
    chosen = rendered("default", VERSIONS[-1], "--set", "rateDecks.namespaces={default}")
    kubeconfig = await site.cluster.account(chosen)
    readable = {
        namespace: await site.kubectl.run("auth", "can-i", "get", "configmaps", "-n", namespace, *AS_OPERATOR)
        for namespace in (NAMESPACE, "default", "kube-system")
    }
    assert {namespace for namespace, (code, _, _) in readable.items() if code == 0} == {NAMESPACE, "default"}
    # Nobody answers there: what the operator asks of the API server is the same.
    away = {"rate_guard": "127.0.0.1:1", "administration": "127.0.0.1:1", "rating": "127.0.0.1:1"}
    async with site.pods(2), site.operator(kubeconfig, lease_namespace=NAMESPACE, **away) as operator:
        house = {
            "apiVersion": "callwarden.io/v1",
            "kind": "SecurityPolicy",
            "metadata": {"name": "house", "namespace": "default"},
            "spec": {"lines": {"max": 3}},
        }
        await site.kubectl.apply(binding("default", "default", realms=["*"]), house)
        await site.kubectl.do("wait", "--for=condition=Applied", "cwsp/house", "--timeout=60s")
        ban = {**house, "kind": "Ban", "spec": {"address": "192.0.2.7"}}
        trunk = {**house, "kind": "Trunk", "spec": {"address": "192.0.2.10:5060"}}
        deck = {**house, "kind": "RateDeck", "spec": {"configMap": {"name": "house"}}}
        prices = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": house["metadata"], "data": {"rates.csv": "x"}}
        await site.kubectl.apply(prices, ban, trunk, deck)
        for what in ("cwban/house", "cwtrunk/house", "cwdeck/house"):
            await site.kubectl.do("wait", "--for=condition=Accepted", what, "--timeout=60s")

        async def are_reported() -> bool:
            events = (await site.kubectl.get("events"))["items"]
            found = {(each["involvedObject"]["kind"], each["reason"]) for each in events}
            return found >= {("SecurityPolicy", "Applied"), *((kind, "Unavailable") for kind in OTHERS)}

        await eventually(are_reported, what="an event about each")
        await site.kubectl.do("delete", "configmap", "house")
        await site.kubectl.do("delete", "cwsp", "house", "--timeout=60s")
        said = operator.log.read_text()
    assert not re.search(r"forbidden|denied|Unauthorized", said, re.IGNORECASE), said
