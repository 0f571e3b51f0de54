"""Attempts at a transaction: read, decide, write, and again if another process came between.

In: when a batch may be decided on cached data, when it has to be read, how often it is tried. Out: what is decided
(core.transaction), how rows are read and written (ports.AdmissionStore), what is in a batch (app).

The write goes through only if no account has moved since it was read: each has a version that every change of its holds
raises, and a write that finds another version than was read fails whole and is tried again from the read. So a batch
takes two round trips where a transaction with locks takes five, and its decisions are as exact.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from callwarden.call_admission.admission.core.cache import AccountCache
from callwarden.call_admission.admission.core.contended import Contended, versions_of
from callwarden.call_admission.admission.core.state import Changes, CounterKey, Loaded, ReadSet
from callwarden.call_admission.admission.ports import AdmissionStore, WriteConflict
from callwarden.call_admission.model.calls import Expired, Unclaimed
from callwarden.kernel.clock import UnixS
from callwarden.kernel.errors import Conflict, Unavailable

T = TypeVar("T")

# A batch takes 2 to 10 ms. After this long a caller is better served by an error, to try another process.
UPDATE_TIMEOUT_S: Final = 2.0
ATTEMPTS_MAX: Final = 12  # With the pauses below, four processes on one account all got through in six.
# Reads of one batch: attempts, and those that find that more is needed (a reseller's counters, all shards of a scope).
ROUNDS_MAX: Final = 2 * ATTEMPTS_MAX
PAUSE_FIRST_S: Final = 0.001
PAUSE_MAX_S: Final = 0.05


class AdmissionAttempts:
    """Runs transactions on a store. `rng`: random numbers from 0 to 1, for the pauses between attempts."""

    def __init__(self, store: AdmissionStore, rng: Callable[[], float], cache: AccountCache | None = None) -> None:
        self._store = store
        self._rng = rng
        self._cache = cache if cache is not None else AccountCache()
        self.contended = Contended()
        self.unread = 0
        """Batches that needed no read."""
        self.conflicts = 0
        """Writes that failed because another process had moved an account."""

    async def update(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        """Calls `work` with what the batch needs and writes the changes that it returns, all or nothing, and only if
        nothing that they are based on has changed by then. Returns work's other result.

        `work` is called again, with fresh data, when another process came between; it must have no effect apart from
        its result and what it does to its argument. It may be given stale data first; it is called again if it returns
        accounts in `Changes.must_revalidate` then. While `Changes.missing_counters` isn't empty nothing is written:
        `work` is called again with those counters in addition.

        Raises Unavailable if the store can't be reached or doesn't answer in time; the changes may be written then,
        and commands are such that repeating them is harmless. Raises Conflict when other processes came between too
        often. Any other exception means that some change can't be written; then nothing was.
        """
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                return await self._update(read, work)
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error

    async def _update(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        # Counters that the batch has asked for: read with it from then on.
        wanted: set[CounterKey] = set()
        loaded = self._cache.checkout(read)
        is_read = loaded is None
        failures = 0
        conflict: WriteConflict | None = None
        lost: dict[UUID, int] = {}
        for _ in range(ROUNDS_MAX):
            if loaded is None:
                loaded = await self._store.load(read, wanted)
                self.contended.compare(lost, loaded, read.unix_s)
                is_read = True
            attempt, loaded = loaded, None
            changes, result = work(attempt)
            is_stale = not is_read
            if changes.missing_counters and not changes.is_applied:
                # Read at another moment than the rest: nothing may be refused on the two together.
                is_stale = True
                await self._add_counters(attempt, changes.missing_counters, read.unix_s, from_cache=not failures)
                wanted |= changes.missing_counters
                changes, result = work(attempt)
            if changes.missing_counters:
                wanted |= changes.missing_counters
                continue
            if is_stale and not is_verified(read, changes):
                continue
            changes.check_hold_ids = not is_read
            written = await self._store.write(changes)
            if not isinstance(written, WriteConflict):
                self._cache.put(read, attempt, changes, is_whole=not is_read or bool(read.counted))
                self.unread += not is_read
                return result
            conflict = written
            self.conflicts += 1
            self._cache.drop_counters(wanted)
            lost = versions_of(changes)
            if not is_stale:
                failures += 1
                if failures == ATTEMPTS_MAX:
                    break
                # Full jitter: processes that have collided must not meet again.
                await asyncio.sleep(min(PAUSE_FIRST_S * 2 ** (failures - 1), PAUSE_MAX_S) * self._rng())
        if conflict is None or conflict.error is None:
            raise Conflict("others have come between too often")
        # The store refused what no other process explains: our own mistake, or the outcome isn't known.
        raise conflict.error

    async def _add_counters(self, loaded: Loaded, missing: set[CounterKey], unix_s: UnixS, *, from_cache: bool) -> None:
        """Adds counters to what was read, from the cache where they are known."""
        known = self._cache.checkout_counters(missing, unix_s) if from_cache else {}
        if rest := missing - known.keys():
            loaded.counters.update((await self._store.load(ReadSet(), rest)).counters)
        loaded.counters.update(known)

    async def look(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        """As `update`, on fresh data, and nothing is written."""
        try:
            async with asyncio.timeout(UPDATE_TIMEOUT_S):
                wanted: set[CounterKey] = set()
                for _ in range(ROUNDS_MAX):
                    changes, result = work(await self._store.load(read, wanted))
                    if not changes.missing_counters:
                        return result
                    wanted |= changes.missing_counters
        except TimeoutError as error:
            raise Unavailable("the database doesn't answer") from error
        raise Conflict("what is looked at changes too often")

    async def expired(self, unix_s: UnixS, limit: int) -> Sequence[Expired]:
        """Running holds whose time has passed (Unix time), at most so many. Raises Unavailable."""
        return await _in_time(self._store.expired(unix_s, limit))

    async def lapsed(self, unix_s: UnixS, limit: int) -> Sequence[Unclaimed]:
        """Lapsed holds that expired by then (Unix time), at most so many. Raises Unavailable."""
        return await _in_time(self._store.lapsed(unix_s, limit))

    async def forget_recorded(self, unix_s: UnixS) -> None:
        """Deletes the holds that have a call record as expired and expired by then. Raises Unavailable."""
        await _in_time(self._store.forget_recorded(unix_s))


async def _in_time(asked: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(UPDATE_TIMEOUT_S):
            return await asked
    except TimeoutError as error:
        raise Unavailable("the database doesn't answer") from error


def is_verified(read: ReadSet, changes: Changes) -> bool:
    """Whether writing the changes proves that everything they are based on was true: nothing was refused, and each
    account is moved or its version checked."""
    return not changes.must_revalidate and {*changes.versions, *changes.checked}.issuperset(read.accounts)
