"""A booking whose outcome is unknown says with which key to repeat it; one that was refused doesn't."""

import asyncio

import pytest

from callwarden.cli.failure import Failure
from callwarden.cli.retrying import new_key, repeatable
from callwarden.kernel.errors import (
    ERROR_OF_KIND,
    CallwardenError,
    Conflict,
    Denied,
    Exhausted,
    Invalid,
    NotFound,
    Unauthenticated,
)

REFUSALS = [Invalid, Unauthenticated, Denied, NotFound, Conflict, Exhausted]


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.__name__)
def test_a_refusal_stays_as_it_is(kind: type[CallwardenError]) -> None:
    with pytest.raises(kind, match=r"^no account bob$"), repeatable("k1"):
        raise kind("no account bob")


@pytest.mark.parametrize(
    "kind",
    [*(kind for kind in ERROR_OF_KIND.values() if kind not in REFUSALS), Failure],
    ids=lambda kind: kind.__name__,
)
def test_an_unknown_outcome_names_the_key(kind: type[Exception]) -> None:
    with (
        pytest.raises(Failure, match=r"^silence; it is unknown .* repeat the command with --key k1, "),
        repeatable("k1"),
    ):
        raise kind("silence")


async def test_an_interrupted_booking_names_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    async def booking() -> None:
        with repeatable("k1"):
            await asyncio.Event().wait()

    running = asyncio.create_task(booking())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "--key k1" in capsys.readouterr().err


def test_two_keys_differ() -> None:
    assert new_key() != new_key()
