"""The tutorial, typed as a reader types it."""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.walkthrough import Walkthrough, blocks, pattern, reader_environment

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A checkout as far as the pages need it; every user can pass through, as the database's must."""
    made = Path(tempfile.mkdtemp(prefix="callwarden-tutorial-"))
    made.chmod(0o755)
    (made / "deploy").symlink_to(ROOT / "deploy")
    yield made
    shutil.rmtree(made)


@pytest.mark.long
async def test_the_tutorial_does_what_it_says(folder: Path, free_udp_port: Callable[[], int]) -> None:
    page = (ROOT / "docs/tutorial/first-call.md").read_text()
    sip, carrier = free_udp_port(), free_udp_port()
    instead = (
        ("make up", f". .venv/bin/activate\ncallwarden up --sip 127.0.0.1:{sip}"),
        ("5060", str(sip)),
        ("5080", str(carrier)),
    )
    async with Walkthrough(folder, reader_environment(folder, Path(sys.prefix)), instead) as reader:
        await reader.follow(page)


@pytest.mark.long
async def test_the_readme_s_steps_end_in_a_call_and_a_refusal(folder: Path, free_udp_port: Callable[[], int]) -> None:
    page = (ROOT / "README.md").read_text()
    steps = [block.text for block in blocks(page[page.index("## Use it yourself") : page.index("## A refusal")])]
    assert len(steps) == 3
    sip, carrier = free_udp_port(), free_udp_port()
    instead = (
        ("make up", f". .venv/bin/activate\ncallwarden up --sip 127.0.0.1:{sip}"),
        ("127.0.0.1:5080", f"127.0.0.1:{carrier}"),
    )
    up, answer, rest = steps
    *before, answered, refused, explained, booked = rest.strip().splitlines()
    lines = "\n".join(before)
    told = f"""\
```sh
# terminal 1
{up}```
```text
Callwarden runs…
```
```sh
# terminal 2
{answer}```
```text
answering every number…
```
```sh
{lines}
```
```console
$ {answered}
200 OK…
$ {refused}
callwarden: 403 Forbidden; …
$ {explained}
…premium: The number is a premium one.…
$ {booked}
…call…-0.00…
```
"""
    async with Walkthrough(folder, reader_environment(folder, Path(sys.prefix)), instead) as reader:
        await reader.follow(told)


def test_what_a_page_shows_is_compared_but_for_what_differs_from_run_to_run() -> None:
    shown = "Call 0123456789abcdef\n…\nheld at 10:00:00 for 3.0 s by 0123456789abcdef\n"
    found = pattern(shown).fullmatch("Call aaaaaaaaaaaaaaaa\nx\ny\nheld at 11:22:33 for 3.4 s by aaaaaaaaaaaaaaaa")
    assert found is not None
    assert found.groups() == ("aaaaaaaaaaaaaaaa",)
    assert not pattern(shown).fullmatch("Call aaaaaaaaaaaaaaaa\nheld at 11:22:33 for 3.4 s by bbbbbbbbbbbbbbbb")
    assert not pattern(shown).fullmatch("Call aaaaaaaaaaaaaaaa\nfreed at 11:22:33 for 3.4 s by aaaaaaaaaaaaaaaa")
    assert not pattern("─…\nrow\n").fullmatch("row")


def test_the_tutorial_s_commands_are_all_run() -> None:
    """No block is of a kind that the walkthrough passes over."""
    page = (ROOT / "docs/tutorial/first-call.md").read_text()
    kinds = re.findall(r"^```(\w*)$", page, re.MULTILINE)
    assert {kind for kind in kinds if kind} == {"sh", "console", "text"}
