"""Private files of a state folder: written whole or not at all, readable by nobody else; logs kept short; one owner."""

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

LOG_BYTES_MAX = 32 * 1024 * 1024  # One log and its predecessor: 64 MB a process, some days of a quiet system.


_TEMPORARY = "callwarden-"
_OWNER = ".owner"
_MEMORY = Path("/dev/shm")  # noqa: S108  Used by mkdtemp only.
_MEMORY_FREE_BYTES_MIN = (
    2 * 1024**3
)  # A database takes 40 MB and up to 1 GB of log; containers often have 64 MB in all.
_SWEEP_AGE_S = 60.0  # A younger folder may be one whose maker has not locked it yet.


class AlreadyRunning(Exception):
    """Another process runs a system in this folder."""


def write_private(path: Path, text: str) -> None:
    """Replace a file's content at once; 0600."""
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def claim(path: Path) -> int:
    """Lock a file for this process's life; the descriptor to close. AlreadyRunning, with the owner's process id."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise AlreadyRunning(f"a system runs in {path.parent} already (process {owner or 'unknown'})") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def is_claimed(path: Path) -> bool:
    """Whether somebody alive holds that lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def rotate_log(log: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Move a log that has grown too long to `<name>.1`. Children append (O_APPEND) and so go on in the emptied one."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size <= bytes_max:
            return
        # Copied and emptied, not renamed: the child keeps its descriptor. Lines written in between are lost.
        previous = log.with_name(f"{log.name}.1")
        shutil.copyfile(log, previous)
        previous.chmod(0o600)
        os.truncate(log, 0)


def temporary_base() -> Path:
    """Where temporary folders are made: TMPDIR if set, else memory if there is plenty, else the usual place.

    Databases make and remove a thousand files at a time. Measured: copying one from a template took 15 ms in memory and
    235 ms on an ext4 disk, which does not use just removed inodes again for some seconds.
    """
    if "TMPDIR" not in os.environ:
        with contextlib.suppress(OSError):
            status = os.statvfs(_MEMORY)
            if status.f_bavail * status.f_frsize >= _MEMORY_FREE_BYTES_MIN and os.access(_MEMORY, os.W_OK | os.X_OK):
                return _MEMORY
    return Path(tempfile.gettempdir())


class TemporaryFolder:
    """A folder in `temporary_base()`, 0711, removed by `remove`, or by the next one made if we are killed.

    0711 lets the user that PostgreSQL runs as pass through to its own; what is put in must be closed itself.
    """

    def __init__(self, name: str) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY}{name}-", dir=temporary_base()))
        self._claim = claim(self.path / _OWNER)
        self.path.chmod(0o711)

    def remove(self) -> None:
        """Remove it with all that is in it; what has gone meanwhile is no error."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._claim)


def sweep() -> None:
    """Remove temporary folders of ours whose maker has died."""
    for folder in temporary_base().glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            is_ours = status.st_uid == os.geteuid() and (folder / _OWNER).exists()
            if is_ours and time.time() - status.st_mtime > _SWEEP_AGE_S and not is_claimed(folder / _OWNER):
                shutil.rmtree(folder, ignore_errors=True)
