"""Changes are counted until a round that has seen them is done."""

import pytest

from callwarden.security_policy_operator.app.rounds import Rounds
from callwarden.testing.clock import FakeClock


@pytest.fixture
def latencies() -> list[float]:
    return []


@pytest.fixture
def rounds(fake_clock: FakeClock, latencies: list[float]) -> Rounds:
    return Rounds(fake_clock, latencies.append)


def test_a_round_is_as_late_as_its_oldest_change(rounds: Rounds, fake_clock: FakeClock, latencies: list[float]) -> None:
    rounds.changed()
    fake_clock.advance(2.0)
    rounds.changed()
    end = rounds.begin()
    assert rounds.waiting == 2
    fake_clock.advance(1.0)
    end("done")
    assert (rounds.waiting, latencies) == (0, [3.0])


def test_what_changes_amid_a_round_waits_for_the_next(
    rounds: Rounds, fake_clock: FakeClock, latencies: list[float]
) -> None:
    rounds.changed()
    end = rounds.begin()
    fake_clock.advance(1.0)
    rounds.changed()
    end("done")
    assert (rounds.waiting, latencies) == (1, [1.0])
    fake_clock.advance(4.0)
    rounds.begin()("done")
    assert (rounds.waiting, latencies) == (0, [1.0, 4.0])


@pytest.mark.parametrize("outcome", ["failed", "conflict"])
def test_a_round_that_fails_leaves_its_changes_waiting(
    rounds: Rounds, fake_clock: FakeClock, latencies: list[float], outcome: str
) -> None:
    rounds.changed()
    end = rounds.begin()
    fake_clock.advance(1.0)
    rounds.changed()
    end(outcome)
    assert (rounds.waiting, latencies) == (2, [])
    fake_clock.advance(1.0)
    rounds.begin()("done")
    assert (rounds.waiting, latencies) == (0, [2.0])
    assert rounds.outcomes == {outcome: 1, "done": 1}


def test_a_round_without_changes_says_nothing_of_lateness(rounds: Rounds, latencies: list[float]) -> None:
    rounds.begin()("done")
    assert latencies == []


def test_what_waited_while_another_process_led_is_not_ours(
    rounds: Rounds, fake_clock: FakeClock, latencies: list[float]
) -> None:
    rounds.changed()
    fake_clock.advance(3_600.0)
    rounds.forget()
    rounds.changed()
    rounds.begin()("done")
    assert (rounds.waiting, latencies) == (0, [0.0])
