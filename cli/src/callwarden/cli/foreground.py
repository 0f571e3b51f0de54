"""`callwarden up`: starts the local system, reports what runs where, restarts what ends, stops it.

The local system itself is callwarden.local; this module is what a person sees of it.
"""

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from callwarden.cli import output
from callwarden.cli.failure import Failure, of_child
from callwarden.cli.state import STATE_VARIABLE

if TYPE_CHECKING:
    from callwarden.local.supervisor import Restart
    from callwarden.local.system import LocalSystem

_STATUS_EVERY_S: Final = 1.0


def run(state_dir: Path, sip_listen: str, log_level: str) -> None:
    """Until Ctrl-C or SIGTERM. Failure if it can't start."""
    from callwarden.local.account import NoOrdinaryUser
    from callwarden.local.files import AlreadyRunning
    from callwarden.local.keys import KeysUnusable
    from callwarden.local.ports import NoFreePort
    from callwarden.local.process import ChildFailed

    try:
        asyncio.run(_run(state_dir, sip_listen, log_level))
    except AlreadyRunning as error:
        raise Failure(f"{error}: use that one, stop it, or choose another folder with --state-dir") from error
    except (KeysUnusable, NoOrdinaryUser, NoFreePort) as error:
        raise Failure(str(error)) from error
    except ChildFailed as error:
        raise Failure(f"{of_child(error)}; its log is {state_dir / 'log' / error.name}.log") from error
    except PermissionError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from error


async def _run(state_dir: Path, sip_listen: str, log_level: str) -> None:
    from callwarden.local.supervisor import supervise
    from callwarden.local.system import LocalSystem

    _port_must_be_free(sip_listen)
    console = output.console()
    stop = asyncio.create_task(_stopped())
    started_s = time.monotonic()
    system = LocalSystem(state_dir, sip_listen=sip_listen, log_level=log_level, fsync=True, strict=False)
    starting = asyncio.create_task(system.__aenter__())
    first: set[asyncio.Task[Any]] = {starting, stop}
    with console.status("starting NATS, PostgreSQL and the services …"):
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            console.print("stopped before it had started")
            return
    await starting
    watching: asyncio.Task[None] | None = None
    try:
        console.print(f"[bold green]Callwarden runs[/], started in {time.monotonic() - started_s:.1f} s\n")
        console.print(_endpoints(system))
        console.print(_first_steps(system))
        watching = asyncio.create_task(supervise(system, lambda restart: _report_restart(console, restart)))
        await _watch(console, system, stop, watching)
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        with console.status("stopping …"):
            await system.__aexit__(None, None, None)
        console.print("stopped; data and logs are kept in", escape(str(system_folder(state_dir))))


def system_folder(state_dir: Path) -> Path:
    """As the user may type it again."""
    with contextlib.suppress(ValueError):
        return state_dir.absolute().relative_to(Path.cwd())
    return state_dir.absolute()


def _port_must_be_free(sip_listen: str) -> None:
    """A port that is taken is said before ten seconds of starting, by what to do about it."""
    import socket

    host, _, port = sip_listen.rpartition(":")
    if int(port) == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise Failure(f"can't listen on {sip_listen}: {error.strerror}; choose with --sip host:port") from error


async def _stopped() -> None:
    """Returns at the first SIGINT, SIGTERM or SIGHUP. A second one changes nothing: stopping is bounded by itself."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def _watch(
    console: Console, system: "LocalSystem", stop: "asyncio.Task[None]", watching: "asyncio.Task[None]"
) -> None:
    """Show how it goes until told to stop; on a terminal one line that changes, elsewhere nothing."""
    with contextlib.ExitStack() as stack:
        status = stack.enter_context(console.status("")) if console.is_terminal else None
        while not stop.done():
            if status is not None:
                status.update(_line(system))
            await asyncio.wait({stop, watching}, timeout=_STATUS_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching


def _line(system: "LocalSystem") -> str:
    children = system.children()
    up = sum(child.returncode is None for child in children.values())
    memory = sum(system.rss_bytes().values()) / 1024**2
    return f"{up} of {len(children)} processes run, {memory:,.0f} MB [{output.DIM}]· Ctrl-C stops all[/]"


def _report_restart(console: Console, restart: "Restart") -> None:
    if restart.error is None:
        console.print(f"[green]{restart.name}[/] {restart.what}")
    else:
        wait = f", next attempt in {restart.next_attempt_s:g} s" if restart.next_attempt_s is not None else ""
        console.print(f"[yellow]{restart.name}[/] {escape(restart.what)}{wait}")


def _endpoints(system: "LocalSystem") -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(f"[{output.DIM}]SIP (UDP)[/]", f"[bold]{', '.join(system.sip_addresses)}[/]")
    for service in ("administration", "call-admission", "auth", "rating", "rate-guard", "payment"):
        grid.add_row(f"[{output.DIM}]{service}[/]", ", ".join(system.targets(service)))
    grid.add_row(f"[{output.DIM}]state, logs[/]", escape(str(system_folder(system.state_dir))))
    return grid


def _first_steps(system: "LocalSystem") -> str:
    host, _, port = system.sip_address.rpartition(":")
    folder = system_folder(system.state_dir)
    export = "" if str(folder) == ".callwarden" else f"  export {STATE_VARIABLE}={escape(str(folder.absolute()))}\n"
    shown = "this machine's address" if host in ("0.0.0.0", "[::]") else host  # noqa: S104  Compared, not bound.
    return (
        "\nRegister a phone, in another terminal:\n"
        f"{export}"
        "  callwarden account create alice --generate --credit 10\n"
        f"and give the phone user [bold]alice[/], that password, domain [bold]callwarden.local[/],"
        f" outbound proxy [bold]{shown}:{port}[/] (UDP).\n"
        "Calls to the world need a carrier and prices:\n"
        "  callwarden trunk add carrier --address HOST:PORT\n"
        "  callwarden route set all carrier\n"
        "  callwarden rates import retail deploy/examples/rates.csv\n"
        "  callwarden account set alice --deck retail\n"
    )
