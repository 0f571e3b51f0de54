"""Every link between the pages of this repository leads to a file that is there, and to a heading in it."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {"node_modules", "build", "dist"}  # and what begins with a dot: not ours
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s#]*)(?:#([^)\s]*))?\)")
MENTION = re.compile(r"\bdocs/[\w/-]+\.md\b")
WRITTEN = ("*.py", "*.md", "*.yaml", "*.tpl", "*.proto", "*.toml")


def files(*patterns: str) -> Iterator[Path]:
    for pattern in patterns:
        for path in sorted(ROOT.rglob(pattern)):
            parts = path.relative_to(ROOT).parts
            if not any(part.startswith(".") or part in SKIPPED for part in parts):
                yield path


def prose(page: Path) -> str:
    """Without what is code."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> frozenset[str]:
    """As they are made of headings where the pages are shown: small letters, hyphens, nothing else."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings)


def broken(page: Path) -> Iterator[str]:
    for path, anchor in LINK.findall(prose(page)):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield f"{path}#{anchor}" if anchor else path


@pytest.mark.parametrize("page", list(files("*.md")), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_every_page_that_a_text_names_is_there() -> None:
    assert [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(*WRITTEN)
        for name in MENTION.findall(path.read_text())
        if not (ROOT / name).exists()
    ] == []


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = LINK.findall((folder / "README.md").read_text())
    assert [path for path, _ in listed] == sorted(page.name for page in folder.glob("0*.md"))


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# The `one` heading\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md) [b](there.md#the-one-heading) [c](#here) [d](https://x.org/y)\n\n## Here\n")
    assert list(broken(page)) == []
    page.write_text("[a](gone.md) [b](there.md#the-other) [c](#nowhere) `[d](code)`\n")
    assert list(broken(page)) == ["gone.md", "there.md#the-other", "#nowhere"]
