"""The `callwarden` command: its tree of commands, and how errors are shown.

Each command's module imports what it works with when it runs, not here: `callwarden --help` must come at once.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from callwarden.cli import output, state
from callwarden.cli.commands import (
    account,
    audit,
    ban,
    calls,
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
    trunk,
    up,
)
from callwarden.cli.failure import Failure

RUN = "Run it"
CUSTOMERS = "Customers and money"
PROTECT = "Protection"
CALLS = "Calls"

app = typer.Typer(
    name="callwarden",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command explains itself: [bold]callwarden policy apply --help[/bold]",
)


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
app.add_typer(sip.app, name="sip", rich_help_panel=CALLS)


def run(arguments: Sequence[str] | None = None, *, program: str = "callwarden") -> int:
    """Runs one command line; the exit code: 0 done, 1 not done, 2 not understood, 130 interrupted. `program` is how the
    user calls it.
    """
    try:
        result = app(args=arguments, prog_name=program, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Failure as failure:
        return _say(failure.message, failure.exit_code)
    except typer.TyperException as error:
        # An empty message means that the help was printed already (no_args_is_help).
        return _say(error.format_message(), error.exit_code, hint=True) if error.format_message() else error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read us (`| head`) has enough; closing standard output again at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return say_unexpected(error)


def _say(message: str, exit_code: int, *, hint: bool = False) -> int:
    typer.echo(f"callwarden: {output.clean(message)}", err=True)
    if hint:
        typer.echo("callwarden: --help after any command shows how it is written", err=True)
    return exit_code


def say_unexpected(error: Exception) -> int:
    """One line for an error that no command caught; the exit code. A CallwardenError speaks for itself."""
    from callwarden.kernel.errors import CallwardenError

    if isinstance(error, CallwardenError):
        where = f"{error.field}: " if error.field and error.field not in error.message else ""
        return _say(f"{where}{error.message}", 1)
    if os.environ.get("CALLWARDEN_DEBUG"):
        raise error
    kind = type(error).__name__
    return _say(f"unexpected {kind}: {error} (CALLWARDEN_DEBUG=1 shows where)", 1)


def main() -> None:
    sys.exit(run())


def kubectl_plugin() -> None:
    """`kubectl callwarden …`: kubectl runs the program kubectl-callwarden that it finds in PATH."""
    sys.exit(run(program="kubectl callwarden"))


if __name__ == "__main__":
    main()
