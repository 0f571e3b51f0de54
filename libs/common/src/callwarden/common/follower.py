"""Keeping something up to date that is read from elsewhere: now, whenever it may have changed, and every so often.

In: when to read again. Out: what is read, and how a change is noticed. Notifications may get lost, so none is needed:
they only make the next round come earlier.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from callwarden.kernel.errors import CallwardenError


class Follower:
    """`changed()` when it may be out of date; `await follower.run()` for ever."""

    def __init__(
        self,
        refresh: Callable[[], Awaitable[None]],
        pause_s: Callable[[], float],
        failed: Callable[[CallwardenError], None],
        *,
        retry_s: Callable[[int], float] | None = None,
        gather_s: float = 0.0,
    ) -> None:
        """`refresh` reads everything; a CallwardenError of it is given to `failed`, and the next round tries again.

        A round begins after a change, or `pause_s()` after the one before, which is asked after each round. After so
        many failures in a row it begins after `retry_s(failures)` instead. `gather_s` passes between a change and its
        round, so that a hundred changes take a few rounds and not a hundred.
        """
        self._refresh, self._pause_s, self._failed = refresh, pause_s, failed
        self._retry_s, self._gather_s = retry_s, gather_s
        self._stale = asyncio.Event()

    def changed(self) -> None:
        """Begin the next round at once."""
        self._stale.set()

    async def refresh_own(self) -> None:
        """Read a change that this process made itself, before its caller goes on. The change is done: if it can't be
        read now, `run` reads it later."""
        try:
            await self._refresh()
        except CallwardenError as error:
            self._failed(error)
            self.changed()

    async def run(self) -> None:
        """For ever. The first round begins after a change or a pause. Raises what `refresh` raises, but for
        CallwardenErrors."""
        failures = 0
        while True:
            pause_s = self._retry_s(failures) if failures and self._retry_s is not None else self._pause_s()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stale.wait()
            if self._gather_s:
                await asyncio.sleep(self._gather_s)
            self._stale.clear()
            try:
                await self._refresh()
            except CallwardenError as error:
                failures += 1
                self._failed(error)
            else:
                failures = 0
