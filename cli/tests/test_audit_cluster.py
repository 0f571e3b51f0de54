"""`callwarden audit` through kubectl: what it asks for, what it never asks for, and how it ends without an answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from callwarden.cli.audit import deployment, report
from callwarden.cli.audit.objects import Object, Objects
from callwarden.cli.audit.sources.cluster import ClusterUnreachable, Kubectl, evidence
from callwarden.cli.main import kubectl_plugin, run
from callwarden.testing.kube_tools import needs_kube_tools, program
from cli.tests.strategic_merge import merge
from cli.tests.test_audit_deployment import BESIDE, CASES, WORKLOAD

POLICY = {
    "apiVersion": "callwarden.io/v1",
    "kind": "SecurityPolicy",
    "metadata": {"name": "main", "namespace": "voip"},
    "spec": {"profile": "Hardened", "fraud": {"blockPremium": False}},
}
Script = Callable[[str], str]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a program called kubectl first in PATH that does what the Python text says; arguments in `asked.txt`."""

    def write(text: str) -> str:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "kubectl"
        asked = str(tmp_path / "asked.txt")
        log = f"import sys, json, time\nprint(*sys.argv[1:], file=open({asked!r}, 'a'))\n"
        program.write_text(f"#!{sys.executable}\n{log}{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return str(program)

    return write


def answers(*bodies: Any) -> str:
    """A kubectl that finds these objects, each when its kind is asked for."""
    return (
        f"bodies = json.loads({json.dumps(bodies)!r})\n"
        "asked = [kind.split('.')[0].rstrip('s') for kind in sys.argv[2].split(',')]\n"
        "found = [b for b in bodies if b['kind'].lower().removesuffix('y') in [a.removesuffix('ie') for a in asked]]\n"
        "print(json.dumps({'kind': 'List', 'items': found}) if found else '')"
    )


def test_policies_workloads_and_networks_are_looked_at(script: Script, tmp_path: Path) -> None:
    script(answers(POLICY, WORKLOAD, *BESIDE))
    found = report.findings(evidence(Kubectl()))
    assert [one.rule.id for one in found if one.severity.rank] == ["policy/opened/fraud.blockPremium"]
    assert found[0].place.name == "SecurityPolicy voip/main"
    assert found[0].how == "kubectl patch cwsp main -n voip --type merge -p 'LINE'"


def test_secrets_are_never_asked_for(script: Script, tmp_path: Path) -> None:
    script(answers(POLICY, WORKLOAD))
    evidence(Kubectl())
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert asked
    assert all(line.startswith("get ") for line in asked)
    assert not any("secret" in line.replace("securitypolic", "") for line in asked)


def test_context_namespace_and_labels_go_to_kubectl(script: Script, tmp_path: Path) -> None:
    script(answers(POLICY, WORKLOAD))
    assert run(["audit", "--context", "prod", "-n", "voip", "--selector", "a=b", "--output", "json"]) == 1
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert all("--context=prod" in line for line in asked)
    (workloads,) = [line for line in asked if "deployments" in line]
    assert "--namespace=voip" in workloads
    assert "--selector=a=b" in workloads


def test_as_a_plugin_it_looks_at_the_cluster(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(answers(POLICY, WORKLOAD, *BESIDE))
    monkeypatch.setattr(sys, "argv", ["kubectl-callwarden", "audit"])
    with pytest.raises(SystemExit) as ended:
        kubectl_plugin()
    assert ended.value.code == 1
    assert "Audit of cluster" in capsys.readouterr().out


def test_a_policy_that_was_refused_protects_nobody(script: Script) -> None:
    refused = {**POLICY, "spec": {"fraud": {"blockPremium": "perhaps"}}}
    refused["status"] = {"conditions": [{"type": "Accepted", "status": "False", "message": "spec.fraud.blockPremium"}]}
    script(answers(refused, WORKLOAD, *BESIDE))
    found = {one.rule.id for one in report.findings(evidence(Kubectl()))}
    assert {"deploy/policy-status", "policy/maxwrongauthfromip"} <= found


def test_a_policy_of_a_realm_that_its_namespace_may_not_act_on_protects_nobody(script: Script) -> None:
    status = {"conditions": [{"type": "Applied", "status": "False", "reason": "RealmNotAllowed", "message": "sales"}]}
    script(answers({**POLICY, "status": status}, WORKLOAD, *BESIDE))
    found = {one.rule.id for one in report.findings(evidence(Kubectl()))}
    assert {"deploy/policy-status", "policy/maxwrongauthfromip"} <= found


def test_what_may_not_be_read_is_told_and_the_rest_is_audited(script: Script) -> None:
    script(
        "if 'networkpolicies' in sys.argv[2] or sys.argv[2] == 'namespaces':\n"
        "    print('Error from server (Forbidden): cannot list', file=sys.stderr); sys.exit(1)\n"
        + answers(POLICY, WORKLOAD, BESIDE[1])
    )
    found = evidence(Kubectl())
    assert {note.split()[3] for note in found.notes} == {"networkpolicies", "namespaces"}
    assert all("Forbidden" in note for note in found.notes)
    # What couldn't be looked at isn't told to be missing.
    assert [one.rule.id for one in report.findings(found) if one.severity.rank] == ["policy/opened/fraud.blockPremium"]


def test_a_cluster_that_knows_no_policies_runs_on_the_defaults(script: Script) -> None:
    script(
        "if 'callwarden.io' in sys.argv[2]:\n"
        "    print('error: the server doesn\\'t have a resource type \"x\"', file=sys.stderr); sys.exit(1)\n"
        + answers(WORKLOAD, *BESIDE)
    )
    found = evidence(Kubectl())
    assert [note.partition(" (")[0] for note in found.notes] == [
        f"not looked at: {kind}" for kind in ("securitypolicies", "clustersecuritypolicies", "trunks", "realmbindings")
    ]
    assert "policy/maxwrongauthfromip" in {one.rule.id for one in report.findings(found)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('Unable to connect: no route to host', file=sys.stderr); sys.exit(1)", "no route to host"),
        ("sys.exit(3)", "exit code 3"),
        ("print('<html>')", "isn't JSON"),
        ("print('')", "nothing of Callwarden"),
        ("time.sleep(600)", "no answer within"),
        ("while True: print('x' * 1_000_000)", "MiB"),
    ],
    ids=["refused", "silent", "html", "empty", "hangs", "endless"],
)
def test_what_cannot_be_asked_is_one_line_with_what_to_do(
    text: str, said: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callwarden.cli.audit.sources.cluster._REPLY_BYTES_MAX", 4 << 20)
    with pytest.raises(ClusterUnreachable, match=said):
        evidence(Kubectl(program=script(text), timeout_s=1.0 if "sleep" in text else 30.0))


def test_without_kubectl_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(["audit", "--cluster"]) == 2
    assert "kubectl is not in PATH" in capsys.readouterr().err


# ------------------------------------------------------------------ the real kubectl


@needs_kube_tools()
@pytest.mark.integration
def test_kubectl_finds_the_plugin_and_runs_it(tmp_path: Path) -> None:
    own, kubectl = str(Path(sys.executable).parent), program("kubectl")
    env = {"PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "COLUMNS": "200"}
    listed = subprocess.run([kubectl, "plugin", "list"], env=env, capture_output=True, text=True, timeout=60)
    assert f"{own}/kubectl-callwarden" in listed.stdout
    helped = subprocess.run([kubectl, "callwarden", "--help"], env=env, capture_output=True, text=True, timeout=60)
    assert (helped.returncode, "kubectl callwarden [OPTIONS]" in helped.stdout) == (0, True)
    said = subprocess.run(
        [kubectl, "callwarden", "audit", "-f", "missing.yaml"], env=env, capture_output=True, text=True, timeout=60
    )
    assert (said.returncode, said.stderr) == (2, "callwarden: missing.yaml: No such file or directory\n")


@needs_kube_tools()
@pytest.mark.integration
def test_kubectl_patches_as_the_lines_are_meant(tmp_path: Path) -> None:
    """All lines at once, each on its own object; `--local` asks no cluster."""
    for number, (rule, workload) in enumerate(CASES):
        body = {"apiVersion": "apps/v1", **workload}
        (finding,) = deployment.findings(Objects([Object(one) for one in (body, *BESIDE)]))
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(body))
        command = [str(program("kubectl")), "patch", "--local", "-f", str(file), "-o", "json", "--type", "strategic"]
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        patched = subprocess.run([*command, "-p", finding.fix], env=env, capture_output=True, text=True, timeout=60)
        assert patched.returncode == 0, (rule, patched.stderr)
        after = json.loads(patched.stdout)
        assert list(deployment.findings(Objects([Object(one) for one in (after, *BESIDE)]))) == [], rule
        assert _said(after, merge(body, yaml.safe_load(finding.fix))), rule


def _said(whole: Any, part: Any) -> bool:
    """Whether a value holds everything that another says, beside what kubectl adds; lists in any order."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and _said(whole[key], part[key]) for key in part if part[key] not in ({}, [])
        )
    if isinstance(part, list):
        return len(whole) == len(part) and all(any(_said(one, item) for one in whole) for item in part)
    return bool(whole == part)


@needs_kube_tools()
@pytest.mark.integration
def test_kubectl_patches_a_policy_with_its_line(tmp_path: Path, script: Script) -> None:
    script(answers(POLICY, WORKLOAD, *BESIDE))
    (finding,) = [one for one in report.findings(evidence(Kubectl())) if one.severity.rank]
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(POLICY))
    command = [
        str(program("kubectl")),
        "patch",
        "--local",
        "-f",
        str(file),
        "-o",
        "json",
        "--type",
        "merge",
        "-p",
        finding.fix,
    ]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    patched = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert patched.returncode == 0, patched.stderr
    script(answers(json.loads(patched.stdout), WORKLOAD, *BESIDE))
    assert [one for one in report.findings(evidence(Kubectl())) if one.severity.rank] == []
