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
