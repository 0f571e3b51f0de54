"""The policy's part of the checklist: what is open is found where it is said, and the line named closes it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.cli.audit import policies
from callwarden.cli.audit.finding import AuditFinding, AuditSeverity
from callwarden.cli.audit.report import by_file, by_name
from callwarden.cli.yaml_lines import merged, nested
from callwarden.policy.bundle import Document, PolicySet, facts
from callwarden.policy.fields import leaves
from callwarden.policy.model import API_VERSION, CLUSTER_KIND, HARDENED, KIND

CATALOGUE: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[2] / "tests/data/settings.yaml").read_text())
WORST = (AuditSeverity.LOW, AuditSeverity.MEDIUM, AuditSeverity.HIGH, AuditSeverity.CRITICAL)


def document(name: str = "main", kind: str = KIND, **spec: Any) -> Document:
    return Document.from_object({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})


def audited(*documents: Document) -> list[AuditFinding]:
    return list(policies.findings(PolicySet.build(1, documents), by_name, by_file))


def open_rules(*documents: Document) -> set[str]:
    return {one.rule.id for one in audited(*documents) if one.severity is not AuditSeverity.INFO}


def closed(held: Document, finding: AuditFinding) -> Document:
    """The document with the line that the finding names laid over it."""
    return document(held.name, held.kind, **merged([held.spec, yaml.safe_load(finding.fix)["spec"]]))


@pytest.mark.setting("audit-checklist")
def test_every_row_with_a_hardened_value_is_on_the_checklist() -> None:
    asked = {row for rule in policies.RULES for row in rule.rows}
    for row in CATALOGUE:
        if "hardened" in row and str(row["field"]).startswith("spec."):
            assert row["id"] in asked, row["id"]
    assert {fact.catalogue[0] for path, _ in leaves(HARDENED) if (fact := facts()[path])} == set(policies.WHY)


def test_profile_hardened_leaves_nothing_open_that_a_service_enforces() -> None:
    assert open_rules(document(profile="Hardened")) == set()
    assert open_rules(document(**HARDENED)) == set()


def test_what_no_service_enforces_is_told_and_no_line_pretends_to_close_it() -> None:
    told = [one for one in audited(document(profile="Hardened")) if one.severity is AuditSeverity.INFO]
    unenforced = {path for path, _ in leaves(HARDENED) if not facts()[path].enforced}
    assert {one.what.split()[0].removeprefix("spec.") for one in told} <= unenforced
    assert all(one.fix == "" for one in told)


@pytest.mark.setting("audit-checklist")
def test_each_line_named_closes_its_finding_and_opens_none() -> None:
    held = document()
    for finding in audited(held):
        if finding.fix:
            before, after = open_rules(held), open_rules(closed(held, finding))
            assert after == before - {finding.rule.id}


def test_all_lines_together_close_everything() -> None:
    held = document()
    while remaining := [one for one in audited(held) if one.severity is not AuditSeverity.INFO]:
        held = closed(held, remaining[0])
    assert open_rules(held) == set()


OPENED: list[tuple[dict[str, Any], str, AuditSeverity]] = [
    ({"fraud": {"blockPremium": False}}, "policy/opened/fraud.blockPremium", AuditSeverity.HIGH),
    ({"fraud": {"blockSatellite": False}}, "policy/opened/fraud.blockSatellite", AuditSeverity.HIGH),
    ({"spend": {"checkPostpaid": False}}, "policy/opened/spend.checkPostpaid", AuditSeverity.HIGH),
    ({"modes": {"credit": "Off"}}, "policy/modes", AuditSeverity.HIGH),
    ({"modes": {"premium": "Report"}}, "policy/modes", AuditSeverity.MEDIUM),
    ({"firewall": {"allow": ["192.0.2.0/24", "0.0.0.0/0"]}}, "policy/firewall-allow", AuditSeverity.HIGH),
    ({"firewall": {"allow": ["2001::/16"]}}, "policy/firewall-allow", AuditSeverity.HIGH),
    ({"authFailures": {"perAddress": {"max": 9_000}}}, "policy/maxwrongauthfromip", AuditSeverity.CRITICAL),
    ({"authFailures": {"perAddress": {"max": 2_500}}}, "policy/maxwrongauthfromip", AuditSeverity.HIGH),
    ({"authentication": {"digest": {"algorithms": 0}}}, "policy/useshadigestauh", AuditSeverity.HIGH),
    ({"authentication": {"digest": {"algorithms": 1}}}, "policy/useshadigestauh", AuditSeverity.MEDIUM),
]


@pytest.mark.setting("audit-checklist")
@pytest.mark.parametrize(("spec", "rule", "severity"), OPENED, ids=[str(case[0])[:60] for case in OPENED])
def test_what_a_policy_opens_is_found_weighed_and_closed_by_the_line(
    spec: dict[str, Any], rule: str, severity: AuditSeverity
) -> None:
    held = document(**merged([{"profile": "Hardened"}, spec]))
    (finding,) = [one for one in audited(held) if one.severity is not AuditSeverity.INFO]
    assert (finding.rule.id, finding.severity, finding.place.name) == (rule, severity, "SecurityPolicy main")
    assert open_rules(closed(held, finding)) == set()


def test_a_stress_test_is_told_and_the_line_goes_back_to_the_profile_below() -> None:
    base = document("base", CLUSTER_KIND, profile="Hardened")
    stress = document("stress", profile="StressTest", stressTest={"startsAt": "2026-12-24T20:00:00Z"})
    (finding,) = [one for one in audited(base, stress) if one.severity is not AuditSeverity.INFO]
    assert (finding.rule.id, finding.severity) == ("policy/stress-test", AuditSeverity.HIGH)
    assert open_rules(base, closed(stress, finding)) == set()


@pytest.mark.parametrize(
    "spec",
    [
        {"messages": {"perAddress": {"max": 100}}},
        {"messages": {"perAddress": {"max": 3_000, "period": "90s"}}},
        {"authentication": {"digest": {"algorithms": 2}}},
        {"callsPerAddress": {"maxCalls": 0}},
        {"callsPerAddress": {"maxCalls": 1_000, "period": 2.0}},
        {"billing": {"blockNotBilled": 5, "blockNotProfitable": 3}},
        {"spend": {"dynamicDaily": {"multiplier": 2}}},
        {"firewall": {"allow": ["10.0.0.0/8", "192.0.2.7"]}},
        {"modes": {"baseline": "Enforce"}},
        {"authentication": {"callerId": "Rewrite"}},
    ],
    ids=str,
)
def test_stricter_than_hardened_is_closed(spec: dict[str, Any]) -> None:
    assert open_rules(document(**merged([{"profile": "Hardened"}, spec]))) == set()


def test_the_same_limit_within_a_shorter_period_is_open() -> None:
    held = document(**merged([{"profile": "Hardened"}, {"messages": {"perAddress": {"period": "10s"}}}]))
    (finding,) = [one for one in audited(held) if one.severity is not AuditSeverity.INFO]
    assert finding.rule.id == "policy/maxsubsmsgcount"
    assert "within 3m (is 10s)" in finding.what
    assert open_rules(closed(held, finding)) == set()


def test_a_finding_names_the_policy_whose_word_holds() -> None:
    base = document("base", CLUSTER_KIND, profile="Hardened")
    general = document("general", billing={"blockNotBilled": 0})
    special = document("special", realm="a.example", modes={"lines": "Off"})
    found = {one.rule.id: one.place.name for one in audited(base, general, special) if one.severity.rank > 0}
    assert found == {
        "policy/blocknotbilledcalls": "SecurityPolicy general",
        "policy/modes": "SecurityPolicy special",
    }


def test_what_a_realm_inherits_is_told_once() -> None:
    realms = [document(name, realm=f"{name}.example", lines={"max": 1}) for name in ("a", "b", "c")]
    found = [one.rule.id for one in audited(document(fraud={"blockPremium": False}), *realms)]
    assert len(found) == len(set(found))


def test_without_any_policy_the_defaults_are_audited() -> None:
    places = {one.place.name for one in audited()}
    assert places == {"no policy"}
    assert "policy/maxwrongauthfromip" in open_rules()


FIELDS = [
    path
    for path, fact in facts().items()
    if "[]" not in path and fact.group is None and fact.enforced and path not in ("profile", "realm", "priority")
]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from([0, 1, 2, 3, True, False, "Off", "Report", None]))))
def test_whatever_holds_its_lines_close_what_is_open(pairs: list[tuple[str, Any]]) -> None:
    held = document()
    for path, value in pairs:
        try:
            held = document(**merged([held.spec, nested(path, value)]))
            PolicySet.build(1, [held])
        except ValueError:
            continue
        except Exception as error:  # BadPolicy: not a value of that field.
            assert "spec." in str(error)
            held = document()
    for _ in range(60):
        remaining = [one for one in audited(held) if one.severity is not AuditSeverity.INFO]
        if not remaining:
            break
        held = closed(held, remaining[0])
    assert open_rules(held) == set()
