"""What a cluster and Helm make of the rendered chart: names, requests, and the order of migrations and services."""

from typing import Final

import kubernetes_validate
import pytest
import yaml

from callwarden.common.rpc.access import ROLES
from callwarden.testing.kube_tools import needs_kube_tools
from tests.chart.rendering import CASES, CHART, VERSIONS, arguments_of, containers, helm, of_kind, rendered

pytestmark = needs_kube_tools()

PROCESSES: Final = ROLES - {"admin", "monitor"}
# No schema of Kubernetes itself knows their kinds.
FOREIGN: Final = {"cert-manager.io", "monitoring.coreos.com"}


def test_minimal_asks_for_little() -> None:
    """So that it fits on one small node, next to what is there already."""
    asked = [c["resources"]["requests"]["cpu"] for name, c in containers(rendered("minimal")) if "/schema" not in name]
    assert len(asked) == len(PROCESSES) + 2
    assert sum(int(cpu.removesuffix("m")) for cpu in asked) <= 500


def test_names_that_look_like_numbers_stay_text() -> None:
    """Valid in Kubernetes, and numbers in YAML that isn't quoted."""
    more = ["secrets.database", "secrets.nats", "secrets.auth", "secrets.edgeProxy", "pod.priorityClassName"]
    settings = [f"--set-string={each}=1{number}" for number, each in enumerate([*more, "image.pullSecrets[0]"])]
    result = helm("template", "12", str(CHART), "--namespace=34", *arguments_of("production"), *settings)
    assert result.returncode == 0, result.stderr
    objects = tuple(each for each in yaml.safe_load_all(result.stdout) if each)
    for each in objects:
        if each["apiVersion"].partition("/")[0] not in FOREIGN:
            kubernetes_validate.validate(each, VERSIONS[-1].rpartition(".")[0], strict=True)
    assert {each["metadata"]["namespace"] for each in of_kind(objects, "Deployment")} == {"34"}


@pytest.mark.parametrize("case", [case for case in CASES if case != "little"])
def test_migrations_are_waited_for_by_services_and_wait_for_nothing_themselves(case: str) -> None:
    """As a hook they'd run after `--wait`, which waits for services that wait for them; and again at each upgrade."""
    (each,) = (each for each in of_kind(rendered(case), "Job") if "-schema-" in each["metadata"]["name"])
    assert not any(key.startswith("helm.sh/hook") for key in each["metadata"]["annotations"])
    assert each["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Sync"
    assert each["metadata"]["name"] == "cw-callwarden-schema-1", "its revision's own: a Job can't be changed"
    (container,) = each["spec"]["template"]["spec"]["containers"]
    told = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    assert int(told["CALLWARDEN_START_TIMEOUT_S"]) == each["spec"]["activeDeadlineSeconds"]
