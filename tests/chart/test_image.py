"""The Dockerfile, as far as it can be shown without building it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart.rendering import CHART, ROOT


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_what_is_not_needed_stays_out_of_the_image() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {"**/tests", "**/.venv"} <= set(lines)


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_the_install_step_makes_a_member_that_starts_from_its_folder_alone(tmp_path: Path) -> None:
    app = tmp_path / "app"
    installed = subprocess.run(
        ["sh", "deploy/image/install.sh", "services/payment", app],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "dns error" in installed.stderr or "Failed to fetch" in installed.stderr:
        pytest.skip("needs a package index: the step installs from one")
    assert installed.returncode == 0, installed.stderr
    started = subprocess.run(
        [app / "bin" / "callwarden-payment"],
        env={"PATH": os.defpath, "CALLWARDEN_DRAIN_TIMEOUT_S": "-1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 2
    assert "CALLWARDEN_DRAIN_TIMEOUT_S" in started.stderr
    # A member brings what it needs: no other service, no compiler, nothing that points back into the sources.
    there = {path.name for path in (app / "bin").iterdir()}
    assert not {"callwarden", "callwarden-auth", "pytest", "pip", "gcc"} & there
    assert not list(app.rglob("__editable__*"))
    shutil.rmtree(app)


def test_the_table_of_values_is_what_the_values_say() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("values_table", ROOT / "deploy/helm/values_table.py")
    assert spec is not None
    assert spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = (CHART / "README.md").read_text()
    assert table.readme(text, (CHART / "values.yaml").read_text()) == text, "make chart-docs"
