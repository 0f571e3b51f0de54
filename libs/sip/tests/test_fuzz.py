"""A short seeded run of the fuzzer; the long one is started by hand (see fuzz/fuzz_message.py)."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..fuzz.exercise import exercise  # noqa: TID252 - no package of its own, only test files

HERE = Path(__file__).parent
FUZZ = HERE.parent / "fuzz"
SEEDS = sorted([*FUZZ.glob("corpus/*"), *HERE.glob("torture/rfc*/*")])
RUNS = 5000


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: path.name)
def test_the_seeds_hold(seed: Path) -> None:
    exercise(seed.read_bytes())


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="no atheris: pip install 'atheris>=3.0,<3.1' (Python 3.11 to 3.13)",
)
def test_a_seeded_run_of_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    seeds = [FUZZ / "corpus", HERE / "torture" / "rfc4475", HERE / "torture" / "rfc5118"]
    limits = [f"-runs={RUNS}", "-seed=1", "-max_len=4096", "-timeout=10", f"-dict={FUZZ / 'sip.dict'}"]
    result = subprocess.run(
        [sys.executable, FUZZ / "fuzz_message.py", corpus, *seeds, *limits, f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    done = re.search(r"Done (\d+) runs", result.stderr)
    assert done is not None
    assert int(done[1]) >= RUNS
