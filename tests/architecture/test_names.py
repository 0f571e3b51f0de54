"""One name per thing: folder = distribution = console script = import."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists())
ROOMS = ["main.py", "settings.py", "app.py", "ports.py", "core/__init__.py", "adapters/__init__.py"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_named_once_and_has_the_same_rooms(service: str) -> None:
    folder = ROOT / "services" / service
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    package = service.replace("-", "_")
    assert project["name"] == f"callwarden-{service}"
    assert project["scripts"] == {f"callwarden-{service}": f"callwarden.{package}.main:main"}
    for room in ROOMS:
        assert (folder / "src" / "callwarden" / package / room).is_file(), room
    assert list((folder / "tests").glob("test_*.py"))
    assert (folder / "README.md").read_text().startswith(f"# {service}")


def test_every_package_folder_is_seen_by_the_import_linter() -> None:
    # A folder without __init__.py passes every contract silently.
    for source in (*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src"), ROOT / "cli" / "src"):
        for module in source.rglob("*.py"):
            if module.parent.name != "callwarden":
                assert (module.parent / "__init__.py").exists(), module.parent


def test_every_member_is_under_the_import_linter() -> None:
    roots = (ROOT / ".importlinter").read_text()
    for source in (*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src"), ROOT / "cli" / "src"):
        (package,) = [
            path.name for path in (source / "callwarden").iterdir() if path.is_dir() and "__" not in path.name
        ]
        assert f"    callwarden.{package}\n" in roots
