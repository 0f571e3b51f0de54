"""The ordinary user that PostgreSQL runs as when we are root, and the places which that user can reach.

PostgreSQL refuses to run as root. Where we are not root there is nothing to do: it runs as who we are.
"""

import contextlib
import functools
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from callwarden.local.process import ProcessUser

USER = "callwarden-pg"
# Asked in this order when USER is not there and can't be made: PostgreSQL's own packages make the first, every image
# has the second. Both are shared with other software, so USER is preferred.
FALLBACK_USERS = ("postgres", "nobody")
SHARED_ROOT = Path("/var/lib/callwarden")  # For root: what the user must reach when the chosen folder can't be entered.
CACHE_ROOT = Path("/var/cache/callwarden")
_MAKERS = (  # shadow-utils, BusyBox
    ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", USER),
    ("adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin", USER),
)


class NoOrdinaryUser(Exception):
    """We are root, and there is no user that PostgreSQL could run as."""


def _find(name: str) -> ProcessUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return ProcessUser(name, entry.pw_uid, entry.pw_gid) if entry.pw_uid != 0 else None


def _make() -> None:
    for command in _MAKERS:
        if shutil.which(command[0]):
            # May fail because another launcher is making it at the same time, or /etc is read-only: the caller looks
            # again.
            subprocess.run(command, check=False, capture_output=True, timeout=30)
            return


@functools.cache
def ordinary_user() -> ProcessUser | None:
    """Who PostgreSQL runs as: None when we are not root (it runs as us), else USER, found or made, else one of the
    fallbacks.

    NoOrdinaryUser if none of them exists. Blocks for as long as `useradd` takes, once.
    """
    if os.geteuid() != 0:
        return None
    if found := _find(USER):
        return found
    _make()
    for name in (USER, *FALLBACK_USERS):
        if found := _find(name):
            return found
    raise NoOrdinaryUser(
        f"PostgreSQL refuses to run as root, and none of the users {USER}, {', '.join(FALLBACK_USERS)} exists or can "
        f"be made: make one (useradd --system {USER}), or give the URL of a running database"
    )


def _may(entry: os.stat_result, identity: ProcessUser, bits: int) -> bool:
    """Whether the mode gives `bits` (of rwx, as 0..7) to the user. Access lists are not looked at."""
    mode = stat.S_IMODE(entry.st_mode)
    if entry.st_uid == identity.uid:
        return (mode >> 6) & bits == bits
    if entry.st_gid == identity.gid:
        return (mode >> 3) & bits == bits
    return mode & bits == bits


def reaches(identity: ProcessUser | None, path: Path) -> bool:
    """Whether the user can enter every folder above `path` (that need not exist) and read it."""
    if identity is None:
        return True
    resolved = path.resolve()
    for folder in resolved.parents:
        if folder.exists() and not _may(folder.stat(), identity, 0o1):
            return False
    return not resolved.exists() or _may(resolved.stat(), identity, 0o5 if resolved.is_dir() else 0o4)


def reachable_home(identity: ProcessUser | None, wanted: Path) -> Path:
    """A folder owned by the user, 0700: `wanted` itself, or where its parents can't be entered (a root's home) a
    folder of SHARED_ROOT that a symbolic link at `wanted` leads to. The same `wanted` always gives the same folder.
    """
    home = wanted
    if identity is not None and not reaches(identity, wanted.parent / "x"):
        digest = hashlib.sha256(bytes(wanted.parent.resolve() / wanted.name)).hexdigest()[:16]
        SHARED_ROOT.mkdir(mode=0o711, parents=True, exist_ok=True)
        home = SHARED_ROOT / f"{wanted.name}-{digest}"
        if not wanted.is_symlink() or wanted.readlink() != home:
            with contextlib.suppress(FileNotFoundError):
                wanted.unlink()
            wanted.symlink_to(home)
    home.mkdir(mode=0o700, exist_ok=True)
    if identity is not None and home.stat().st_uid != identity.uid:
        os.chown(home, identity.uid, identity.gid)
    home.chmod(0o700)
    return home


def reachable_tree(identity: ProcessUser | None, folders: tuple[Path, ...], version: str) -> Path:
    """Where the user can run programs of `folders` (siblings): their own parent, or a copy of them in CACHE_ROOT.

    A virtual environment under /root is the case for the copy. It is made once for a version, whole or not at all.
    """
    parent = folders[0].parent
    if all(reaches(identity, folder) for folder in folders):
        return parent
    copy = CACHE_ROOT / version
    if copy.is_dir():
        if copy.stat().st_uid != 0:  # Somebody else's programs are not run by us.
            raise PermissionError(f"{copy} is not owned by root")
        return copy
    CACHE_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=CACHE_ROOT))
    try:
        for folder in folders:
            if folder.exists():
                shutil.copytree(folder, half / folder.name, symlinks=True)
        for path in (half, *half.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            half.rename(copy)
        except OSError:
            if not copy.is_dir():  # Another launcher was faster: its copy is as good.
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return copy
