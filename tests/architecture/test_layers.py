"""The contracts of .importlinter are kept, and a forbidden import is found in whatever module it is written.

What a module must not import follows here from where its file is, and not from .importlinter: a module that the
contracts forget is found by the import that they let pass.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grimp
import pytest

from tests.architecture import import_graph
from tests.architecture.import_graph import ROOT, is_broken, modules, planted

# From the lowest up; members in one line do not import each other.
STACK: Final = [
    {"kernel", "sip", "limits"},
    {"policy", "api"},
    {"common"},
    {"schema"},
    {path.name for kind in ("services", "operators") for path in ROOT.glob(f"{kind}/*/src/callwarden/*")},
    {"local"},
    {"testing"},
    {"cli"},
]
SERVICES: Final = STACK[4]
PURE_LIBRARIES: Final = {"kernel", "sip", "limits", "policy"}
# From the lowest up, in every service and in every capability of a service.
LAYERS: Final = ["core", "ports", "app", "adapters", "settings", "wiring", "main"]
# A second process of a service's image is in the layer of its main module.
MAINS: Final = {"administration": "main"}
# call-admission's packages, from the lowest up; those in one line do not import each other.
CAPABILITIES: Final = [{"model"}, {"admission", "lists", "records"}, {"accounts"}]

IMPURE: Final = ["asyncio", "socket", "threading", "logging", "time", "random", "secrets", "os", "subprocess"]
# A module of wire types, and the contract that names its importers.
WIRE: Final = {
    "callwarden.api.events.v1.events_pb2": "api",
    "google": "google",
    "grpc": "grpc",
    "nats": "nats",
    "sqlalchemy": "sqlalchemy",
    "asyncpg": "asyncpg",
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return import_graph.graph()


def member_of(module: str) -> str:
    return module.split(".")[1]


def layer_of(module: str) -> str | None:
    """The layer of a service or capability that a module is in; None outside of services, and of their models."""
    parts = module.split(".")
    if member_of(module) not in SERVICES:
        return None
    return next((name for part in parts[2:4] if (name := MAINS.get(part, part)) in LAYERS), None)


def capability_of(module: str) -> str | None:
    """The package of a service that holds layers of its own, or the model that they stand on."""
    parts = module.split(".")
    if member_of(module) not in SERVICES or len(parts) < 3 or MAINS.get(parts[2], parts[2]) in LAYERS:
        return None
    return parts[2]


def kind_of(module: str) -> str:
    """Modules of one kind are under the same rules: a layer, a library, a package of the CLI."""
    parts = module.split(".")
    capability, layer = capability_of(module), layer_of(module)
    if member_of(module) in SERVICES:
        return ".".join(part for part in ("callwarden", parts[1], capability, layer) if part)
    return ".".join(parts[:3] if member_of(module) == "cli" else parts[:2])


def kinds() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for module in modules():
        found.setdefault(kind_of(module), []).append(module)
    return found


def contract_of(package: str) -> str:
    """The contract that keeps the layers of a service or capability."""
    if package.count(".") > 1:
        return "capability"
    return "capabilities" if package == "callwarden.call_admission" else "service"


def forbidden(module: str) -> Iterator[tuple[str, str]]:
    """What the module must not import, with the contract that forbids it."""
    member, capability, layer = member_of(module), capability_of(module), layer_of(module)
    height = next(index for index, members in enumerate(STACK) if member in members)
    for members in STACK[height:]:  # at its side and above
        yield from ((f"callwarden.{other}", "stack") for other in members - {member})

    if capability is not None:
        height = next(index for index, names in enumerate(CAPABILITIES) if capability in names)
        for names in CAPABILITIES[height:]:
            yield from ((f"callwarden.{member}.{other}.ports", "capabilities") for other in names - {capability})
        yield f"callwarden.{member}.main", "capabilities"
        if capability == "model" and ".codecs" not in module:
            yield f"callwarden.{member}.model.codecs.fields", "model"

    if layer is not None:
        package = f"callwarden.{member}" + (f".{capability}" if capability else "")
        for above in LAYERS[LAYERS.index(layer) + 1 :]:
            target = next((name for name in modules() if name.startswith(f"{package}.{above}")), None)
            if target is not None:
                yield target, contract_of(package)

    if layer == "core" or capability == "model":
        yield from ((name, "pure-cores") for name in (*IMPURE, "callwarden.common.clock", "callwarden.schema.tables"))
    if member in PURE_LIBRARIES:
        yield from ((name, "pure-libraries") for name in (*IMPURE, *WIRE))
    yield from forbidden_wire(module)


def forbidden_wire(module: str) -> Iterator[tuple[str, str]]:
    """All wire types but those of adapters, of what main registers, and of the model's codecs."""
    layer, codecs = layer_of(module), ".model.codecs" in module
    if member_of(module) not in SERVICES or layer == "adapters":
        return
    for name, contract in WIRE.items():
        may_import = (contract == "api" and (layer == "main" or codecs)) or (
            name == "asyncpg" and module.endswith(".codecs.fields")
        )
        if not may_import:
            yield name, contract


def missed(module: str, imports: Iterator[tuple[str, str]], graph: grimp.ImportGraph) -> list[tuple[str, str, str]]:
    """The forbidden imports that the contract lets pass, planted in the module one by one."""
    found = []
    for target, contract in imports:
        with planted(graph, module, target):
            if not is_broken(contract, graph):
                found.append((module, target, contract))
    return found


def test_the_contracts_are_kept(graph: grimp.ImportGraph) -> None:
    assert [name for name in import_graph.contracts() if is_broken(name, graph)] == []


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_forbidden_import_is_found_in_every_kind_of_module(kind: str, graph: grimp.ImportGraph) -> None:
    # The last by name: a package's own module comes first, and rules that forget what is in it would cover it.
    module = kinds()[kind][-1]
    assert missed(module, forbidden(module), graph) == []


def test_a_wire_type_is_found_in_every_module_of_a_service_but_its_adapters(graph: grimp.ImportGraph) -> None:
    assert [miss for module in modules() for miss in missed(module, forbidden_wire(module), graph)] == []


@pytest.mark.parametrize("member", ["common", "local", "cli"])
def test_a_module_that_is_not_there_yet_must_not_import_wire_types(member: str, graph: grimp.ImportGraph) -> None:
    assert missed(f"callwarden.{member}.limit_desk", iter(WIRE.items()), graph) == []


def test_a_module_outside_of_the_layers_is_found(graph: grimp.ImportGraph) -> None:
    """In every service, every capability, and the libraries whose layers are written down."""
    packages = [f"callwarden.{service}" for service in SERVICES]
    packages += [f"callwarden.call_admission.{name}" for names in CAPABILITIES[1:] for name in names]
    contracts = {package: contract_of(package) for package in packages}
    contracts |= {f"callwarden.{name}": name for name in ("cli", "common", "policy")}
    unnoticed = []
    for package, contract in contracts.items():
        with planted(graph, f"{package}.limit_desk", "dataclasses"):
            if not is_broken(contract, graph):
                unnoticed.append(package)
    assert unnoticed == []


def test_every_capability_has_its_place_in_the_stack() -> None:
    found = {name for module in modules() if member_of(module) == "call_admission" if (name := capability_of(module))}
    assert found == set().union(*CAPABILITIES)


def test_a_planted_import_that_is_allowed_breaks_nothing(graph: grimp.ImportGraph) -> None:
    # Otherwise a contract that is always broken would pass every test above.
    with (
        planted(graph, "callwarden.rating.adapters", "grpc"),
        planted(graph, "callwarden.cli.main", "callwarden.limits"),
    ):
        assert [name for name in import_graph.contracts() if is_broken(name, graph)] == []


def test_every_member_is_under_the_linter() -> None:
    members = {path.name for source in import_graph.sources() for path in (source / "callwarden").iterdir()}
    assert {f"callwarden.{name}" for name in members} == set(import_graph.roots())
    assert set().union(*STACK) == members


def test_every_package_folder_is_seen_by_the_linter() -> None:
    # A folder without __init__.py is in no graph, and passes every contract silently.
    known = set(import_graph.graph().modules)
    for source in import_graph.sources():
        for file in source.rglob("*.py"):
            parts = file.relative_to(source).with_suffix("").parts
            assert ".".join(part for part in parts if part != "__init__") in known, file


def test_the_command_fails_on_a_planted_import(tmp_path: Path) -> None:
    """`make layers` itself, over a copy of the sources that goes before the installed ones."""
    for source in (
        *ROOT.glob("libs/*/src"),
        *ROOT.glob("services/*/src"),
        *ROOT.glob("operators/*/src"),
        ROOT / "cli/src",
    ):
        shutil.copytree(source, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "callwarden/rating/ports.py").open("a") as file:
        file.write("import callwarden.rating.app\n")
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--config", ROOT / ".importlinter", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert result.returncode == 1
    assert "callwarden.rating.ports -> callwarden.rating.app" in result.stdout
    assert "2 broken" in result.stdout  # the layers, and a circle


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("callwarden.sip.via", "callwarden.sip.message"),
        ("callwarden.edge_proxy.core.call", "callwarden.edge_proxy.core.edge"),
        ("callwarden.kernel.money", "callwarden.kernel.tariff"),
    ],
)
def test_a_circle_of_imports_is_found(importer: str, imported: str, graph: grimp.ImportGraph) -> None:
    with planted(graph, importer, imported):
        assert is_broken("acyclic", graph)
