"""Cuts out of a lock what is needed, with the lock's own hashes: locked.py LOCK < NEEDED > REQUIREMENTS.

NEEDED has a line `name==version` each, as uv resolves them from what an index says. An index may say which packages are
needed; that they are the very files that were locked, it may not. What isn't in the lock ends it with code 1.
"""

import sys
from collections.abc import Iterable
from pathlib import Path


def pin(line: str) -> str:
    """`name==version` without what follows it."""
    return line.split(";")[0].split("\\")[0].strip()


def entries(lock: str) -> dict[str, str]:
    """By `name==version`, the lines of each entry: markers and hashes, without remarks."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if line[0] not in " #\n":
            name = pin(line)
        if name and not line.lstrip().startswith("#"):
            found[name] = found.get(name, "") + line
    return found


def cut(lock: str, needed: Iterable[str]) -> str:
    """The entries of `needed`. KeyError names what isn't locked."""
    there = entries(lock)
    return "".join(there[pin(line)] for line in needed if line.strip())


if __name__ == "__main__":
    try:
        sys.stdout.write(cut(Path(sys.argv[1]).read_text(), sys.stdin))
    except KeyError as unlocked:
        sys.exit(f"{unlocked.args[0]} is needed and isn't in {sys.argv[1]}: make lock")
