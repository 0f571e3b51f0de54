"""`callwarden import`: settings of other products, as a policy."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from callwarden.cli import output
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output

if TYPE_CHECKING:
    from callwarden.cli.mizu.settings_list import Setting
    from callwarden.cli.mizu.translation import Translation

app = typer.Typer(no_args_is_help=True, help="Settings of other products, as policies.")


@app.command()
def mizu(
    file: Annotated[Path, typer.Argument(help="List of global settings, key = value; - reads standard input.")],
    out: Annotated[Path | None, typer.Option("--to", help="File for the policy. Default: standard output.")] = None,
    name: Annotated[str, typer.Option(help="Name of the policy.")] = "mizu",
    realm: Annotated[str, typer.Option(help="SIP domain of the policy. Default: all.")] = "",
    as_: Annotated[
        Output, typer.Option("--output", "-o", help="Format of the report on standard error.", show_default=True)
    ] = Output.TABLE,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if a key can't be carried over.")] = False,
) -> None:
    """Translate a Mizu server's global settings to a SecurityPolicy, and report each that can't be carried over.

    Times without a unit are seconds, maxcallperperiod is days. Settings that no service enforces yet are left out: a
    policy must not promise a protection that isn't there.

    Example: [bold]callwarden import mizu settings.txt --to policy.yaml[/bold]
    """
    from callwarden.cli.mizu import settings_list, translation
    from callwarden.policy.bundle import BadPolicy, parse_yaml

    source = "standard input" if str(file) == "-" else str(file)
    try:
        # One byte more than the limit, so that a larger file is recognised.
        content = _read(file, settings_list.LIST_BYTES_MAX + 1)
        result = translation.translate(settings_list.parse(content))
    except OSError as error:
        raise Failure(f"{source}: {error.strerror}") from error
    except settings_list.NotAList as error:
        raise Failure(f"{source}: {error}") from error
    text = translation.to_yaml(result, name=name, realm=realm, source=source)
    try:
        parse_yaml(text)
    except BadPolicy as error:
        # The settings are valid at this point, so it is the name or realm that was typed.
        raise CliMisuse(str(error.problems[0])) from error
    try:
        if out is None:
            sys.stdout.write(text)
        else:
            out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{out}: {error.strerror}") from error

    def view() -> None:
        for line in translation.summary(result):
            typer.echo(output.printable(line), err=True)

    output.emit(as_, _report(result), view, rows=_rows(result), columns=_COLUMNS, err=True)
    lost = len([one for one in result.left if one.why is not translation.Why.REPLACED]) + len(result.unread)
    if strict and lost:
        raise Failure(f"{lost} lines can't be carried over; the report above names them")


def _read(file: Path, bytes_max: int) -> bytes:
    if str(file) == "-":
        return typer.get_binary_stream("stdin").read(bytes_max)
    with file.open("rb") as opened:
        return opened.read(bytes_max)


_COLUMNS: Final = ("line", "key", "outcome", "field", "value", "reason")


def _rows(result: "Translation") -> list[dict[str, Any]]:
    """The report as CSV: a row for each line of the list that had a key, or couldn't be read."""
    carried = [
        {
            "line": one.setting.line,
            "key": one.setting.key,
            "outcome": "carried over",
            "field": f"spec.{one.path}",
            "value": one.value,
            "reason": one.note,
        }
        for one in result.carried
    ]
    left = [
        {"line": one.setting.line, "key": one.setting.key, "outcome": one.why.value, "reason": one.reason}
        for one in result.left
    ]
    return [*carried, *left, *({"line": line, "outcome": "unread"} for line in result.unread)]


def _report(result: "Translation") -> Mapping[str, Any]:
    def of(setting: "Setting") -> dict[str, Any]:
        return {"key": setting.key, "line": setting.line}

    return {
        "carried": [
            of(one.setting) | {"field": f"spec.{one.path}", "value": one.value, "note": one.note}
            for one in result.carried
        ],
        "left": [of(one.setting) | {"why": one.why.value, "reason": one.reason} for one in result.left],
        "unread_lines": list(result.unread),
        "warnings": list(result.warnings),
    }
