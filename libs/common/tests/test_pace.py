"""Long work that leaves the processors to others for most of the time."""

from collections.abc import Iterator

import pytest

from callwarden.common.pace import Pace, pieces
from callwarden.testing.clock import FakeClock


@pytest.mark.asyncio
async def test_each_piece_is_followed_by_a_rest_that_keeps_the_share() -> None:
    clock, rests = FakeClock(), list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        clock.advance(seconds)

    works = {"short": 0.5, "none": 0.0, "long": 2.0}
    async for piece in Pace(clock, 0.25, sleep).over(works):
        clock.advance(works[piece])
    assert rests == [1.5, 0.0, 6.0]


@pytest.mark.asyncio
async def test_making_a_piece_is_work_too() -> None:
    clock, rests = FakeClock(), list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    def slowly() -> Iterator[str]:
        clock.advance(1.0)
        yield "read"

    async for _ in Pace(clock, 0.5, sleep).over(slowly()):
        clock.advance(2.0)
    assert rests == [3.0]


def test_pieces_are_all_items_in_their_order() -> None:
    assert list(pieces("abcde", 2)) == ["ab", "cd", "e"]
    assert list(pieces("", 2)) == []
