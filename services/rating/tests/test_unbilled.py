"""Calls without a price are told at once, then at most once a minute for one list and prefix, and none is forgotten."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel.clock import UnixS
from callwarden.rating.core.deck import is_name
from callwarden.rating.core.unbilled import GROUPS_MAX, PERIOD_S, SEVERAL, UnbilledCounts, UnbilledSeverity

pytestmark = pytest.mark.setting("notbilledcallerr")

LOW, ERROR, CRITICAL = UnbilledSeverity


def test_the_first_is_told_at_once_and_the_others_a_minute_later() -> None:
    counts = UnbilledCounts()
    first = counts.count("retail", "49301234567", LOW, UnixS(1_000.0), "no price")
    assert first is not None
    assert (first.deck, first.prefix, first.at_s, first.count, first.text) == (
        "retail",
        "493012",
        1_000.0,
        1,
        "no price",
    )
    assert counts.count("retail", "49301299999", CRITICAL, UnixS(1_010.0), "why") is None
    assert counts.count("retail", "49301234567", ERROR, UnixS(1_020.0), "other") is None
    assert counts.due(UnixS(1_059.0)) == []
    (event,) = counts.due(UnixS(1_060.0))
    assert (event.at_s, event.count, event.severity, event.text) == (1_010.0, 2, CRITICAL, "why")
    assert counts.due(UnixS(1_119.0)) == []
    assert counts.count("retail", "49301234567", LOW, UnixS(1_119.0), "") is None


def test_lists_and_prefixes_are_told_apart() -> None:
    counts = UnbilledCounts()
    for deck, number in (("retail", "493012"), ("other", "493012"), ("retail", "493013"), ("", "493012")):
        event = counts.count(deck, number, LOW, UnixS(1.0), "")
        assert event is not None
        assert (event.deck, event.prefix) == (deck, number)


def test_what_was_quiet_for_a_minute_is_forgotten_and_told_at_once_again() -> None:
    counts = UnbilledCounts()
    counts.count("retail", "49", LOW, UnixS(1_000.0), "")
    assert counts.due(UnixS(1_000.0 + PERIOD_S)) == []
    assert not counts._raised_s
    assert counts.count("retail", "49", LOW, UnixS(1_061.0), "") is not None


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    counts = UnbilledCounts()
    counts.count("retail", "49", LOW, UnixS(1_000_000.0), "")
    assert counts.count("retail", "49", LOW, UnixS(5.0), "") is not None


def test_beyond_what_is_told_apart_all_are_counted_together() -> None:
    counts = UnbilledCounts()
    for index in range(GROUPS_MAX + 50):
        counts.count("retail", f"1{index:05}", LOW, UnixS(1_000.0), "")
    assert len(counts._raised_s) == GROUPS_MAX + 1
    (event,) = counts.due(UnixS(1_060.0))
    assert ((event.deck, event.prefix), event.count) == (SEVERAL, 49)
    assert event.deck  # or it would read as that of an account without a price list
    assert not is_name(event.deck)


def test_a_group_that_is_counted_already_goes_on_by_itself_when_there_is_no_room_for_more() -> None:
    counts = UnbilledCounts()
    for index in range(GROUPS_MAX):
        counts.count("retail", f"1{index:05}", LOW, UnixS(1_000.0), "")
    counts.count("retail", "100007", LOW, UnixS(1_001.0), "")
    (event,) = counts.due(UnixS(1_060.0))
    assert (event.deck, event.prefix) == ("retail", "100007")


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), st.integers(0, 40)), max_size=80))
@settings(deadline=None)
def test_none_is_lost_and_none_is_told_more_often_than_once_a_minute(questions: list[tuple[str, str, float]]) -> None:
    counts = UnbilledCounts()
    unix_s = 1_000.0
    told: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for deck, digits, later_s in questions:
        unix_s += later_s
        raised = counts.due(UnixS(unix_s))
        event = counts.count(deck, digits, LOW, UnixS(unix_s), "")
        for one in [*raised, *([event] if event else [])]:
            told.setdefault((one.deck, one.prefix), []).append((unix_s, one.count))
    for one in counts.due(UnixS(unix_s + PERIOD_S)):
        told.setdefault((one.deck, one.prefix), []).append((unix_s + PERIOD_S, one.count))
    assert sum(count for events in told.values() for _, count in events) == len(questions)
    for events in told.values():
        moments = [moment_s for moment_s, _ in events]
        assert all(later - earlier >= PERIOD_S for earlier, later in itertools.pairwise(moments))
