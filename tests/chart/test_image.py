"""The Dockerfile, as far as it can be shown without building it, and what ships in an image."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from callwarden.local.files import TemporaryFolder
from tests.chart.rendering import CHART, ROOT

SBOM_PYTHON = Path(os.environ.get("CALLWARDEN_SBOM", ROOT / ".venv-sbom" / "bin" / "python"))
MEMBER = "services/payment"
VERSION = tomllib.loads((ROOT / MEMBER / "pyproject.toml").read_text())["project"]["version"]


def script(path: str) -> ModuleType:
    """One of our scripts, which no package holds."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def app() -> Iterator[Path]:
    """The folder of an image, installed as the Dockerfile does."""
    folder = TemporaryFolder("image")
    app = folder.path / "app"
    installed = subprocess.run(
        ["sh", "deploy/image/install.sh", MEMBER, app], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "dns error" in installed.stderr or "Failed to fetch" in installed.stderr:
        pytest.skip("needs a package index: the step installs from one")
    assert installed.returncode == 0, installed.stderr
    yield app
    folder.remove()


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
def test_the_install_step_makes_a_member_that_starts_from_its_folder_alone(app: Path) -> None:
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
    # All of it is compiled, the libraries too, since nothing can be written later.
    modules = list(app.rglob("site-packages/**/*.py"))
    assert len(modules) > 500
    compiled = {path: list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")) for path in modules}
    assert [path for path, files in compiled.items() if not files] == []
    # Whatever times the image's layers give to files (PEP 552: by hash, and not checked).
    assert {file.read_bytes()[4:8] for files in compiled.values() for file in files} == {b"\x01\0\0\0"}


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    not SBOM_PYTHON.exists(), reason="needs cyclonedx-bom in an environment of its own: make sbom-tools"
)
def test_the_bill_of_materials_names_all_that_ships_with_its_version_and_a_licence_that_goes_with_ours(
    app: Path,
) -> None:
    made = subprocess.run(
        [
            SBOM_PYTHON,
            "-c",
            "import json, pathlib, sys; import sbom;"
            "print(json.dumps(sbom.describe(sys.argv[1], pathlib.Path(sys.argv[2]), '--no-validate')))",
            MEMBER,
            app,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "deploy/image")},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    bom = json.loads(made.stdout)
    named = {(normal(each["name"]), each["version"]) for each in bom["components"]}
    (libraries,) = app.glob("lib/python3*/site-packages")
    installed = {(normal(each.name), each.version) for each in distributions(path=[str(libraries)])}
    assert named | {("callwarden-payment", VERSION)} == installed
    assert bom["metadata"]["component"]["name"] == "callwarden-payment"
    foreign = {f"{name}=={version}" for name, version in named if not name.startswith("callwarden-")}
    assert len(foreign) > 20
    assert foreign <= script("deploy/image/locked.py").entries((ROOT / "requirements/dev.txt").read_text()).keys()
    assert all(each["licenses"] for each in bom["components"])
    assert not re.search(r"GPL|AFFERO", json.dumps([each["licenses"] for each in bom["components"]]), re.IGNORECASE)
    assert "file:" not in made.stdout


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("licences", "complaint"),
    [
        ([], "no licence"),
        ([{"license": {"id": "GPL-3.0-only"}}], "GPL-3.0-only"),
        ([{"expression": "MIT AND (Apache-2.0 OR AGPL-3.0-or-later)"}], "AGPL-3.0-or-later"),
        ([{"license": {"name": "Proprietary"}}], "Proprietary"),
    ],
)
def test_what_may_not_be_shipped_ends_the_bill_of_materials(licences: list[Any], complaint: str) -> None:
    sbom = script("deploy/image/sbom.py")
    with pytest.raises(sbom.Unlicensed, match=f"thing 1.0: .*{complaint}"):
        sbom.mend({"components": [{"name": "thing", "version": "1.0", "licenses": licences}]})


def test_what_is_installed_has_the_hashes_of_the_lock_and_nothing_else_is() -> None:
    locked = script("deploy/image/locked.py")
    lock = (ROOT / "requirements/dev.txt").read_text()
    (pinned,) = (name for name in locked.entries(lock) if name.startswith("grpcio=="))
    cut = locked.cut(lock, [f"{pinned} ; python_full_version >= '3.11'\n", "\n"])
    (entry,) = re.findall(r"^grpcio==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", lock, re.MULTILINE)
    assert cut.strip() == entry
    with pytest.raises(KeyError, match="left-pad"):
        locked.cut(lock, ["left-pad==1.0\n"])


def test_the_table_of_values_is_what_the_values_say() -> None:
    table = script("deploy/helm/values_table.py")
    text = (CHART / "README.md").read_text()
    assert table.readme(text, (CHART / "values.yaml").read_text()) == text, "make chart-docs"
