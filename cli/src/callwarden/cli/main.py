"""The `callwarden` command: its tree of commands, and how errors are shown.

Each command's module imports what it works with when it runs, not here: `callwarden --help` must come at once.
"""

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from callwarden.cli import output, state
from callwarden.cli.commands import (
    account,
    audit,
    ban,
    calls,
    completion,
    demo,
    imports,
    ledger,
    limits,
    lists,
    policy,
    policy_files,
    rates,
    route,
    sip,
    sip_calls,
    trunk,
    up,
)
from callwarden.cli.failure import Failure

RUN = "Run it"
CUSTOMERS = "Customers and money"
PROTECT = "Protection"
CALLS = "Calls"
SHELL = "Shell"

# What the library that reads the command line says in words of its own.
_PLAINER: Final = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "not a whole number",
    "Input should be": "must be",
}

app = typer.Typer(
    name="callwarden",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command explains itself: [bold]callwarden policy apply --help[/bold]",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.echo(f"callwarden {version('callwarden')}")
        raise typer.Exit


@app.callback()
def _options(
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir",
            envvar=state.STATE_VARIABLE,
            help="Folder of the system that `callwarden up` started.",
            show_default=".callwarden",
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", help="Show the release and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """VoIP security and account limiting: run it, configure it, ask it why."""
    state.choose(state_dir)


app.command("demo", rich_help_panel=RUN)(demo.demo)
app.command("up", rich_help_panel=RUN)(up.up)
app.add_typer(account.app, name="account", rich_help_panel=CUSTOMERS)
app.add_typer(limits.app, name="limits", rich_help_panel=CUSTOMERS)
app.command("topup", rich_help_panel=CUSTOMERS)(ledger.topup)
app.add_typer(ledger.app, name="ledger", rich_help_panel=CUSTOMERS)
app.add_typer(trunk.app, name="trunk", rich_help_panel=CUSTOMERS)
app.add_typer(rates.app, name="rates", rich_help_panel=CUSTOMERS)
app.add_typer(route.app, name="route", rich_help_panel=CUSTOMERS)
policy.app.command("lint")(policy_files.lint)
policy.app.command("diff")(policy_files.diff)
policy.app.command("explain")(policy_files.explain)
app.add_typer(policy.app, name="policy", rich_help_panel=PROTECT)
app.command("audit", rich_help_panel=PROTECT)(audit.audit)
app.add_typer(imports.app, name="import", rich_help_panel=PROTECT)
app.add_typer(ban.app, name="ban", rich_help_panel=PROTECT)
app.add_typer(lists.app, name="list", rich_help_panel=PROTECT)
app.add_typer(calls.app, name="call", rich_help_panel=CALLS)
app.command("explain", rich_help_panel=CALLS)(calls.explain)
sip.app.command("call")(sip_calls.call)
sip.app.command("answer")(sip_calls.answer)
app.add_typer(sip.app, name="sip", rich_help_panel=CALLS)
app.command("completion", rich_help_panel=SHELL)(completion.completion)


def _let_flow(commands: typer.Typer) -> None:
    """Have paragraphs of help broken where the terminal ends, and not where the source does."""
    for command in commands.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _let_flow(group.typer_instance)


_let_flow(app)


def run(arguments: Sequence[str] | None = None, *, program: str = "callwarden") -> int:
    """Runs one command line; the exit code: 0 done, 1 not done, 2 not understood, 130 interrupted. `program` is how the
    user calls it.
    """
    if completion.VARIABLE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    try:
        result = app(args=arguments, prog_name=program, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Failure as failure:
        return _report(failure.message, failure.exit_code)
    except typer.TyperException as error:
        # An empty message means that the help was printed already (no_args_is_help).
        return _report(_misused(error, program), error.exit_code) if error.format_message() else error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has enough; closing standard output again at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return say_unexpected(error)


def _report(message: str, exit_code: int) -> int:
    typer.echo(f"callwarden: {output.clean(message)}", err=True)
    return exit_code


def _misused(error: typer.TyperException, program: str) -> str:
    """What was typed wrong, and where the right way is shown."""
    said = error.format_message().rstrip(".")
    for text, better in _PLAINER.items():
        said = said.replace(text, better)
    context = getattr(error, "ctx", None)
    return f"{said[0].lower()}{said[1:]} (see {context.command_path if context else program} --help)"


def say_unexpected(error: Exception) -> int:
    """One line for an error that no command caught; the exit code. A CallwardenError speaks for itself."""
    from callwarden.kernel.errors import CallwardenError

    if isinstance(error, CallwardenError):
        where = f"{error.field}: " if error.field and error.field not in error.message else ""
        return _report(f"{where}{error.message}", 1)
    if os.environ.get("CALLWARDEN_DEBUG"):
        raise error
    kind = type(error).__name__
    return _report(f"unexpected {kind}: {error} (CALLWARDEN_DEBUG=1 shows where)", 1)


def main() -> None:
    sys.exit(run())


def kubectl_plugin() -> None:
    """`kubectl callwarden …`: kubectl runs the program kubectl-callwarden that it finds in PATH."""
    sys.exit(run(program="kubectl callwarden"))


if __name__ == "__main__":
    main()
