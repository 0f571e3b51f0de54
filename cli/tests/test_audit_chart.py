"""The audit and the chart: what its presets leave open, and that the values which the audit names close it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from callwarden.cli.audit import report
from callwarden.cli.audit.finding import AuditFinding
from callwarden.cli.audit.sources.files import evidence
from callwarden.cli.yaml_lines import merged
from callwarden.testing.kube_tools import needs_kube_tools, program

CHART = Path(__file__).parents[2] / "deploy/helm/callwarden"
DIGEST = f"sha256:{'0' * 64}"

pytestmark = [
    needs_kube_tools(),
    pytest.mark.skipif(not (CHART / "values.yaml").exists(), reason="needs the chart: deploy/helm/callwarden"),
    pytest.mark.integration,
]


def preset(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / f"values-{name}.yaml").read_text())
    return values


def audited(values: dict[str, Any]) -> list[AuditFinding]:
    """Of the chart with these values, but for its images, whose digests only a release knows."""
    rendered = subprocess.run(
        [program("helm"), "template", "callwarden", CHART, "--namespace", "voip", "--values", "-"],
        input=yaml.safe_dump(values), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert rendered.returncode == 0, rendered.stderr
    found = report.findings(evidence([("rendered.yaml", rendered.stdout)]))
    return [one for one in found if one.rule.id != "deploy/image-digest"]


@pytest.mark.setting("os-hardening")
@pytest.mark.setting("audit-checklist")
def test_the_production_preset_leaves_nothing_open() -> None:
    assert [(one.rule.id, one.place.name) for one in audited(preset("production"))] == []


@pytest.mark.setting("audit-checklist")
@pytest.mark.parametrize("name", ["minimal", "edge-daemonset"])
def test_the_values_that_the_audit_names_close_what_another_preset_leaves_open(name: str) -> None:
    values = preset(name)
    found = audited(values)
    assert found, "a preset for trying it out that is as closed as production: say so in its comment, and here"
    for one in found:
        assert "into the chart's values" in one.how, one
    assert audited(merged([values, *(yaml.safe_load(one.fix) for one in found)])) == []


def test_an_image_by_digest_is_closed() -> None:
    values = merged([preset("production"), {"image": {"digests": {"auth": DIGEST}}}])
    rendered = subprocess.run(
        [program("helm"), "template", "callwarden", CHART, "--values", "-"],
        input=yaml.safe_dump(values), capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    places = {one.place.name for one in report.findings(evidence([("rendered.yaml", rendered)]))}
    assert not any("-auth " in f"{place} " for place in places)
    assert any("-rating " in f"{place} " for place in places)
