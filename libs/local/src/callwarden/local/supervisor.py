"""Keeps a local system going: what crashes is started again, later each time; logs are kept short. For `callwarden
up`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from callwarden.local.files import rotate_log
from callwarden.local.process import Child, ChildFailed, describe_exit
from callwarden.local.system import NATS, POSTGRES, LocalSystem

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
HEALTHY_S = 60.0  # A process that ran this long is not in a loop of crashes: the next wait is short again.
_LOG_CHECK_S = 30.0


@dataclass(frozen=True, slots=True)
class Restart:
    """What `supervise` reports: once when a process ended, once when it is back (`error` empty) or failed to start."""

    name: str
    what: str
    next_attempt_s: float | None = None
    error: ChildFailed | None = None


async def supervise(
    system: LocalSystem, report: Callable[[Restart], None], *, backoff_first_s: float = BACKOFF_FIRST_S
) -> None:
    """Watch every process of a started system until cancelled, and restart each that ends unasked."""
    async with asyncio.TaskGroup() as group:
        if system.nats is not None:
            group.create_task(_watch(system, NATS, 0, report, backoff_first_s))
        if system.postgres is not None:
            group.create_task(_watch(system, POSTGRES, 0, report, backoff_first_s))
        for process in system.all_processes():
            group.create_task(_watch(system, process.service.name, process.index, report, backoff_first_s))
        group.create_task(_keep_logs_short(system))


async def _watch(
    system: LocalSystem, service: str, index: int, report: Callable[[Restart], None], backoff_first_s: float
) -> None:
    loop = asyncio.get_running_loop()
    name = service if service in (NATS, POSTGRES) else f"{service}-{index}"
    backoff_s = backoff_first_s
    while True:
        child: Child = system.children()[name]
        started_s = loop.time()
        code = await child.wait()
        if loop.time() - started_s >= HEALTHY_S:
            backoff_s = backoff_first_s
        what = f"ended ({describe_exit(code)})"
        while True:
            report(Restart(name, what, next_attempt_s=backoff_s, error=child.failed(what)))
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            try:
                await system.restart(service, index)
            except ChildFailed as failed:
                child, what = system.children()[name], failed.what
                continue
            report(Restart(name, "runs again"))
            break


async def _keep_logs_short(system: LocalSystem) -> None:
    while True:
        for child in system.children().values():
            await asyncio.to_thread(rotate_log, child.log)
        await asyncio.sleep(_LOG_CHECK_S)
