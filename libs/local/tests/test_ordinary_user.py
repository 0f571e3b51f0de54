"""What runs as root runs as an ordinary user, too: the tests of it again, as `nobody`."""

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
# Where it matters who runs them: servers, children, folders, a system with servers of its own.
FILES = ["test_files.py", "test_nats.py", "test_postgres.py", "test_process.py", "test_system.py"]
CHOSEN = "not test_system or servers or temporary or every or each or killed"
# The checkout and the interpreter may lie where only root can go (/root). Reading is all that is lent: the user id is
# another one, so neither the code nor PostgreSQL takes it for root, and it changes and signals only what is its own.
LENT = "dac_read_search"


@pytest.mark.long
@pytest.mark.timeout(300)  # A whole test run.
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run as an ordinary user, all tests are this test")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv: apt-get install util-linux")
async def test_everything_here_passes_as_an_ordinary_user(state_dir: Path) -> None:
    user = pwd.getpwnam("nobody")
    os.chown(state_dir, user.pw_uid, user.pw_gid)
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    lend = [f"--inh-caps=+{LENT}", f"--ambient-caps=+{LENT}"]
    probe = await asyncio.create_subprocess_exec(*become, *lend, sys.executable, "-c", "", stderr=subprocess.PIPE)
    _, complaint = await probe.communicate()
    if probe.returncode != 0:
        pytest.skip(f"needs the capability {LENT}: {complaint.decode().strip()}")
    process = await asyncio.create_subprocess_exec(
        *become,
        *lend,
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, *FILES),
        cwd=HERE,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(state_dir),
            "TMPDIR": str(state_dir),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    # Skipped are exactly those that only root can run.
    skipped = [line for line in text.splitlines() if line.startswith("SKIPPED")]
    assert skipped
    assert all("needs root" in line for line in skipped), text
