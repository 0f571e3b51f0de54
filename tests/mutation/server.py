"""Runs tests against mutants: a process that has imported the tests once, and a fork of it for each mutant.

    python -m tests.mutation.server <job.json>     results as lines of JSON on stdout

Most mutants change the body of a function: the fork gives the live functions their new code and runs the tests that
ran the mutated lines before, the fastest first, until one fails. That takes some 30 ms. A mutant of what happens at
import (a default, a table, a class body) needs the modules again: a fork of a process that has imported everything but
the service and its tests imports these with the fault in them, and runs all tests; that takes a second or two.

A fork has a limit of CPU time, of time on the clock and of memory: a mutant that loops ends without anybody's doing.
"""

import ast
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from hypothesis import Phase, settings

from tests.mutation.mutants import Mutant, mutants_of, sample

Outcome = Literal["killed", "timed out", "survived", "not run"]
"""`not run`: no test runs the code that the mutant changes, so that none can notice."""

CPU_S_MIN: Final = 4.0  # For tests that take no time to speak of.
# The fastest tests of a mutant, for so long by the traced run, which takes about three times as long; and those of one
# that imports again. What they leave undecided survives.
TESTS_S_MAX: Final = 6.0
IMPORT_TESTS_S_MAX: Final = 20.0
TRACED_S_MAX: Final = 20.0  # A test that takes longer alone judges no mutant.
CPU_FACTOR: Final = 8.0  # What a mutant may take of the time that its tests took without it, traced.
CLOCK_FACTOR: Final = 15.0  # Of the CPU limit: for one that waits for ever. Machines are shared.
MEMORY_BYTES: Final = 1024**3
_SURVIVED, _KILLED, _NEEDS_IMPORT, _BROKEN = range(4)  # How a fork exits.
_CO_OPTIMIZED: Final = 0x1  # Set in code of functions, not in that of modules and class bodies.


@dataclass(frozen=True, slots=True)
class Job:
    """One run. `modules`: import names and files to mutate; `pytest`: arguments that name the tests."""

    modules: dict[str, str]
    pytest: list[str]
    own: list[str]
    """Folders of the code that is imported again for a mutant of what happens at import."""
    without: tuple[str, ...] = ()
    """Fixtures: tests that need one, such as a database, are left out."""
    jobs: int = 1
    sample: int | None = None
    seed: int = 0
    cpu_s_min: float = CPU_S_MIN
    only: list[str] | None = None
    """Modules with a colon and names of mutants; None: all."""


@dataclass(slots=True)
class Baseline:
    """What the tests did without a fault."""

    lines: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    """By test: the lines of mutated modules that it ran."""
    duration_s: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    """Those that took longer than TRACED_S_MAX."""


class LineTracer:
    """Notes which lines of some files run."""

    def __init__(self, files: Iterable[str]) -> None:
        self.lines: set[tuple[str, int]] = set()
        self._files = frozenset(files)

    def start(self) -> None:
        threading.settrace(self._call)
        sys.settrace(self._call)

    def stop(self) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _call(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self._files else None

    def _line(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


class MutantServer:
    """A pytest plugin that takes the place of pytest's own loop."""

    def __init__(self, job: Job, report: Callable[[Mutant, Outcome], None]) -> None:
        self._job = job
        self._report = report
        self._trees = {name: ast.parse(Path(file).read_text()) for name, file in job.modules.items()}
        found = [mutant for name, tree in self._trees.items() for mutant in mutants_of(name, tree)]
        if job.only is not None:
            wanted = frozenset(job.only)
            found = [mutant for mutant in found if f"{mutant.module}: {mutant.name}" in wanted]
        self.found = len(found)
        self.mutants = found if job.sample is None else sample(found, job.sample, job.seed)
        self._tracer = LineTracer(job.modules.values())
        self._role: Literal["bare", "warm", "import again"] = "bare"
        self._order: list[str] = []
        self._answer: int = -1
        self._failed = False

    # pytest's hooks.

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> object:
        """In the bare process: fork one that collects the tests, then one for each mutant of what happens at import."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            self._role, self._answer = "warm", writer
            self._tracer.start()
            return None  # and pytest collects, here
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            for line in stream:
                kind, value = json.loads(line)
                match kind:
                    case "error":
                        raise pytest.UsageError(value)
                    case "outcome":
                        self._report(self.mutants[value[0]], value[1])
                    case "slow":
                        print("too slow to judge mutants:", *value, sep="\n  ", file=sys.stderr)
                    case "import":
                        _import_all(value)
                    case "again":
                        order, limit_s, numbers = value
                        break
            else:
                raise pytest.UsageError("the process that ran the tests ended early")
        os.wait()
        running: dict[int, int] = {}
        for number in numbers:
            while len(running) >= self._job.jobs:
                self._collect_one(running)
            process = os.fork()
            if process == 0:
                self._role, self._order = "import again", order
                _limit(limit_s, self._job.cpu_s_min)
                mutant = self.mutants[number]
                mutant.plant()
                sys.meta_path.insert(0, _Planted(mutant.module, self._job.modules[mutant.module], self._trees))
                return None
            running[process] = number
        while running:
            self._collect_one(running)
        session.items = []
        return True

    def _collect_one(self, running: dict[int, int]) -> None:
        process, status = os.wait()
        self._report(self.mutants[running.pop(process)], _outcome(status))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        match self._role:
            case "bare":
                return True
            case "import again":
                if session.testsfailed:  # a module or test file that can't be imported
                    os._exit(_KILLED)
                items = {item.nodeid: item for item in session.items}
                os._exit(self._run([items[name] for name in self._order if name in items]))
            case "warm":
                self._tracer.stop()
                try:
                    self._warm(session)
                except BaseException as error:
                    self._send("error", repr(error))
                    os._exit(_BROKEN)
                os._exit(0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    def pytest_sessionfinish(self) -> None:
        if self._role == "import again":  # Collection failed before the loop.
            os._exit(_KILLED)
        if self._role == "warm":
            self._send("error", "the tests can't be collected")
            os._exit(_BROKEN)

    # The process with the tests.

    def _warm(self, session: pytest.Session) -> None:
        without = frozenset(self._job.without)
        items = {
            item.nodeid: item
            for item in session.items
            if isinstance(item, pytest.Function) and without.isdisjoint(item.fixturenames)
        }
        baseline = self._baseline(list(items.values()))
        if baseline.failed:
            self._send("error", f"without a fault these fail: {', '.join(baseline.failed)}")
            return
        if baseline.slow:
            self._send("slow", baseline.slow)
        order = sorted(baseline.duration_s, key=lambda name: baseline.duration_s[name])
        tests_of: dict[tuple[str, int], list[str]] = {}
        for name in order:
            for line in baseline.lines[name]:
                tests_of.setdefault(line, []).append(name)
        functions = _functions(self._job.modules.values())
        codes = {
            name: compile(tree, self._job.modules[name], "exec", dont_inherit=True)
            for name, tree in self._trees.items()
        }
        again: list[int] = []
        running: dict[int, int] = {}

        def collect_one() -> None:
            process, status = os.wait()
            number = running.pop(process)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NEEDS_IMPORT:
                again.append(number)
            else:
                self._send("outcome", [number, _outcome(status)])

        for number, mutant in enumerate(self.mutants):
            file = self._job.modules[mutant.module]
            lines = {(file, line) for line in range(mutant.first_line, mutant.last_line + 1)}
            chosen = {name for line in lines for name in tests_of.get(line, ())}
            if lines & self._tracer.lines:  # ran, or may have run, at import
                again.append(number)
                continue
            if not chosen:
                self._send("outcome", [number, "not run"])
                continue
            while len(running) >= self._job.jobs:
                collect_one()
            process = os.fork()
            if process == 0:
                fastest = _first(order, chosen, baseline.duration_s, TESTS_S_MAX)
                _limit(sum(baseline.duration_s[name] for name in fastest), self._job.cpu_s_min)
                os._exit(self._run_planted(mutant, codes[mutant.module], functions, [
                    items[name] for name in fastest
                ]))  # fmt: skip
            running[process] = number
        while running:
            collect_one()
        own = tuple(os.path.realpath(folder) + os.sep for folder in self._job.own)
        self._send("import", [
            name for name, module in sorted(sys.modules.items())
            if (source := getattr(module, "__file__", None)) and not os.path.realpath(source).startswith(own)
        ])  # fmt: skip
        order = _first(order, set(order), baseline.duration_s, IMPORT_TESTS_S_MAX)
        self._send("again", [order, sum(baseline.duration_s[name] for name in order), sorted(again)])

    def _run_planted(
        self,
        mutant: Mutant,
        before: types.CodeType,
        functions: dict[types.CodeType, list[types.FunctionType]],
        items: Sequence[pytest.Item],
    ) -> int:
        mutant.plant()
        after = compile(self._trees[mutant.module], self._job.modules[mutant.module], "exec", dont_inherit=True)
        changes = changed_functions(before, after)
        if changes is None:
            return _NEEDS_IMPORT
        is_live = False
        for old, new in changes:
            for function in functions.get(old, ()):
                try:
                    function.__code__ = new
                except ValueError:  # other variables of the functions around it
                    return _NEEDS_IMPORT
                is_live = True
        if not is_live:
            return _SURVIVED if before == after else _NEEDS_IMPORT
        return self._run(items)

    def _run(self, items: Sequence[pytest.Item]) -> int:
        """Runs them one by one until one fails."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._failed:
                return _KILLED
        return _SURVIVED

    def _baseline(self, items: Sequence[pytest.Item]) -> Baseline:
        """Runs each in a fork of its own, traced: what one test leaves in a cache would hide from the next which lines
        it needs."""
        baseline = Baseline()
        running: dict[int, int] = {}
        with tempfile.TemporaryDirectory() as folder:

            def collect_one() -> None:
                process, status = os.wait()
                number = running.pop(process)
                name, file = items[number].nodeid, Path(folder, str(number))
                if _outcome(status) == "timed out":
                    baseline.slow.append(name)
                    return
                if not file.exists():
                    raise RuntimeError(f"the process that ran {name} without a fault ended early")
                lines, duration_s, failed = pickle.loads(file.read_bytes())  # from our own fork
                baseline.lines[name], baseline.duration_s[name] = lines, duration_s
                if failed:
                    baseline.failed.append(name)

            for number, item in enumerate(items):
                while len(running) >= self._job.jobs:
                    collect_one()
                process = os.fork()
                if process == 0:
                    Path(folder, str(number)).write_bytes(pickle.dumps(self._trace(item)))
                    os._exit(0)
                running[process] = number
            while running:
                collect_one()
        return baseline

    def _trace(self, item: pytest.Item) -> tuple[set[tuple[str, int]], float, bool]:
        """The lines that a test runs, how long it takes, in seconds of CPU time, and whether it fails."""
        tracer = LineTracer(self._job.modules.values())
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, TRACED_S_MAX)
        began_s = time.process_time()
        tracer.start()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        tracer.stop()
        signal.setitimer(signal.ITIMER_PROF, 0)
        return tracer.lines, time.process_time() - began_s, self._failed

    def _send(self, kind: str, value: object) -> None:
        os.write(self._answer, json.dumps([kind, value]).encode() + b"\n")


class _Planted(importlib.abc.MetaPathFinder):
    """Finds one module, whose loader takes its tree with the fault in it."""

    def __init__(self, module: str, file: str, trees: dict[str, ast.Module]) -> None:
        self._loader = _Loader(module, file, trees[module])

    def find_spec(
        self, fullname: str, path: object, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._loader.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._loader.path, loader=self._loader)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, module: str, file: str, tree: ast.Module) -> None:
        super().__init__(module, file)
        self._tree = tree

    def get_code(self, fullname: str) -> types.CodeType:
        return compile(self._tree, self.path, "exec", dont_inherit=True)


def changed_functions(
    before: types.CodeType, after: types.CodeType
) -> list[tuple[types.CodeType, types.CodeType]] | None:
    """Old and new code of each function that differs, those inside of others included. None where more differs than
    functions: what a module or class does at import.
    """
    if before == after:
        return []
    is_function = bool(before.co_flags & _CO_OPTIMIZED)
    inner = [
        [constant for constant in code.co_consts if isinstance(constant, types.CodeType)] for code in (before, after)
    ]
    if is_function:
        found = [(before, after)]
        if len(inner[0]) == len(inner[1]):
            for old, new in zip(*inner, strict=True):
                found += changed_functions(old, new) or []
        return found
    if _without_code(before) != _without_code(after):
        return None
    found = []
    for old, new in zip(*inner, strict=True):
        changes = changed_functions(old, new)
        if changes is None:
            return None
        found += changes
    return found


def _without_code(code: types.CodeType) -> types.CodeType:
    return code.replace(
        co_consts=tuple("code" if isinstance(each, types.CodeType) else each for each in code.co_consts)
    )


def _functions(files: Iterable[str]) -> dict[types.CodeType, list[types.FunctionType]]:
    """All live functions of those files by their code."""
    names = frozenset(files)
    found: dict[types.CodeType, list[types.FunctionType]] = {}
    for each in gc.get_objects():
        if isinstance(each, types.FunctionType) and each.__code__.co_filename in names:
            found.setdefault(each.__code__, []).append(each)
    return found


def _first(order: Sequence[str], chosen: Container[str], duration_s: Mapping[str, float], most_s: float) -> list[str]:
    """The first of the chosen tests, at least one, that take at most so long together."""
    found: list[str] = []
    for name in order:
        if name in chosen:
            most_s -= duration_s[name]
            if most_s < 0 and found:
                break
            found.append(name)
    return found


def _import_all(names: Iterable[str]) -> None:
    """So that forks needn't; what can't be imported by its name alone, they import."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            continue


def _limit(tests_s: float, cpu_s_min: float) -> None:
    """Has this process end when it takes much longer than its tests did, or much memory."""
    cpu_s = max(cpu_s_min, tests_s * CPU_FACTOR)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, math.ceil(cpu_s * CLOCK_FACTOR))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _outcome(status: int) -> Outcome:
    if os.WIFSIGNALED(status):
        return "timed out" if os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM) else "killed"
    match os.WEXITSTATUS(status):
        case code if code == _SURVIVED:
            return "survived"
        case _:
            return "killed"


def main(job_file: str) -> int:
    job = Job(**json.loads(Path(job_file).read_text()))
    # Found failures needn't be made small or explained, and each run must be the same.
    settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, phases=(Phase.explicit, Phase.generate)
    )
    settings.load_profile("mutation")
    output = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)

    def write(kind: str, value: object) -> None:
        os.write(output, json.dumps([kind, value]).encode() + b"\n")

    def report(mutant: Mutant, outcome: Outcome) -> None:
        write("outcome", [mutant.module, mutant.name, mutant.first_line, outcome])

    server = MutantServer(job, report)
    write("mutants", [len(server.mutants), server.found])
    return int(
        pytest.main(
            [
                "-q", "-s", "--tb=no", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-p", "no:xdist",
                "-o", "timeout=0", *job.pytest,
            ],
            plugins=[server],
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
