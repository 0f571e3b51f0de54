"""The layer contracts of .importlinter hold, and each of them can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).parent / "lint-imports"


def lint(tree: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs import-linter over the installed packages, or over a copy of the sources that goes before them."""
    environment = dict(os.environ)
    if tree is not None:
        environment["PYTHONPATH"] = str(tree)
    return subprocess.run(
        [LINT, "--config", ROOT / ".importlinter", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=tree or ROOT,
        env=environment,
        check=False,
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All members' sources merged into one tree."""
    tree = tmp_path_factory.mktemp("sources")
    for source in (*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src"), ROOT / "cli" / "src"):
        shutil.copytree(source, tree, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def test_the_contracts_hold() -> None:
    result = lint()
    assert result.returncode == 0, result.stdout


# One bad import for each contract: file, line, contract.
BAD_IMPORTS = [
    ("callwarden/kernel/money.py", "import asyncio", "kernel, sip, limits and policy"),
    ("callwarden/sip/message.py", "import socket", "kernel, sip, limits and policy"),
    (
        "callwarden/limits/__init__.py",
        "import callwarden.sip.via\nimport callwarden.kernel.money",
        "services not on each",
    ),
    ("callwarden/common/clock.py", "import callwarden.rating.app", "services not on each other"),
    ("callwarden/auth/app.py", "import callwarden.rating.app", "services not on each other"),
    ("callwarden/rating/core/__init__.py", "import callwarden.common.clock", "core is a calculation"),
    ("callwarden/rate_guard/app.py", "import callwarden.api.events.v1.events_pb2", "app and ports know no wire type"),
    ("callwarden/payment/core/__init__.py", "import callwarden.payment.app", "Inside a service"),
    (
        "callwarden/call_admission/lists/app/call_watch.py",
        "import callwarden.call_admission.records.ports",
        "capabilities apart",
    ),
    (
        "callwarden/call_admission/accounts/app/limit_queries.py",
        "import callwarden.call_admission.accounts.adapters.account_rows",
        "Inside a capability",
    ),
    (
        "callwarden/call_admission/model/days.py",
        "import callwarden.call_admission.model.codecs.fields",
        "knows nothing of how it is kept",
    ),
]


@pytest.mark.parametrize(("file", "line", "contract"), BAD_IMPORTS)
def test_a_bad_import_breaks_its_contract(sources: Path, file: str, line: str, contract: str) -> None:
    path = sources / file
    good = path.read_text()
    try:
        path.write_text(f"{good}\n{line}\n")
        result = lint(sources)
    finally:
        path.write_text(good)
    assert result.returncode == 1
    (broken,) = [row for row in result.stdout.splitlines() if " BROKEN" in row]  # with "(1 ignored imports)"
    assert contract in broken
