"""Builds the API server that the tests with a cluster start: `make apiserver`.

A step of its own, because it takes 5 to 10 minutes on two idle cores where Go's cache is empty: too long for a test's
time limit. The program is kept in .cache by the digest of its sources.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = Path(__file__).resolve().parent / "apiserver"
CACHE: Final = ROOT / ".cache" / "kubernetes"
BUILD_TIMEOUT_S: Final = 3_600


def binary() -> Path:
    """Where the program of the present sources is, or will be."""
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go")))
    return CACHE / digest.hexdigest()[:16] / "apiserver"


def build() -> Path:
    """The API server's program, built unless it is there. CalledProcessError when Go fails."""
    made = binary()
    made.parent.mkdir(parents=True, exist_ok=True)
    with (made.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits for the first
        if not made.exists():
            new = made.with_suffix(".new")
            subprocess.run(
                ["go", "build", "-trimpath", "-mod=readonly", "-ldflags=-s -w", "-o", new, "."],
                cwd=SOURCE,
                check=True,
                timeout=BUILD_TIMEOUT_S,
            )
            new.rename(made)
    return made


def main() -> int:
    if shutil.which("go") is None and not binary().exists():
        sys.stderr.write("No Go 1.26: the API server is not built, and tests with a cluster are skipped.\n")
        return 0
    sys.stdout.write(f"{build()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
