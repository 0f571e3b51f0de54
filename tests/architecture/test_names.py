"""One name per thing: folder = distribution = console script = import."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "pyproject.toml").exists())
PROCESS = ["main.py", "settings.py"]
LAYERS = ["app", "ports", "core", "adapters"]


def has_module(package: Path, name: str) -> bool:
    return (package / f"{name}.py").is_file() or (package / name / "__init__.py").is_file()


def packages_of_layers(service: Path) -> list[Path]:
    """The service itself, or its capabilities: packages with ports of their own."""
    return [path.parent for path in service.glob("*/ports.py")] or [service]


# A process of the same image that isn't the service's own.
PROCESSES_BESIDES_MAIN = {"call-admission": ("administration",)}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_named_once_and_has_the_same_layers(service: str) -> None:
    folder = ROOT / "services" / service
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    package = service.replace("-", "_")
    assert project["name"] == f"callwarden-{service}"
    scripts = {f"callwarden-{service}": f"callwarden.{package}.main:main"}
    for process in PROCESSES_BESIDES_MAIN.get(service, ()):
        scripts[f"callwarden-{service}-{process}"] = f"callwarden.{package}.{process}:main"
    assert project["scripts"] == scripts
    for file in PROCESS:
        assert (folder / "src" / "callwarden" / package / file).is_file(), file
    for layers in packages_of_layers(folder / "src" / "callwarden" / package):
        assert [name for name in LAYERS if not has_module(layers, name)] == [], layers
    assert list((folder / "tests").glob("test_*.py"))
    assert (folder / "README.md").read_text().startswith(f"# {service}")
