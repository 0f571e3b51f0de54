"""checkov finds nothing in the chart that isn't explained. It has an environment of its own: `make chart-audit`."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from callwarden.testing.kube_tools import needs_kube_tools
from tests.chart.rendering import PRESETS, ROOT, rendered

CHECKOV = Path(os.environ.get("CALLWARDEN_CHECKOV", ROOT / ".venv-checkov" / "bin" / "checkov"))
EXPLAINED = set(yaml.safe_load((ROOT / "deploy/helm/.checkov.yaml").read_text())["skip-check"])

pytestmark = [
    needs_kube_tools(),
    pytest.mark.skipif(not CHECKOV.exists(), reason="needs checkov in an environment of its own: make chart-audit"),
]


def test_every_finding_is_explained_and_every_explanation_needed(tmp_path: Path) -> None:
    for preset in PRESETS:
        (tmp_path / f"{preset}.yaml").write_text(yaml.safe_dump_all(rendered(preset)))
    command: list[str | Path] = [
        CHECKOV,
        "--directory",
        tmp_path,
        "--framework",
        "kubernetes",
        "--compact",
        "--quiet",
        "--output",
        "json",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {each["check_id"] for each in json.loads(result.stdout)["results"]["failed_checks"]}
    assert found == EXPLAINED
