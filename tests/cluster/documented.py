"""The commands of the documentation that are tried on a node: fenced blocks after a comment `<!-- tried: NAME -->`.

The comment is in the page itself, so that the page and the test can't differ.
"""

import re
from pathlib import Path
from typing import Final

from tests.cluster.build import ROOT

PAGES: Final = tuple(ROOT / "docs" / "howto" / name for name in ("operations.md", "backup.md"))
_BLOCK: Final = re.compile(r"^<!-- tried: ([a-z-]+) -->\n+```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK: Final = re.compile(r"<!-- tried:")


def blocks() -> dict[str, str]:
    """The commands by the name of their block. ValueError for a mark without a block, or a name that is there twice."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text()
        pairs = _BLOCK.findall(text)
        if len(pairs) != len(_MARK.findall(text)):
            raise ValueError(f"{page.name}: a mark without commands")
        for name, commands in pairs:
            if name in found:
                raise ValueError(f"{page.name}: {name} is there twice")
            found[name] = commands
    return found


def folder_of_a_reader(folder: Path) -> Path:
    """A working folder that has of the repository what the commands name, and may be written in."""
    folder.mkdir(parents=True)
    (folder / "deploy").symlink_to(ROOT / "deploy")
    return folder
