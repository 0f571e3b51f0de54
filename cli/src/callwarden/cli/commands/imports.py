"""`callwarden import`: from what another product was told to a policy here."""

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from callwarden.cli import output
from callwarden.cli.failure import Failure, Misuse

if TYPE_CHECKING:
    from callwarden.cli.mizu.settings_list import Setting
    from callwarden.cli.mizu.translation import Translation

app = typer.Typer(no_args_is_help=True, help="Settings of other products, as policies.")


class Format(StrEnum):
    """How the report is written."""

    TEXT = "text"
    JSON = "json"


@app.command()
def mizu(
    file: Annotated[Path, typer.Argument(help="List of global settings, key = value; - reads standard input.")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; without it standard output.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the policy.")] = "mizu",
    realm: Annotated[str, typer.Option(help="SIP domain that it is for; without it all.")] = "",
    format_: Annotated[
        Format, typer.Option("--format", help="How the report on standard error is written.", show_default=True)
    ] = Format.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when a key can't be carried over.")] = False,
) -> None:
    """Make a SecurityPolicy of a Mizu server's global settings, and name each that can't be carried over.

    Numbers without a unit are seconds where time is meant, days for maxcallperperiod. What no service enforces yet is
    left out, so that nobody believes in it.

    Example: [bold]callwarden import mizu settings.txt -o policy.yaml[/bold]
    """
    from callwarden.cli.mizu import settings_list, translation
    from callwarden.policy.bundle import BadPolicy, parse_yaml

    source = "standard input" if str(file) == "-" else str(file)
    try:
        # One byte more than is taken, so that too large is told as such.
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
        # The settings are right by now, so it is what was typed.
        raise Misuse(str(error.problems[0])) from error
    try:
        if out is None:
            sys.stdout.write(text)
        else:
            out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{out}: {error.strerror}") from error
    if format_ is Format.JSON:
        typer.echo(output.json_text(_report(result)), err=True)
    else:
        for line in translation.summary(result):
            typer.echo(output.clean(line), err=True)
    lost = len([one for one in result.left if one.why is not translation.Why.REPLACED]) + len(result.unread)
    if strict and lost:
        raise Failure(f"{lost} lines can't be carried over, as told above")


def _read(file: Path, bytes_max: int) -> bytes:
    if str(file) == "-":
        return typer.get_binary_stream("stdin").read(bytes_max)
    with file.open("rb") as opened:
        return opened.read(bytes_max)


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
