"""A whole run on a planted package: a good test kills, a weak one leaves survivors."""

from pathlib import Path
from textwrap import dedent

import pytest

from tests.mutation.__main__ import run_job
from tests.mutation.server import Job

CODE = '''
"""A planted core."""

LIMITS = {"calls": 3}
PRICES = {}


class Gate:
    def __init__(self, most=LIMITS["calls"]):
        self.most = most
        self.refused = 0

    def admit(self, count):
        while count < 0:
            count += 5
        if count > self.most:
            self.refused += 1
            return False
        return True

    def price(self, calls):
        if calls not in PRICES:
            PRICES[calls] = calls * 5
        return PRICES[calls]

    def never_called(self):
        return 1 + 1
'''

WEAK = """
from planted_gate import Gate


def test_something():
    assert Gate().admit(1)
    assert not Gate().admit(9)
"""

GOOD = """
import pytest
from planted_gate import Gate


def test_three_are_admitted_and_the_fourth_is_refused_and_counted():
    gate = Gate()
    assert gate.admit(3) is True
    assert gate.refused == 0
    assert gate.admit(4) is False
    assert gate.refused == 1
    assert gate.admit(5) is False
    assert gate.refused == 2


def test_something_that_fills_the_cache():
    assert Gate().price(2)


def test_two_calls_cost_ten():
    assert Gate().price(2) == 10


@pytest.fixture
def database():
    raise RuntimeError("no mutant starts a database")


def test_that_needs_a_database(database):
    pass


def test_the_limit_is_an_argument():
    assert Gate(most=7).admit(7)
    assert not Gate(most=0).admit(1)


def test_negative_counts_go_round():
    assert not Gate().admit(-1)
    assert Gate(most=0).admit(-5)
    assert Gate(most=3).admit(-2)
    assert Gate(most=0).admit(0)
"""


def run(folder: Path, tests: str, sample: int | None = None, only: list[str] | None = None) -> dict[str, str]:
    """The outcome of each mutant by its name."""
    module = folder / "planted_gate.py"
    module.write_text(dedent(CODE))
    (folder / "test_planted.py").write_text(dedent(tests))
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {folder}\naddopts = --import-mode=importlib\n")
    arguments = [f"--rootdir={folder}", "-c", str(folder / "pytest.ini"), str(folder / "test_planted.py")]
    job = Job(
        {"planted_gate": str(module)}, arguments, [str(folder)], ("database",), 2, sample, cpu_s_min=0.5, only=only
    )
    return {value[1]: value[3] for kind, value in run_job(job) if kind == "outcome"}


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(tmp_path_factory.mktemp("weak"), WEAK)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(tmp_path_factory.mktemp("good"), GOOD)


@pytest.mark.parametrize(
    "name",
    [
        "Gate.admit: boundary: count > self.most → count >= self.most",
        "Gate.admit: statement: self.refused += 1 → (deleted)",
        # What happens at import: a table, from which a default is taken.
        "module: constant: {'calls': 3} → {'calls': 4}",
    ],
)
def test_a_weak_test_leaves_survivors_that_a_good_one_kills(
    weak: dict[str, str], good: dict[str, str], name: str
) -> None:
    assert weak[name] == "survived"
    assert good[name] == "killed"


def test_what_one_test_leaves_in_a_cache_does_not_hide_what_another_needs(good: dict[str, str]) -> None:
    assert good["Gate.price: constant: calls * 5 → calls * 6"] == "killed"


def test_good_tests_leave_nothing_but_what_they_do_not_run(good: dict[str, str]) -> None:
    assert {name for name, outcome in good.items() if outcome == "survived"} == set()
    assert {name.partition(":")[0] for name, outcome in good.items() if outcome == "not run"} == {"Gate.never_called"}


def test_a_mutant_that_loops_for_ever_times_out(good: dict[str, str]) -> None:
    assert good["Gate.admit: statement: count += 5 → (deleted)"] == "timed out"
    assert good["Gate.admit: arithmetic: count += 5 → count -= 5"] == "timed out"


def test_a_sample_runs_some_of_them(tmp_path: Path) -> None:
    assert len(run(tmp_path, WEAK, sample=3)) == 3


def test_a_run_of_named_mutants_runs_no_others(tmp_path: Path) -> None:
    name = "Gate.admit: statement: self.refused += 1 → (deleted)"
    assert run(tmp_path, GOOD, only=[f"planted_gate: {name}"]) == {name: "killed"}


def test_tests_that_fail_without_a_fault_judge_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit code 4"):
        run(tmp_path, WEAK + "\n\ndef test_wrong():\n    assert False\n")
