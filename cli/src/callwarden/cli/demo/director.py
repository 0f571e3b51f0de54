"""Starts everything the demo needs, lets the story run, stops everything, whatever happened."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.text import Text

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.cli import output, state
from callwarden.cli.demo import story
from callwarden.cli.demo.phones import PhoneFailed, PhoneProcess
from callwarden.cli.demo.stage import Stage, recorder, svg
from callwarden.cli.failure import Failure, of_child
from callwarden.cli.remote import Remote, ask
from callwarden.kernel.errors import CallwardenError
from callwarden.local import ports
from callwarden.local.process import ChildFailed
from callwarden.local.run_file import RunFile
from callwarden.local.system import LocalSystem

PHONES: Final = (*story.NUMBERS, "carrier")
# What a step may raise when something is wrong with the system rather than with the demo itself.
_FAILURES: Final = (story.Broken, CallwardenError, Failure, PhoneFailed, ChildFailed, TimeoutError)
INTERRUPTED: Final = 130


def run(*, keep: Path | None, plain: bool, record: Path | None = None) -> int:
    """The exit code: 0 when every step held, 1 when one didn't, 130 when interrupted. `record` is written only when
    every step held.
    """
    console = output.console()
    is_live = console.is_terminal and not plain
    folder = Path(tempfile.mkdtemp(prefix="callwarden-demo-"))
    began_s = time.monotonic()
    tape = recorder() if record is not None else None
    stage = Stage(console, is_live=is_live, tape=tape)
    try:
        code = asyncio.run(_play(folder, stage))
    finally:
        _sweep(folder, keep)
    took_s = time.monotonic() - began_s
    if code == INTERRUPTED:
        console.print("\nInterrupted; everything is stopped.")
    elif code == 0:
        console.print(
            f"\n[bold green]Every step passed.[/] {took_s:.0f} s; everything is stopped, nothing is left running."
        )
        console.print(Text("callwarden up runs it for you to play with.", style=output.DIM))
        if tape is not None and record is not None:
            tape.print(f"\n[bold green]Every step passed.[/] {took_s:.0f} s; nothing is left running.")
            record.write_text(svg(tape, "callwarden demo"))
    else:
        hint = "" if keep is not None else " callwarden demo --keep FOLDER keeps the logs."
        console.print(f"\n[bold red]A step failed[/] after {took_s:.0f} s; everything is stopped.{hint}")
    if keep is not None:
        console.print(f"Logs are in {escape(str(keep))}")
    return code


async def _play(folder: Path, stage: Stage) -> int:
    """The story, ended by its end, its failure or a signal; everything is stopped when this returns."""
    telling = asyncio.create_task(_run_story(folder, stage))
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:  # Once: what is being stopped is left to finish.
            stopped = True
            telling.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await telling
    except asyncio.CancelledError:
        return INTERRUPTED


async def _run_story(folder: Path, stage: Stage) -> int:
    stage.heading(
        "Callwarden: the way of a call",
        "Real SIP over UDP on this machine's loopback; the phones are baresip. Every step is checked.",
    )
    failure: BaseException | None = None
    with stage:
        try:
            async with contextlib.AsyncExitStack() as stack:
                painting: asyncio.Task[Any] = asyncio.create_task(_paint(stage))
                stack.push_async_callback(_end, painting)
                try:
                    world = await _build(folder, stage, stack)
                    watching: asyncio.Task[Any] = asyncio.create_task(_watch(world))
                    stack.push_async_callback(_end, watching)
                    await story.play(world)
                except (*_FAILURES, BaseExceptionGroup) as error:
                    failure = _first(error)
                    stage.broken(_said(failure))
                stage.show((), ())
                stage.step("Stopping everything")
            stage.done()
        except (ChildFailed, BaseExceptionGroup) as error:  # A service ended by itself, or had to be killed.
            failure = failure or _first(error)
            stage.broken(_said(_first(error)))
    return 1 if failure is not None else 0


def _first(error: BaseException) -> BaseException:
    """The error itself, or the first of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _said(error: BaseException) -> str:
    if isinstance(error, ChildFailed):
        return of_child(error)
    return str(error) or type(error).__name__


async def _build(folder: Path, stage: Stage, stack: contextlib.AsyncExitStack) -> story.World:
    """Everything started: servers, services, phones."""
    stage.step("Starting NATS, PostgreSQL and six services")
    system = LocalSystem(folder)
    phones = {name: PhoneProcess(name, folder / "log" / f"phone-{name}.log") for name in PHONES}
    await stack.enter_async_context(system)
    for phone in phones.values():
        await stack.enter_async_context(phone)
    reserved = {name: ports.reserve() for name in PHONES}
    for port in reserved.values():
        stack.callback(port.release)
    endpoints = state.of_run_file(RunFile.read(system.state_dir))
    remote = await stack.enter_async_context(Remote(endpoints))
    memory = sum(system.rss_bytes().values()) / 1024**2
    stage.fact(f"{len(system.children())} processes, {memory:,.0f} MB; SIP on {system.sip_address}")
    stage.done()
    return story.World(
        system=remote,
        stage=stage,
        state_dir=system.state_dir,
        sip=system.sip_address,
        nats_url=endpoints.nats(),
        phones=phones,
        ports={name: port.number for name, port in reserved.items()},
    )


async def _end(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _paint(stage: Stage) -> None:
    """Keeps what moves moving."""
    while stage.refresh_s is not None:
        stage.refresh()
        await asyncio.sleep(stage.refresh_s)


async def _watch(world: story.World) -> None:
    """Accounts and running calls as the services know them, a few times a second."""
    if world.stage.refresh_s is None:
        return
    while True:
        with contextlib.suppress(CallwardenError, Failure):  # The story itself says what doesn't answer.
            accounts = (await ask(world.system.accounts.ListAccounts, pb.ListAccountsRequest())).accounts
            calls = (await ask(world.system.accounts.ListCalls, pb.ListCallsRequest(running=True))).calls
            world.stage.show([one for one in accounts if one.type == "enduser"], list(calls))
        await asyncio.sleep(2 * world.stage.refresh_s)


def _sweep(folder: Path, keep: Path | None) -> None:
    """Nothing is left but the logs that were asked for."""
    if keep is not None and (folder / "log").is_dir():
        keep.mkdir(parents=True, exist_ok=True)
        for log in (folder / "log").iterdir():
            shutil.copyfile(log, keep / log.name)
            os.chmod(keep / log.name, 0o600)
    # Elsewhere where the user that PostgreSQL runs as can't reach the temporary folder.
    shutil.rmtree((folder / "postgres").resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
