"""What the audience sees: steps with their facts, commands with their output, and below them who has what, live.

Without a terminal the same as plain lines, without the live part. A recording has the steps as a terminal shows them
when they are done.
"""

import io
import re
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from callwarden.cli import output

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2 import Account, Call

_CALLS_SHOWN: Final = 6
INDENT: Final = 6  # Of facts below their step.
_PLAIN_COLUMNS: Final = 110
_REFRESH_HZ: Final = 8.0
_RECORDED_COLUMNS: Final = 112


def recorder() -> Console:
    """A console that keeps what is printed on it, for `svg`; nothing of it is shown."""
    return Console(
        file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor", width=_RECORDED_COLUMNS
    )


def svg(tape: Console, title: str) -> str:
    """The recording as an SVG that loads nothing: rich's own format fetches its font from elsewhere."""
    form = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace")
    return tape.export_svg(title=title, code_format=form, unique_id="recording")


class Stage:
    """Used inside `async with` or `with`; `step`, `fact`, `command`, `done` in that order."""

    def __init__(self, console: Console, *, is_live: bool, tape: Console | None = None) -> None:
        """`tape`: one of `recorder()`, which gets every step, too."""
        self._console = console
        self._tape = tape
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None
        self.lines_default = 0
        """Lines of an account without a limit of its own."""
        self._title = ""
        self._began_s = 0.0
        self._facts: list[Text] = []
        self._accounts: Sequence[Account] = ()
        self._calls: Sequence[Call] = ()
        self._spinner = Spinner("dots", style="cyan")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def refresh_s(self) -> float | None:
        """How often `refresh` is wanted; None: never."""
        return 1 / _REFRESH_HZ if self._live is not None else None

    def heading(self, text: str, below: str) -> None:
        self._console.print()
        self._console.print(f"[bold]{text}[/]")
        self._print(Text(below, style=output.DIM))
        self._console.print()
        if self._tape is not None:
            self._tape.print(f"[bold]{text}[/]")
            self._tape.print(Text(below, style=output.DIM))
            self._tape.print()

    def step(self, title: str) -> None:
        """Something begins."""
        self._title, self._began_s, self._facts = title, time.monotonic(), []
        if self._live is None:
            self._print(Text(f"… {title}"))
        self.refresh()

    def fact(self, text: str) -> None:
        """Something was seen to be so."""
        self._add(Text(text))

    def command(self, line: str, shown: str) -> None:
        """A command was run; what it printed."""
        self._add(Text.assemble(("$ ", output.DIM), (line, "cyan")))
        for printed in shown.rstrip("\n").splitlines():
            text = Text.from_ansi(printed) if self.has_colour else Text(printed)
            text.rstrip()
            self._add(Text("  ").append_text(text))

    def done(self) -> None:
        """What began has held."""
        self._close("✓", "green")

    def broken(self, why: str) -> None:
        """What began has not held."""
        self._add(Text(why, style="red"))
        self._close("✗", "bold red")

    def show(self, accounts: "Sequence[Account]", calls: "Sequence[Call]") -> None:
        """What is now."""
        self._accounts, self._calls = accounts, calls
        self.refresh()

    def refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._now(), refresh=True)

    @property
    def has_colour(self) -> bool:
        """Whether colours of a command's output are shown."""
        return self._tape is not None or (self._live is not None and self._console.color_system is not None)

    @property
    def command_columns(self) -> int:
        """How wide the output of a command may be, so that it isn't folded again."""
        if self._tape is not None:
            return self._tape.width - INDENT - 2
        return _PLAIN_COLUMNS if self._live is None else max(60, self._console.width - INDENT - 2)

    def _add(self, fact: Text) -> None:
        self._facts.append(fact)
        if self._live is None:
            self._print(Text("    ").append_text(fact))
        self.refresh()

    def _print(self, line: Text) -> None:
        """One line, whatever its length: a file or a pipe has no width."""
        self._console.print(line, soft_wrap=True)

    def _close(self, sign: str, style: str) -> None:
        took = f"{time.monotonic() - self._began_s:.1f} s"
        title, facts = self._title, self._facts
        self._title, self._facts = "", []
        self.refresh()
        if self._live is None:
            self._print(Text(f"{sign} {title} ({took})"))
        for console in (self._console if self._live is not None else None, self._tape):
            if console is None:
                continue
            console.print(Text.assemble((f" {sign} ", style), (title, "bold"), (f"  {took}", output.DIM)))
            for fact in facts:
                console.print(Padding(fact, (0, 0, 0, INDENT), expand=False))

    def _now(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._title:
            head = Table.grid(padding=(0, 1))
            took = f"{time.monotonic() - self._began_s:.0f} s"
            head.add_row(" ", self._spinner, Text(self._title, style="bold"), Text(took, style=output.DIM))
            parts.append(head)
            parts += [Padding(fact, (0, 0, 0, INDENT), expand=False) for fact in self._facts]
        if self._accounts:
            parts += [Text(), Padding(self._accounts_table(), (0, 0, 0, 3))]
        if self._calls:
            parts += [Text(), Padding(self._calls_table(), (0, 0, 0, 3))]
        return Group(*parts)

    def _accounts_table(self) -> output.Rows:
        table = output.Rows("account", "balance", "held", "lines in use", right=("balance", "held"))
        for account in self._accounts:
            limit = account.limits.max_lines if account.limits.HasField("max_lines") else self.lines_default
            lines = f"{account.lines_in_use} of {limit}"
            table.add(
                account.name,
                output.money(account.balance_micros, account.currency),
                output.money(account.held_micros) if account.held_micros else "",
                Text(lines, style="green" if account.lines_in_use else output.DIM),
            )
        return table

    def _calls_table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for call in self._calls[:_CALLS_SHOWN]:
            talked = output.duration(time.time() - call.answered_at_s) if call.answered_at_s else "rings"
            number = f"+{call.destination}" if call.destination.isdigit() else call.destination
            table.add_row(call.account, "→", number, Text(talked, style="green"))
        return table
