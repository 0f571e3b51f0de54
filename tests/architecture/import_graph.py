"""The repository's import graph and the contracts of .importlinter over it, built once for all tests that ask.

A test plants an import in the graph instead of in a file: a check of one contract then takes milliseconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path

import grimp
from importlinter.application import use_cases
from importlinter.configuration import configure
from importlinter.domain.contract import Contract, registry

ROOT = Path(__file__).resolve().parents[2]
ROOT_PACKAGE = "callwarden"
GENERATED = "callwarden.api"


def sources() -> list[Path]:
    """The source folder of every member."""
    return [
        *(path for kind in ("libs", "services", "operators") for path in ROOT.glob(f"{kind}/*/src")),
        ROOT / "cli/src",
    ]


@cache
def contracts() -> dict[str, Contract]:
    """Every contract of .importlinter by its id, as `lint-imports` reads them."""
    configure()
    options = use_cases.read_user_options(str(ROOT / ".importlinter"))
    use_cases._register_contract_types(options)
    return {
        one["id"]: registry.get_contract_class(one["type"])(
            name=one["name"], session_options=options.session_options, contract_options=one
        )
        for one in options.contracts_options
    }


def roots() -> list[str]:
    """The packages that the linter knows."""
    return list(next(iter(contracts().values())).session_options["root_packages"])


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(*roots(), include_external_packages=True, cache_dir=None)


def graph() -> grimp.ImportGraph:
    """A copy, which the caller may change."""
    return deepcopy(_graph())


def modules() -> list[str]:
    """Every module that somebody wrote: all but the generated ones, and no package of somebody else."""
    mine = (f"{ROOT_PACKAGE}.",)
    return sorted(
        name for name in _graph().modules if name.startswith(mine) and not (name + ".").startswith(f"{GENERATED}.")
    )


def is_broken(contract: str, subject: grimp.ImportGraph) -> bool:
    """Whether the contract with this id is broken by the graph."""
    return not contracts()[contract].check(deepcopy(subject), verbose=False).kept


@contextmanager
def planted(subject: grimp.ImportGraph, importer: str, imported: str) -> Iterator[None]:
    """For the block, `importer` imports `imported`. Either may be a module that does not exist yet."""
    new = [name for name in (importer, imported) if name not in subject.modules]
    if not new and subject.direct_import_exists(importer=importer, imported=imported):
        raise ValueError(f"{importer} imports {imported} already")
    for name in new:
        subject.add_module(name, is_squashed=not name.startswith(f"{ROOT_PACKAGE}."))
    subject.add_import(importer=importer, imported=imported, line_number=1, line_contents=f"import {imported}")
    try:
        yield
    finally:
        subject.remove_import(importer=importer, imported=imported)
        for name in new:
            subject.remove_module(name)
