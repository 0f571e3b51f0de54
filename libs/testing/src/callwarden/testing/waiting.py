"""Waiting for what sends no event."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(
    probe: Callable[[], Awaitable[T]], *, timeout_s: float = 10.0, interval_s: float = 0.02, what: str = ""
) -> T: ...
@overload
async def eventually(
    probe: Callable[[], T], *, timeout_s: float = 10.0, interval_s: float = 0.02, what: str = ""
) -> T: ...
async def eventually(
    probe: Callable[[], T | Awaitable[T]], *, timeout_s: float = 10.0, interval_s: float = 0.02, what: str = ""
) -> T:
    """Call `probe` until it returns something true, and return that; AssertionError after `timeout_s`.

    An AssertionError of the probe counts as "not yet", and the last one is shown. For the state of *other processes*
    only (a row another service writes, a port that opens): inside one process await the event itself. The time-out
    says when to give up, never how fast something must be.
    """
    deadline_s = time.monotonic() + timeout_s
    last: AssertionError | None = None
    while True:
        value: T | None = None
        try:
            outcome = probe()
            value = await outcome if inspect.isawaitable(outcome) else outcome
            last = None
        except AssertionError as error:
            last = error
        if value and last is None:
            return value
        if time.monotonic() >= deadline_s:
            name = what or getattr(probe, "__name__", "the condition")
            detail = f": {last}" if last else f", it gave {value!r}"
            raise AssertionError(f"{name} did not come true within {timeout_s:g} s{detail}") from last
        await asyncio.sleep(interval_s)
