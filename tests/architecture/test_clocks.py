"""Two clocks, two types: monotonic time is `mono_s: MonoS`, Unix time `unix_s: UnixS`, and mypy tells them apart."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mypy import api as mypy

from tests.architecture.remaining import EVERYTHING, ROOT, SOURCES, area, assert_only_listed, files, tree

TYPES: Final = {"mono_s": "MonoS", "unix_s": "UnixS"}
# They import no other member, not even for a type; what calls them has the types.
ALONE: Final = {"libs/sip", "libs/limits"}


def names(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name


def of_no_clock() -> set[str]:
    """Areas with a `now_s`, which does not say by which clock."""
    found = {path for path in files(*EVERYTHING) if "now_s" in path.read_text()}  # parsing all takes seconds
    return {area(path) for path in found if path != Path(__file__) and "now_s" in names(path)}


def parameters(path: Path) -> Iterator[ast.arg]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)


def untyped() -> set[str]:
    """Areas with a parameter that is named after a clock and has another type than its."""
    return {
        area(path)
        for path in files(*SOURCES)
        if any(name in path.read_text() for name in TYPES)  # parsing all takes seconds
        for one in parameters(path)
        if area(path) not in ALONE
        and one.arg in TYPES
        and (one.annotation is None or TYPES[one.arg] not in ast.unparse(one.annotation))
    }


RULES: Final = {"now_s": of_no_clock, "clock_type": untyped}


def test_no_time_is_called_now_s() -> None:
    assert_only_listed("now_s", of_no_clock())


def test_a_parameter_named_after_a_clock_has_its_type() -> None:
    assert_only_listed("clock_type", untyped())


PLANTED: Final = """
from callwarden.kernel.clock import Clock, MonoS, UnixS

def late(mono_s: MonoS) -> bool:
    return mono_s > 5
def expired(unix_s: UnixS) -> bool:
    return unix_s > 5

def right(clock: Clock) -> bool:
    return late(clock.mono_s()) or expired(clock.unix_s())

def wrong(clock: Clock) -> bool:
    return late(clock.unix_s()) or expired(clock.mono_s())
"""


def test_mypy_refuses_one_clock_where_the_other_is_meant(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    output, errors, status = mypy.run([*config, str(tmp_path / "planted.py")])
    assert (status, errors) == (1, "")
    found = [line.partition("error: ")[2] for line in output.splitlines() if "error: " in line]
    assert found == [
        'Argument 1 to "late" has incompatible type "UnixS"; expected "MonoS"  [arg-type]',
        'Argument 1 to "expired" has incompatible type "MonoS"; expected "UnixS"  [arg-type]',
    ]
