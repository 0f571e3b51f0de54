"""Prints a member of the workspace and those that it stands on: `name …` of all, then `path …` of each folder."""

import sys
import tomllib
from pathlib import Path


def main(wanted: str) -> None:
    folders = {}
    for path in sorted([*Path().glob("libs/*"), *Path().glob("services/*"), *Path().glob("operators/*"), Path("cli")]):
        if (path / "pyproject.toml").exists():
            project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
            folders[project["name"]] = (path, project)
    (start,) = [name for name, (path, _) in folders.items() if path == Path(wanted)]
    needed, todo = set(), [start]
    while todo:
        name = todo.pop()
        if name in needed:
            continue
        needed.add(name)
        todo += [other for other in folders[name][1].get("dependencies", ()) if other in folders]
    for name in folders:
        sys.stdout.write(f"name {name}\n")
    for name in sorted(needed):
        sys.stdout.write(f"path ./{folders[name][0]}\n")


if __name__ == "__main__":
    main(sys.argv[1])
