"""The tokens of one run: by them services know each other and the command line, and a stranger on this machine is none
of them. Made anew at each start, in files that nobody else can read.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from callwarden.common.rpc.tokens import CALLERS_FILE, callers_json, new_tokens
from callwarden.local.files import write_private
from callwarden.local.run_file import token_path


def write(state_dir: Path, roles: Iterable[str]) -> None:
    """A token for each role, and the list by which servers check them. Those of an earlier run are worth nothing."""
    remove(state_dir)
    tokens = new_tokens(roles)
    callers_path(state_dir).parent.mkdir(mode=0o700)
    for role, token in tokens.items():
        write_private(token_path(state_dir, role), token + "\n")
    write_private(callers_path(state_dir), callers_json(tokens))


def callers_path(state_dir: Path) -> Path:
    """The list that servers read."""
    return token_path(state_dir, CALLERS_FILE)


def remove(state_dir: Path) -> None:
    shutil.rmtree(token_path(state_dir, ""), ignore_errors=True)
