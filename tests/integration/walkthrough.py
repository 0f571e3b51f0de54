"""Runs what a page of docs/ tells its reader to type, and compares what is printed with what the page shows.

Of a page these blocks count:

- `sh` with a first line `# terminal N`: commands of a terminal of its own. The last one stays in the foreground, if a
  `text` block follows; that block is what must be printed before the page goes on. A terminal that is used again gets
  Ctrl-C first.
- other `sh`: commands that must succeed.
- `console`: after each `$ ` a command, below it what it prints. It must match whole, but for `…` (anything, line breaks
  too), clock times, decimals of seconds and the width of a table's columns. An id of sixteen hexadecimal digits stands
  for the one that this run gave; later commands on the page use that. A command whose output begins with `callwarden: `
  must fail, any other succeed.
"""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import TracebackType
from typing import Self

BLOCK = re.compile(r"^( *)```(sh|console|text)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
TERMINAL = re.compile(r"# terminal (\d+)\n")
ID = re.compile(r"\b[0-9a-f]{16}\b")
READY_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Block:
    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(kind, dedent(text)) for _, kind, text in BLOCK.findall(page)]


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Each command of a `console` block, and what it prints."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def pattern(expected: str) -> re.Pattern[str]:
    """What a page shows, as a pattern for what is printed. Ids become groups, in their order; the same id twice is the
    same group.
    """
    groups: list[str] = []

    def of(token: str) -> str:
        if token == "…":
            return ".*?"
        if ID.fullmatch(token):
            if token in groups:
                return f"(?P=id{groups.index(token)})"
            groups.append(token)
            return f"(?P<id{len(groups) - 1}>[0-9a-f]{{16}})"
        if re.fullmatch(r"\d\d:\d\d:\d\d", token):
            return r"\d\d:\d\d:\d\d"
        if re.fullmatch(r"\d+\.\d s", token):
            return r"\d+\.\d s"
        if token == "─…":
            return "─+"
        if len(token) > 1 and token.isspace():
            return " +"
        return re.escape(token)

    lines = (
        re.findall(r"─…|…|(?<=\S)  +|\b[0-9a-f]{16}\b|\d\d:\d\d:\d\d|\b\d+\.\d s\b|.", line)
        for line in expected.splitlines()
    )
    text = "\n".join("".join(map(of, line)) for line in lines)
    # Whole lines that are left out may also be none at all.
    text = re.sub(r"^\.\*\?\n", r"(?:.*?\\n)??", text, flags=re.MULTILINE)
    return re.compile(text, re.DOTALL)


def plain(printed: str) -> str:
    """As a page shows it: without the blanks that a table ends its lines with."""
    return "\n".join(line.rstrip() for line in printed.rstrip().splitlines())


class Walkthrough:
    """The terminals of one reader, inside `async with`. `instead`: pairs of what a page says and what this run types,
    for ports that must be free.
    """

    def __init__(self, folder: Path, environment: dict[str, str], instead: Sequence[tuple[str, str]]) -> None:
        self._folder = folder
        self._environment = environment
        self._instead = instead
        self._ids: dict[str, str] = {}
        self._terminals: dict[str, asyncio.subprocess.Process] = {}
        self._reading: list[asyncio.Task[bytes]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ctrl-C in every terminal, the last one first."""
        for process in reversed(self._terminals.values()):
            await self._interrupt(process)
        await asyncio.gather(*self._reading)

    @staticmethod
    async def _interrupt(process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def follow(self, page: str) -> None:
        """The whole page, from its first block to its last. AssertionError at the first thing that is otherwise."""
        todo = blocks(page)
        for index, block in enumerate(todo):
            after = todo[index + 1] if index + 1 < len(todo) else Block("", "")
            if block.kind == "console":
                for command, printed in commands(block.text):
                    await self._command(command, printed)
            elif block.kind == "sh" and block.text.startswith("# terminal") and after.kind == "text":
                await self._terminal(block.text, after.text)
            elif block.kind == "sh":
                code, printed = await self._run(block.text)
                assert code == 0, f"{block.text}\n{printed}"

    def _here(self, text: str) -> str:
        for theirs, ours in self._instead:
            text = text.replace(theirs, ours)
        return ID.sub(lambda found: self._ids.get(found[0], found[0]), text)

    async def _start(self, script: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    async def _run(self, script: str) -> tuple[int, str]:
        process = await self._start(self._here(script))
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            printed, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, printed.decode()

    async def _command(self, command: str, expected: str) -> None:
        code, printed = await self._run(command)
        shown = f"$ {command}\n{printed}"
        wanted = pattern(self._here(expected))
        found = wanted.fullmatch(plain(printed))
        assert found is not None, f"{shown}\nThe page shows:\n{expected}"
        for theirs, ours in zip(dict.fromkeys(ID.findall(self._here(expected))), found.groups(), strict=True):
            self._ids[theirs] = ours
        assert (code != 0) == expected.startswith("callwarden: "), f"exit code {code}\n{shown}"

    async def _terminal(self, script: str, ready: str) -> None:
        named = TERMINAL.match(script)
        assert named is not None, script
        if named[1] in self._terminals:
            await self._interrupt(self._terminals.pop(named[1]))
        *before, last = self._here(script).rstrip().splitlines()
        process = await self._start("\n".join([*before, f"exec {last}"]))
        self._terminals[named[1]] = process
        assert process.stdout is not None
        wanted = pattern(self._here(ready))
        printed = ""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not wanted.fullmatch(plain(printed)):
                    line = await process.stdout.readline()
                    assert line, f"{script}\nended early:\n{printed}"
                    printed += line.decode()
        except TimeoutError as error:
            raise AssertionError(f"{script}\nprinted:\n{printed}\nThe page shows:\n{ready}") from error
        self._reading.append(asyncio.create_task(process.stdout.read()))  # So that it never waits for us.


def reader_environment(folder: Path, venv: Path) -> dict[str, str]:
    """As in a terminal of 110 columns, in a checkout whose environment is `venv` and is active."""
    (folder / ".venv").symlink_to(venv)
    path = f"{venv / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLWARDEN_")}
    return {**kept, "COLUMNS": "110", "NO_COLOR": "1", "HOME": str(folder), "PATH": path, "PYTHONUNBUFFERED": "1"}
