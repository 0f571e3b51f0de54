"""The chart by a real helm: what it renders is valid, closed, least, and of the code."""

import functools
import importlib
import json
import pkgutil
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils as validator
import pytest
import yaml

import callwarden
from callwarden.common.metrics import CATALOGUE
from callwarden.common.settings import Settings
from callwarden.schema import job, roles
from callwarden.security_policy_operator.app import bans, decks, realms, trunks
from callwarden.security_policy_operator.app.policies import PLURALS as POLICIES
from callwarden.security_policy_operator.settings import OperatorSettings
from callwarden.testing.kube_tools import needs_kube_tools
from tests.chart.rendering import (
    CASES,
    CHART,
    NAMESPACE,
    ROOT,
    VERSIONS,
    Object,
    arguments_of,
    containers,
    helm,
    matches,
    of_kind,
    pods,
    rendered,
)

pytestmark = needs_kube_tools()

# Kinds that no schema of Kubernetes itself knows, with the group each must have.
FOREIGN: Final = {
    "Certificate": "cert-manager.io/v1",
    "Issuer": "cert-manager.io/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "UDPRoute": "gateway.networking.k8s.io/v1alpha2",
}
# Of others: their probes, commands and environment are their images' own.
THEIRS: Final = {"nats", "postgres", "backup"}
# Members whose package isn't called as they are.
PACKAGES: Final = {"security-policy": "security_policy_operator", "administration": "call_admission"}
SERVICES: Final = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
OTHER_PROCESSES: Final = ("security-policy", "administration")


# ------------------------------------------------------------------ valid


@pytest.mark.parametrize("case", CASES)
def test_helm_has_nothing_to_say_against_it(case: str) -> None:
    result = helm("lint", "--strict", str(CHART), *arguments_of(case))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_in_every_version_of_kubernetes(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The schemas are some megabytes, and read again for each object otherwise.
    monkeypatch.setattr(validator, "schema_contents", functools.cache(validator.schema_contents))
    seen = {json.dumps(each, sort_keys=True) for case in CASES for each in rendered(case, version)}
    assert len(seen) > 100
    for text in sorted(seen):
        each = json.loads(text)
        if each["kind"] in FOREIGN:
            assert each["apiVersion"] == FOREIGN[each["kind"]]
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kubernetes_validate.validate(each, version.rpartition(".")[0], strict=True)


def test_every_foreign_kind_is_rendered_by_some_case() -> None:
    assert {each["kind"] for case in CASES for each in rendered(case)} >= FOREIGN.keys()


@pytest.mark.parametrize("case", CASES)
def test_no_two_objects_have_one_name(case: str) -> None:
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in rendered(case)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "wrong",
    [
        "replicas=3",
        "services.auht.enabled=true",
        "services.auth.replica=3",
        "services.auth.settings.database_url=postgresql://x",
        "services.auth.settings.credential_key=00",
        "services.security-policy.settings.lease_name=other",
        "edge.kind=StatefulSet",
        "edge.sip.port=53",
        "pod.runAsUser=0",
        "telemetry.traceSampleRatio=2",
        "image.digests.auth=latest",
        "rateDecks.namespaces={*}",
    ],
)
def test_values_that_mean_nothing_or_harm_are_refused(wrong: str) -> None:
    result = helm("template", "cw", str(CHART), "--set", wrong)
    assert result.returncode != 0
    assert "schema" in result.stderr


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (["edge.service.type=LoadBalancer"], "edge.sip.advertised"),
        (["secrets.generate=true"], "secrets.generate"),
        (["backup.kind=cockroachdb"], "backup.destination"),
        (["edge.kind=DaemonSet"], "networkPolicy.edgeFrom"),
        (["edge.gateway.enabled=true", "edge.sip.advertised=a:1"], "parentRefs"),
    ],
)
def test_what_could_not_work_is_refused_with_a_word(values: list[str], complaint: str) -> None:
    result = helm("template", "cw", str(CHART), *(f"--set={value}" for value in values))
    assert result.returncode != 0
    assert complaint in result.stderr


# ------------------------------------------------------------------ hardened


@pytest.mark.setting("os-hardening")
@pytest.mark.parametrize("case", CASES)
def test_every_container_holds_the_restricted_standard_with_a_read_only_root(case: str) -> None:
    for name, container in containers(rendered(case)):
        security = container["securityContext"]
        assert security == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "privileged": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name
        assert {"requests", "limits"} <= container["resources"].keys(), name
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), name
    for name, pod in pods(rendered(case)):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any("hostPath" in volume for volume in pod["spec"].get("volumes", ())), name
        assert pod["spec"].get("hostNetwork", False) is (case == "edge-daemonset" and name.endswith("edge-proxy")), name


@pytest.mark.parametrize("case", CASES)
def test_only_the_operator_has_a_token_for_the_api_server(case: str) -> None:
    for name, pod in pods(rendered(case)):
        assert pod["spec"]["automountServiceAccountToken"] is name.endswith("security-policy"), name
        is_migration = pod["metadata"]["labels"]["app.kubernetes.io/name"] == "schema"
        assert pod["spec"]["serviceAccountName"] == ("cw-callwarden-schema-job" if is_migration else name)
    for each in of_kind(rendered(case), "ServiceAccount"):
        assert each["automountServiceAccountToken"] is False


@pytest.mark.parametrize("case", CASES)
def test_no_right_is_a_wildcard_and_none_reads_secrets(case: str) -> None:
    for each in of_kind(rendered(case), "Role", "ClusterRole"):
        for rule in each["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert "*" not in words
            assert not words & {"secrets", "pods/exec", "escalate", "bind", "impersonate"}


def test_the_operator_may_do_what_it_does_and_no_more() -> None:
    carried_out = {*POLICIES.values(), bans.PLURAL, trunks.PLURAL, decks.PLURAL}
    (cluster,) = of_kind(rendered("default"), "ClusterRole")
    (own,) = of_kind(rendered("default"), "Role")
    allowed = {
        (resource, *rule.get("resourceNames", ())): set(rule["verbs"])
        for rule in (*cluster["rules"], *own["rules"])
        for resource in rule["resources"]
    }
    needed: dict[tuple[str, ...], set[str]] = {
        ("configmaps",): {"get"},  # a RateDeck's rates
        ("events",): {"create"},
        ("leases",): {"create"},
        ("leases", str(OperatorSettings.model_fields["lease_name"].default)): {"get", "update"},
    }
    needed[realms.PLURAL,] = {"list", "watch"}  # an administrator writes them
    for kind in carried_out:
        needed |= {(kind,): {"list", "watch", "patch"}, (f"{kind}/status",): {"patch"}}
    assert allowed == needed


def test_configmaps_are_read_in_the_releases_namespace_and_in_those_that_are_named() -> None:
    for case, named in (("default", set()), ("everything", {"sales", "wholesale"})):
        reading = {
            each["metadata"].get("namespace", "everywhere"): each["metadata"]["name"]
            for each in of_kind(rendered(case), "Role", "ClusterRole")
            if any("configmaps" in rule["resources"] for rule in each["rules"])
        }
        assert reading.keys() == {NAMESPACE, *named}
        bound = {e["metadata"]["namespace"]: e for e in of_kind(rendered(case), "RoleBinding")}
        assert bound.keys() == reading.keys()
        for namespace, role in reading.items():
            assert bound[namespace]["roleRef"]["name"] == role
            assert [it["namespace"] for it in bound[namespace]["subjects"]] == [NAMESPACE]


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_in_a_configmap_or_written_into_an_environment(case: str) -> None:
    secret = re.compile(r"URL|KEY|PASSWORD|SECRET|TOKEN|ROLE")
    for name, container in containers(rendered(case)):
        for variable in container.get("env", ()):
            is_path = variable["name"].startswith("CALLWARDEN_TLS_") or variable["name"] == "CALLWARDEN_TOKEN_FILE"
            if re.fullmatch(r'"\$\(RAW_NATS_\w+\)"', variable.get("value", "")):
                continue  # another variable's, in quotes
            if secret.search(variable["name"]) and not is_path:
                assert set(variable["valueFrom"]) == {"secretKeyRef"}, f"{name}: {variable['name']}"
    for each in of_kind(rendered(case), "ConfigMap"):
        assert not re.search(r"://[^/\s]*:[^/\s]*@|BEGIN [A-Z ]*PRIVATE|password: *[^$\s]", json.dumps(each["data"]))


@pytest.mark.parametrize("case", CASES)
def test_pods_do_not_carry_what_each_release_changes(case: str) -> None:
    """Or an upgrade restarts servers that it doesn't touch."""
    for name, pod in pods(rendered(case)):
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(pod["metadata"]["labels"]), name


@pytest.mark.setting("db-roles")
@pytest.mark.parametrize("case", [case for case in CASES if case != "little"])
def test_every_pod_is_under_a_policy_and_denied_all_else(case: str) -> None:
    policies = list(of_kind(rendered(case), "NetworkPolicy"))
    (deny,) = (each for each in policies if each["metadata"]["name"].endswith("-default-deny"))
    assert set(deny["spec"]) == {"podSelector", "policyTypes"}
    for name, pod in pods(rendered(case)):
        labels = pod["metadata"]["labels"]
        assert matches(deny["spec"]["podSelector"], labels), name
        own = [each for each in policies if each is not deny and matches(each["spec"]["podSelector"], labels)]
        assert len(own) == 1, name
        assert own[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]


def reaching(case: str, port: int) -> set[str]:
    """The services whose policy lets them out to a TCP port."""
    return {
        each["metadata"]["labels"]["app.kubernetes.io/name"]
        for each in of_kind(rendered(case), "NetworkPolicy")
        for rule in each["spec"].get("egress", ())
        for allowed in rule["ports"]
        if allowed["port"] == port and allowed["protocol"] == "TCP"
    }


def test_edges_on_the_nodes_network_are_let_in_by_the_addresses_of_their_nodes() -> None:
    callers: dict[str, list[Object]] = {}
    for each in of_kind(rendered("edge-daemonset"), "NetworkPolicy"):
        service = each["metadata"]["labels"]["app.kubernetes.io/name"]
        callers[service] = [
            peer
            for rule in each["spec"].get("ingress", ())
            if any(allowed["port"] == 7000 for allowed in rule["ports"])
            for peer in rule["from"]
        ]
    for service in ("auth", "call-admission", "rate-guard"):
        assert {"ipBlock": {"cidr": "10.0.0.0/8"}} in callers[service]
    for service in ("rating", "payment"):
        assert not any("ipBlock" in peer for peer in callers[service])
    found = [
        peer["podSelector"]["matchLabels"] for peers in callers.values() for peer in peers if "podSelector" in peer
    ]
    assert "edge-proxy" not in {labels["app.kubernetes.io/name"] for labels in found}


@pytest.mark.setting("db-roles")
def test_the_database_is_reached_by_the_services_that_use_it_only() -> None:
    users = {*roles.RIGHTS, "administration", "schema"}
    assert reaching("minimal", 5432) == users
    assert reaching("production", 26257) == users | {"backup"}
    (policy,) = (e for e in of_kind(rendered("minimal"), "NetworkPolicy") if e["metadata"]["name"].endswith("postgres"))
    (rule,) = policy["spec"]["ingress"]
    allowed = {peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for peer in rule["from"]}
    assert allowed == users | {"backup"}


@pytest.mark.parametrize("case", CASES)
def test_pods_of_ours_are_probed_spread_and_given_time_to_drain(case: str) -> None:
    for name, pod in pods(rendered(case)):
        component = pod["metadata"]["labels"]["app.kubernetes.io/name"]
        if component in THEIRS | {"schema"}:
            continue
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
        drain_s = int(environment(container)["CALLWARDEN_DRAIN_TIMEOUT_S"])
        pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        assert spec["terminationGracePeriodSeconds"] > pause_s + 2 * drain_s, name
        if "hostNetwork" not in spec:
            assert len(spec["topologySpreadConstraints"]) == 2


@pytest.mark.parametrize("case", CASES)
def test_the_name_that_callers_are_told_is_that_of_every_pod(case: str) -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(rendered(case), "Service")}
    told = {
        (match[1], int(match[2]))
        for _, container in containers(rendered(case))
        for value in environment(container).values()
        if (match := re.fullmatch(r"(cw-callwarden-[a-z-]+):(\d+)", value))
    }
    assert len(told) >= 3
    pods_of = {name: pod["spec"]["containers"][0] for name, pod in pods(rendered(case))}
    for name, number in told:
        assert services[name]["clusterIP"] == "None"
        # Without an address of its own a Service translates no port.
        assert number in {port["port"] for port in services[name]["ports"]}
        assert number in {port["containerPort"] for port in pods_of[name]["ports"]}


def test_production_scales_and_survives_maintenance() -> None:
    scaled = {
        each["spec"]["scaleTargetRef"]["name"] for each in of_kind(rendered("production"), "HorizontalPodAutoscaler")
    }
    assert scaled == {f"cw-callwarden-{service}" for service in SERVICES}
    for each in of_kind(rendered("production"), "Deployment"):
        assert ("replicas" in each["spec"]) is (each["metadata"]["name"] not in scaled)
    assert len(list(of_kind(rendered("production"), "PodDisruptionBudget"))) == len(SERVICES) + len(OTHER_PROCESSES)


@pytest.mark.setting("nonstandard-ports")
def test_every_port_can_be_chosen() -> None:
    more = [
        f"--set=services.{name}.{key}={n}"
        for n, (name, key) in enumerate(
            ((name, key) for name in (*SERVICES, "administration") for key in ("grpcPort", "metricsPort")), 20_001
        )
    ]
    objects = rendered("everything", VERSIONS[-1], *more)
    used = {port["containerPort"] for _, each in containers(objects) for port in each.get("ports", ())}
    assert not used & {7000, 5060}
    edge = {e["metadata"]["name"]: e for e in of_kind(objects, "Deployment")}["cw-callwarden-edge-proxy"]
    assert environment(edge["spec"]["template"]["spec"]["containers"][0])["CALLWARDEN_SIP_LISTEN"].endswith(":5070")


# ------------------------------------------------------------------ of the code


def environment(container: Object) -> dict[str, str]:
    """Written values by name; references are empty."""
    return {each["name"]: each.get("value", "") for each in container.get("env", ())}


def settings_of(service: str) -> type[Settings]:
    """The class of the process's settings."""
    package = PACKAGES.get(service, service.replace("-", "_"))
    names = {"administration": "Administration", "call-admission": "Admission", "security-policy": "Operator"}
    name = names.get(service) or "".join(part.capitalize() for part in service.removesuffix("-proxy").split("-"))
    found: type[Settings] = getattr(importlib.import_module(f"callwarden.{package}.settings"), f"{name}Settings")
    return found


@pytest.mark.parametrize("service", [*SERVICES, *OTHER_PROCESSES])
@pytest.mark.parametrize("case", CASES)
def test_the_chart_tells_a_service_only_what_its_settings_know(case: str, service: str) -> None:
    settings = settings_of(service)
    for name, container in containers(rendered(case)):
        if not name.endswith(f"/{service}"):
            continue
        told = {variable for variable in environment(container) if variable.startswith("CALLWARDEN_")}
        known = {f"CALLWARDEN_{field.upper()}" for field in settings.model_fields}
        assert told <= known
        assert {*environment(container)} - told <= {"POD_IP"}  # put into others by the kubelet
        required = {f"CALLWARDEN_{n.upper()}" for n, field in settings.model_fields.items() if field.is_required()}
        assert required <= told


@pytest.mark.parametrize("case", ["little", "edge-daemonset"])
def test_pods_with_ipv6_addresses_only_understand_where_they_are(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLWARDEN_NONCE_KEY", "a5" * 16)
    told: dict[tuple[str, str], str] = {}
    for name, container in containers(
        rendered(case, VERSIONS[-1], "--set=listenHost=[::]", "--set=edge.sip.advertised=")
    ):
        service = name.partition("/")[2]
        if service not in ("edge-proxy", "rate-guard"):
            continue
        texts = {
            variable.removeprefix("CALLWARDEN_").lower(): value.replace("$(POD_IP)", "fd00:10::5")
            for variable, value in environment(container).items()
            if "$(POD_IP)" in value
        }
        settings = settings_of(service).model_validate(texts)
        told |= {(service, setting): getattr(settings, setting) for setting in texts}
    assert told[("rate-guard", "advertise")] == "[fd00:10::5]:7000"
    assert told[("edge-proxy", "sip_advertised")] == "[fd00:10::5]:5060"
    assert all(value.startswith("[fd00:10::5]:") for value in told.values())


def test_each_service_is_in_the_chart_and_started_by_its_own_command() -> None:
    commands = {name.partition("/")[2]: each.get("command") for name, each in containers(rendered("default"))}
    for service in (*SERVICES, "schema", "security-policy"):
        folder = {"schema": "libs", "security-policy": "operators"}.get(service, "services")
        project = tomllib.loads((ROOT / folder / service / "pyproject.toml").read_text())["project"]
        assert commands[service] == [next(iter(project["scripts"]))]
    scripts = tomllib.loads((ROOT / "services" / "call-admission" / "pyproject.toml").read_text())["project"]["scripts"]
    assert [commands["call-admission"], commands["administration"]] == [[name] for name in scripts]


def test_the_job_gives_roles_to_the_services_that_have_rights() -> None:
    (container,) = (each for name, each in containers(rendered("default")) if name.endswith("/schema"))
    given = dict.fromkeys(environment(container), "postgresql+asyncpg://u@h/d")
    assert {name for name in given if "ROLE" in name} == {
        f"CALLWARDEN_ROLE_{service.upper().replace('-', '_')}" for service in roles.RIGHTS
    }
    job.wanted(given)


def metrics_of_the_code() -> set[str]:
    for package in ("common", *PACKAGES.values(), *(service.replace("-", "_") for service in SERVICES)):
        path = [str(Path(place) / package) for place in callwarden.__path__]
        for module in pkgutil.walk_packages(path, f"callwarden.{package}."):
            importlib.import_module(module.name)
    endings = ("_bucket", "_sum", "_count")
    return {n + e for n, metric in CATALOGUE.items() for e in (endings if metric.kind == "histogram" else ("",))}


def test_every_metric_that_is_watched_scaled_by_or_shown_is_one_of_the_code() -> None:
    text = "\n".join(path.read_text() for path in sorted((CHART / "files").rglob("*")) if path.is_file())
    text += (CHART / "values-production.yaml").read_text()
    named = set(re.findall(r"\bcallwarden_[a-z0-9_]+", text))
    assert len(named) > 30
    assert named <= metrics_of_the_code()


def test_alerts_say_what_is_wrong_and_how_bad() -> None:
    (group,) = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


# ------------------------------------------------------------------ skaffold


@pytest.fixture(scope="module")
def skaffold() -> Any:
    return yaml.safe_load((ROOT / "skaffold.yaml").read_text())


def test_skaffold_is_valid_and_builds_every_image_of_the_chart(skaffold: Any) -> None:
    jsonschema.validate(skaffold, json.loads((ROOT / "tests/data/skaffold-v4beta14.schema.json").read_text()))
    built = {each["image"]: each["docker"]["buildArgs"]["MEMBER"] for each in skaffold["build"]["artifacts"]}
    images = (each["image"].partition(":")[0] for _, each in containers(rendered("default")))
    assert set(built) == {image for image in images if image.startswith("callwarden/")}
    for member in built.values():
        assert (ROOT / member / "pyproject.toml").exists()
    for profile in skaffold["profiles"]:
        for patch in profile.get("deploy", {}).get("helm", {}).get("releases", ()):
            assert all((ROOT / file).exists() for file in patch["valuesFiles"])
