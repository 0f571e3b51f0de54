"""When something that is followed is read again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf

import pytest

from callwarden.common.follower import Follower
from callwarden.kernel.errors import CallwardenError, Unavailable


class FollowedSource:
    """What is followed; it fails as often as it is told to."""

    def __init__(self) -> None:
        self.rounds: asyncio.Queue[int] = asyncio.Queue()
        self.failures_left = 0
        self.failed: list[CallwardenError] = []
        self._count = 0

    async def refresh(self) -> None:
        self._count += 1
        if self.failures_left:
            self.failures_left -= 1
            raise Unavailable("the source is away")
        self.rounds.put_nowait(self._count)


@asynccontextmanager
async def following(
    source: FollowedSource,
    *,
    pause_s: float = inf,
    retry_s: Callable[[int], float] | None = None,
    gather_s: float = 0.0,
) -> AsyncIterator[Follower]:
    follower = Follower(source.refresh, lambda: pause_s, source.failed.append, retry_s=retry_s, gather_s=gather_s)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_change_begins_a_round_and_nothing_else_does() -> None:
    source = FollowedSource()
    async with following(source) as follower:
        follower.changed()
        assert await source.rounds.get() == 1
        follower.changed()
        assert await source.rounds.get() == 2
        for _ in range(10):
            await asyncio.sleep(0)
        assert source.rounds.empty()


async def test_without_a_change_a_round_begins_after_the_pause() -> None:
    source = FollowedSource()
    async with following(source, pause_s=0.0):
        assert [await source.rounds.get() for _ in range(3)] == [1, 2, 3]


async def test_changes_at_once_take_one_round() -> None:
    source = FollowedSource()
    async with following(source, gather_s=0.01) as follower:
        for _ in range(100):
            follower.changed()
            await asyncio.sleep(0)
        assert await source.rounds.get() == 1
        assert source.rounds.empty()


async def test_a_change_during_a_round_begins_another() -> None:
    source = FollowedSource()

    async def refresh() -> None:
        await source.refresh()
        if source.rounds.qsize() == 1:
            follower.changed()

    follower = Follower(refresh, lambda: inf, source.failed.append)
    task = asyncio.create_task(follower.run())
    follower.changed()
    assert [await source.rounds.get() for _ in range(1)] == [1]
    assert await source.rounds.get() == 2
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_failures_are_counted_in_a_row_for_the_next_try() -> None:
    source = FollowedSource()
    source.failures_left = 3
    asked: list[int] = []

    def retry_s(failures: int) -> float:
        asked.append(failures)
        return 0.0

    async with following(source, retry_s=retry_s) as follower:
        follower.changed()
        assert await source.rounds.get() == 4
        source.failures_left = 1
        follower.changed()
        assert await source.rounds.get() == 6
    assert asked == [1, 2, 3, 1]
    assert [str(error) for error in source.failed] == ["the source is away"] * 4


async def test_an_own_change_is_read_at_once_or_else_by_the_next_round() -> None:
    source = FollowedSource()
    async with following(source) as follower:
        await follower.refresh_own()
        assert source.rounds.get_nowait() == 1
        source.failures_left = 1
        await follower.refresh_own()
        assert [str(error) for error in source.failed] == ["the source is away"]
        assert await source.rounds.get() == 3


async def test_an_error_that_is_none_of_ours_ends_it() -> None:
    async def refresh() -> None:
        raise RuntimeError("a bug")

    follower = Follower(refresh, lambda: 0.0, lambda error: None)
    with pytest.raises(RuntimeError, match="a bug"):
        await follower.run()
