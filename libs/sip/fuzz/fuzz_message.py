"""The coverage-guided fuzzer of the parser and all that stands on it.

``python fuzz_message.py corpus/ ../tests/torture/rfc4475 -max_len=4096 -max_total_time=600`` (libFuzzer's options).
``corpus/`` keeps what the runs found worth keeping; a crash is written to ``crash-*``.  Needs atheris.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["callwarden.sip"]):
        exercise: Callable[[bytes], bool] = importlib.import_module("exercise").exercise  # beside this file

    def one(data: bytes) -> None:
        exercise(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
