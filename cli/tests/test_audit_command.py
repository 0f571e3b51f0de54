"""`callwarden audit` on files: what it says to people, programs and code scanning, and how it ends."""

import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from callwarden.cli.audit import report, sarif, text
from callwarden.cli.audit.finding import AuditFinding, AuditPlace, AuditRule, AuditSeverity
from callwarden.cli.audit.sources.files import FILE_BYTES_MAX, NotAuditable, evidence
from callwarden.cli.main import run
from cli.tests.on_screen import STRANGE
from cli.tests.sarif_schema import sarif_schema

HEAD = "apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {name: main}\n"
WEAK = f"""{HEAD}spec:
  profile: Hardened
  fraud:
    # Somebody asked for it.
    blockPremium: false
  authFailures:
    perAddress: {{max: 9000}}
"""
SAFE = f"{HEAD}spec: {{profile: Hardened}}\n"
POD = """apiVersion: apps/v1
kind: DaemonSet
metadata: {name: edge, namespace: voip}
spec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for name, content in (("weak.yaml", WEAK), ("safe.yaml", SAFE), ("pod.yaml", POD)):
        (tmp_path / name).write_text(content)
    return tmp_path


def audited(*arguments: str) -> int:
    return run(["audit", *arguments])


@pytest.mark.setting("audit-checklist")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("-f safe.yaml", 0),
        ("-f weak.yaml", 1),
        ("-f weak.yaml --fail-on critical", 1),
        ("-f safe.yaml --fail-on info", 1),
        ("-f safe.yaml -f pod.yaml", 1),
        ("-f safe.yaml --fail-on low", 0),
        ("-f safe.yaml --cluster", 2),
        ("-f missing.yaml", 2),
        ("-f safe.yaml --fail-on never", 2),
        ("-f safe.yaml --to missing/report", 2),
        ("", 2),
    ],
)
def test_the_exit_code_is_for_ci(arguments: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audited(*arguments.split()) == code
    said = capsys.readouterr().err
    assert (said == "") is (code == 0)
    assert "Traceback" not in said


def test_people_read_what_is_open_where_why_and_the_line_that_closes_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audited("-f", "weak.yaml") == 1
    out = capsys.readouterr()
    assert re.search(r"CRITICAL +policy/maxwrongauthfromip  SecurityPolicy main \(weak.yaml:10\)", out.out)
    assert "spec.authFailures.perAddress.max is 9000, hardened: 100" in out.out
    assert "So many passwords can be guessed" in out.out
    assert "spec: {authFailures: {perAddress: {max: 100}}}" in out.out
    assert out.out.index("CRITICAL") < out.out.index("HIGH") < out.out.index("INFO")
    assert out.err.startswith("callwarden: 2 of ")


def test_a_line_is_never_broken_so_that_it_can_be_copied() -> None:
    rule = AuditRule("r", AuditSeverity.LOW, "title", "why")
    finding = AuditFinding(rule, AuditSeverity.LOW, AuditPlace("p"), "what", f"spec: {{a: {'x' * 300}}}")
    assert f"{finding.fix}\n" in f"{text.rendered([finding], 's', (), 60)}\n"


def test_what_strangers_wrote_does_not_reach_the_terminal_as_commands() -> None:
    finding = AuditFinding(
        AuditRule("r", AuditSeverity.LOW, "t", "w"), AuditSeverity.LOW, AuditPlace(STRANGE), STRANGE, STRANGE, STRANGE
    )
    seen = str(text.rendered([finding], STRANGE, (STRANGE,), 80))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", seen)


def test_programs_read_every_finding_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audited("-f", "weak.yaml", "--output", "json") == 1
    said = json.loads(capsys.readouterr().out)
    (premium,) = [one for one in said["findings"] if one["rule"] == "policy/opened/fraud.blockPremium"]
    assert premium["settings"] == ["blockpremiumnumbers"]
    assert (premium["file"], premium["line"], premium["severity"]) == ("weak.yaml", 8, "high")
    assert yaml.safe_load(premium["fix"]) == {"spec": {"fraud": {"blockPremium": True}}}


@pytest.mark.parametrize("arguments", [["-f", "weak.yaml", "-f", "pod.yaml"], ["-f", "safe.yaml"]])
def test_code_scanning_reads_sarif_that_keeps_to_its_schema(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audited(*arguments, "--output", "sarif", "--to", "out.sarif", "--fail-on", "critical")
    log = json.loads((folder / "out.sarif").read_text())
    jsonschema.validate(log, sarif_schema())
    (one_run,) = log["runs"]
    rules = [rule["id"] for rule in one_run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    for result in one_run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1
    prints = [result["partialFingerprints"]["callwardenAudit/v1"] for result in one_run["results"]]
    assert len(set(prints)) == len(prints)


def test_sarif_of_what_is_in_no_file_keeps_to_the_schema_too() -> None:
    finding = AuditFinding(report.RULES[0], AuditSeverity.HIGH, AuditPlace("Deployment voip/x"), "open")
    away = AuditFinding(report.RULES[0], AuditSeverity.HIGH, AuditPlace("x", "/tmp/a b.yaml", 3), "open", "spec: {}")
    jsonschema.validate(sarif.log([finding, away], report.RULES), sarif_schema())


def test_a_finding_stays_the_same_one_when_lines_move(folder: Path) -> None:
    def prints() -> list[str]:
        audited("-f", "weak.yaml", "--output", "sarif", "--to", "out.sarif")
        results = json.loads((folder / "out.sarif").read_text())["runs"][0]["results"]
        return [result["partialFingerprints"]["callwardenAudit/v1"] for result in results]

    before = prints()
    (folder / "weak.yaml").write_text(f"# moved\n\n{WEAK}")
    assert prints() == before


def test_the_lines_written_into_the_file_close_what_was_open(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audited("-f", "weak.yaml", "--output", "json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    body = yaml.safe_load(WEAK)
    for line in (one["fix"] for one in findings if one["fix"]):
        _lay_over(body, yaml.safe_load(line))
    (folder / "weak.yaml").write_text(yaml.safe_dump(body))
    assert audited("-f", "weak.yaml", "--fail-on", "low") == 0


def _lay_over(body: Any, change: Any) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            _lay_over(body.setdefault(key, {}), value)
        else:
            body[key] = value


def test_standard_input_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(WEAK))
    assert audited("-f", "-") == 1
    assert "(standard input:10)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no Kubernetes object"),
        ("{", "is not YAML"),
        ("- 1\n", "f:1: is no Kubernetes object"),
        ("a: &x 1\nb: *x\n", "aliases"),
        (f"{HEAD}spec: {{lines: {{max: many}}}}\n", "spec.lines.max"),
        ("#" * (FILE_BYTES_MAX + 1), "larger"),
    ],
    ids=["empty", "broken", "list", "alias", "bad policy", "large"],
)
def test_what_cannot_be_audited_is_told_with_the_reason(content: str, reason: str) -> None:
    with pytest.raises(NotAuditable, match=reason):
        evidence([("f", content)])


def test_a_list_of_kubectl_is_looked_into() -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(WEAK), yaml.safe_load(POD)]}
    found = {one.rule.id for one in report.findings(evidence([("f", yaml.safe_dump(body))]))}
    assert {"policy/opened/fraud.blockPremium", "deploy/root"} <= found


def test_a_rendered_chart_without_policies_says_nothing_of_policies() -> None:
    assert not [one for one in report.findings(evidence([("f", POD)])) if one.rule.id.startswith("policy/")]


@pytest.mark.setting("spoofing")
@pytest.mark.parametrize(
    ("spec", "is_open"),
    [
        ({"direction": "traffic-sender", "address": "192.0.2.1:5060"}, True),
        ({"direction": "traffic-sender", "address": "192.0.2.1:5060", "techPrefix": "77"}, False),
        ({"direction": "traffic-sender", "address": "192.0.2.1:5060", "enabled": False}, False),
        ({"direction": "carrier", "address": "192.0.2.1:5060"}, False),
    ],
)
def test_a_trunk_that_its_address_alone_proves_is_found(spec: dict[str, Any], is_open: bool) -> None:
    body: dict[str, Any] = {
        "apiVersion": "callwarden.io/v1",
        "kind": "Trunk",
        "metadata": {"name": "t", "namespace": "voip"},
        "spec": spec,
    }
    found = report.findings(evidence([("f", yaml.safe_dump(body))]))
    assert [one.rule.id for one in found] == (["trunk/address-alone"] if is_open else [])
    if is_open:
        _lay_over(body, yaml.safe_load(found[0].fix))
        assert report.findings(evidence([("f", yaml.safe_dump(body))])) == []


def test_every_example_policy_can_be_audited() -> None:
    for path in sorted((Path(__file__).parents[2] / "deploy/examples").glob("policy*.yaml")):
        assert report.findings(evidence([(path.name, path.read_text())]))
