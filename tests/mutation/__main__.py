"""The command behind `make mutants`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.mutation import reasons, report
from tests.mutation.cores import CORES, ROOT, SERVERS, Core
from tests.mutation.report import CoreResult
from tests.mutation.server import Job


def run_job(job: Job) -> Iterator[tuple[str, Any]]:
    """What tests.mutation.server says, line by line. RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps({name: getattr(job, name) for name in Job.__slots__}))
        command = [sys.executable, "-m", "tests.mutation.server", str(file)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                kind, value = json.loads(line)
                yield kind, value
        if process.returncode not in (0, 5):  # 5: pytest itself ran no test
            raise RuntimeError(f"the run failed with exit code {process.returncode}")


def _run_core(core: Core, arguments: argparse.Namespace, told: reasons.Reasons) -> CoreResult:
    modules = chosen_modules(core, arguments.module)
    only = _survivors(core) if arguments.again else None
    if arguments.of is not None:
        only = named_survivors(modules, arguments.of.read_text())
    job = Job(
        {name: str(file) for name, file in modules.items()},
        ["-m", "not integration and not long", str(ROOT / core.tests)],
        [str(ROOT / "services")],
        SERVERS,
        arguments.jobs,
        arguments.sample,
        arguments.seed,
        only=only,
    )
    result = CoreResult()
    total = done = 0
    for kind, value in run_job(job):
        if kind == "mutants":
            total, result.found = value
            continue
        module, name, line, outcome = value
        result.add(module, name, outcome, told)
        done += 1
        if outcome in ("survived", "not run") and told.of(module, name) is None:
            print(f"{outcome}: {modules[module].relative_to(ROOT)}:{line}: {name}")
        if done % 100 == 0 or done == total:
            print(f"{core.name}: {done} of {total}", file=sys.stderr)
    if done != total:
        raise RuntimeError(f"{total - done} mutants have no outcome")
    return result


def chosen_modules(core: Core, patterns: list[str]) -> dict[str, Path]:
    """Those of a core whose names, without the service's package, match one of the patterns; all without patterns."""
    return {
        name: file
        for name, file in core.modules().items()
        if not patterns or any(fnmatch(name.split(".", 2)[-1], pattern) for pattern in patterns)
    }


def named_survivors(modules: Mapping[str, Path], log: str) -> list[str]:
    """Those of these modules that an earlier run printed."""
    names = {str(file.relative_to(ROOT)): name for name, file in modules.items()}
    found = []
    for line in log.splitlines():
        outcome, _, rest = line.partition(": ")
        file, _, rest = rest.partition(":")
        if outcome in ("survived", "not run") and file in names:
            found.append(f"{names[file]}: {rest.partition(': ')[2]}")
    return found


def _survivors(core: Core) -> list[str]:
    """Those of the last full run that have no reason."""
    last = report.load().get(core.name, CoreResult())
    return [f"{survivor.module}: {survivor.name}" for survivor in last.unexplained]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Plant faults in the cores; tests must notice.")
    parser.add_argument("cores", nargs="*", metavar="core", help=f"of {', '.join(CORES)}; all by default")
    parser.add_argument("--sample", type=int, help="that many mutants of each core, instead of all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--again", action="store_true", help="those that survived the last full run without a reason")
    parser.add_argument(
        "--of", type=Path, metavar="FILE", help="those that an earlier run, whose output this is, named"
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="PATTERN",
        help="of these modules only, such as 'admission.core.rules.*'; may be given several times",
    )
    parser.add_argument("--record", action="store_true", help="write docs/mutants.md for a sample, too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="forks at once")
    arguments = parser.parse_args()
    unknown = set(arguments.cores) - set(CORES)
    if unknown:
        parser.error(f"there is no core {', '.join(sorted(unknown))}")
    told = reasons.read()
    results = {name: _run_core(CORES[name], arguments, told) for name in arguments.cores or CORES}
    print(report.table(results))
    failed = [name for name, result in results.items() if result.share > report.SHARE_MAX]
    for name in failed:
        print(f"{name}: more than {report.SHARE_MAX:.0%} survive without a reason", file=sys.stderr)
    if arguments.again or arguments.of or arguments.module or (arguments.sample is not None and not arguments.record):
        return 1 if failed else 0
    if arguments.sample is None:
        unused = told.unused(module for name in results for module in CORES[name].modules())
        for each in unused:
            print(f"reason without a survivor: {each}", file=sys.stderr)
        failed += unused
    earlier = report.load()
    report.save({name: found for name in CORES if (found := results.get(name) or earlier.get(name))})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
