"""Private files, locks, logs, folders: what a state folder stands on."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from callwarden.local.account import reachable_home, reachable_tree, reaches
from callwarden.local.files import AlreadyRunning, TemporaryFolder, claim, is_claimed, rotate_log, sweep, write_private
from callwarden.local.keys import KeysUnusable, LocalKeys
from callwarden.local.process import ProcessUser
from callwarden.local.run_file import RunFile
from callwarden.local.usage import usage

STRANGER = ProcessUser("stranger", 64_999, 64_999)


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_once_and_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_claimed(path)
    descriptor = claim(path)
    assert is_claimed(path)
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        claim(path)
    os.close(descriptor)
    assert not is_claimed(path)


def test_a_log_is_rotated_under_a_writer_that_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab") as writer:
        writer.write(b"x" * 101)
        writer.flush()
        rotate_log(log, bytes_max=101)
        assert log.stat().st_size == 101
        rotate_log(log, bytes_max=100)
        writer.write(b"after")
        writer.flush()
    assert log.read_bytes() == b"after"
    assert (tmp_path / "log.1").stat().st_size == 101


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = LocalKeys.load_or_make(path)
    assert LocalKeys.load_or_make(path, must_exist=True) == keys
    assert LocalKeys.new() != keys
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(KeysUnusable, match="can be read by others"):
        LocalKeys.load_or_make(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"nonce_key": "00"}'])
def test_keys_that_cannot_be_read_are_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    write_private(path, text)
    with pytest.raises(KeysUnusable):
        LocalKeys.load_or_make(path)
    assert path.read_text() == text


def test_a_killed_process_s_temporary_folder_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # Read it again.
    program = """
import os
from callwarden.local.files import TemporaryFolder
print(TemporaryFolder("x").path, flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, env={"TMPDIR": str(tmp_path)}
    )
    left = Path(killed.stdout.strip())
    assert left.parent == tmp_path
    mine, foreign = TemporaryFolder("x"), tmp_path / "callwarden-without-owner"
    foreign.mkdir()
    assert left.exists()  # Too young: its maker might be about to lock it.
    for folder in (left, mine.path, foreign):
        os.utime(folder, (0, 0))
    sweep()
    assert not left.exists()
    assert mine.path.exists()
    assert foreign.exists()
    mine.remove()
    assert not mine.path.exists()


def test_a_run_file_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    run = RunFile(
        pid=1, state_dir=str(tmp_path), nats_url="n", database_url="d", role_urls={}, sip=[], services={}, version=99
    )
    run.write()
    descriptor = claim(tmp_path / "lock")
    try:
        with pytest.raises(Exception, match="another version"):
            RunFile.read(tmp_path)
    finally:
        os.close(descriptor)


def test_a_user_reaches_what_every_folder_above_lets_through(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    top = Path(tempfile.gettempdir())
    for folder in (inner, *inner.parents):
        if folder != top and folder.is_relative_to(top):
            folder.chmod(0o755)
    assert reaches(STRANGER, inner)
    inner.parent.chmod(0o700)
    assert not reaches(STRANGER, inner)
    assert reaches(ProcessUser("me", os.geteuid(), os.getegid()), inner)
    assert reaches(None, inner)
    inner.parent.chmod(0o711)
    assert reaches(STRANGER, inner)
    inner.chmod(0o750)
    assert not reaches(STRANGER, inner)


def test_without_another_user_everything_stays_where_it_is(tmp_path: Path) -> None:
    assert reachable_home(None, tmp_path / "home") == tmp_path / "home"
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert reachable_tree(None, (tmp_path / "programs",), "v") == tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root runs PostgreSQL as another user")
def test_programs_out_of_reach_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    monkeypatch.setattr("callwarden.local.account.CACHE_ROOT", state_dir / "cache")
    closed = tmp_path / "root-only"
    (closed / "package" / "bin").mkdir(parents=True)
    (closed / "package.libs").mkdir()
    closed.chmod(0o700)
    program = closed / "package" / "bin" / "tool"
    program.write_text("#!/bin/sh\necho works\n")
    program.chmod(0o700)
    folders = (closed / "package", closed / "package.libs", closed / "not-in-this-wheel")
    tree = reachable_tree(STRANGER, folders, "v1")
    assert tree != closed
    copy = tree / "package" / "bin" / "tool"
    ran = subprocess.run(
        [copy], user=STRANGER.uid, group=STRANGER.gid, extra_groups=[], capture_output=True, check=True
    )
    assert ran.stdout == b"works\n"
    before = copy.stat().st_ino
    assert reachable_tree(STRANGER, folders, "v1") == tree
    assert copy.stat().st_ino == before
    assert [path.name for path in (state_dir / "cache").iterdir()] == ["v1"]
    os.chown(tree, STRANGER.uid, STRANGER.gid)
    with pytest.raises(PermissionError, match="not owned by root"):
        reachable_tree(STRANGER, folders, "v1")


def test_use_is_summed_over_descendants() -> None:
    own = usage(os.getpid())[os.getpid()]
    with subprocess.Popen(["/bin/sh", "-c", "echo ready; read line"], stdin=-1, stdout=-1) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        family = usage(os.getpid(), child.pid)
        assert family[os.getpid()].processes == own.processes + 1
        assert family[os.getpid()].rss_bytes > family[child.pid].rss_bytes > 0
        child.stdin.close()
    assert usage(child.pid) == {}
