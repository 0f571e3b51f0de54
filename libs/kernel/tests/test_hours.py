"""Peak hours switch when the clocks of their zone say so."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel.hours import PLAN_RANGES_MAX, BadPeakHours, PeakHours, parse, parse_plan

BERLIN = ZoneInfo("Europe/Berlin")


def moment(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def hours(text: str, zone: ZoneInfo = BERLIN) -> PeakHours:
    parsed = parse(text, zone)
    assert parsed is not None
    return parsed


def switches(text: str, begin: str, end: str, zone: ZoneInfo = BERLIN) -> list[tuple[str, bool]]:
    """As local times."""
    found = hours(text, zone).switches(moment(begin, zone), moment(end, zone))
    return [(datetime.fromtimestamp(at_s, zone).strftime("%d %H:%M"), is_peak) for at_s, is_peak in found]


def test_a_working_day_begins_and_ends() -> None:
    assert switches("Mon-Fri 08:00-20:00", "2026-01-05T07:00", "2026-01-06T07:00") == [
        ("05 07:00", False),
        ("05 08:00", True),
        ("05 20:00", False),
    ]


def test_a_weekend_has_no_peak() -> None:
    assert switches("Mon-Fri 08:00-20:00", "2026-01-09T21:00", "2026-01-12T07:59") == [("09 21:00", False)]


def test_the_first_state_is_that_of_the_moment_asked_for() -> None:
    assert switches("Mon-Fri 08:00-20:00", "2026-01-05T08:00", "2026-01-05T12:00") == [("05 08:00", True)]
    assert switches("Mon-Fri 08:00-20:00", "2026-01-05T20:00", "2026-01-05T22:00") == [("05 20:00", False)]


def test_several_ranges_share_their_days_and_join_where_they_touch() -> None:
    assert switches("Mon-Fri 08:00-12:00,13:00-18:00,Sat 18:00-19:00", "2026-01-09T00:00", "2026-01-11T00:00") == [
        ("09 00:00", False),
        ("09 08:00", True),
        ("09 12:00", False),
        ("09 13:00", True),
        ("09 18:00", False),
        ("10 18:00", True),
        ("10 19:00", False),
    ]
    assert switches("Mon 08:00-12:00, Mon 11:00-14:00, Mon 14:00-15:00", "2026-01-05T00:00", "2026-01-06T00:00") == [
        ("05 00:00", False),
        ("05 08:00", True),
        ("05 15:00", False),
    ]


def test_a_night_reaches_into_the_next_morning_and_over_the_weeks_end() -> None:
    assert switches("Sun 22:00-06:00", "2026-01-05T00:00", "2026-01-05T12:00") == [
        ("05 00:00", True),
        ("05 06:00", False),
    ]
    assert switches("Sat-Mon 00:00-24:00", "2026-01-09T12:00", "2026-01-13T12:00") == [
        ("09 12:00", False),
        ("10 00:00", True),
        ("13 00:00", False),
    ]


def test_summer_time_moves_the_switch_with_the_clock() -> None:
    def utc_of_first_switch(day: str) -> str:
        found = hours("Mon-Sun 08:00-20:00").switches(moment(f"{day}T00:00"), moment(f"{day}T12:00"))
        return datetime.fromtimestamp(found[1][0], UTC).strftime("%H:%M")

    assert utc_of_first_switch("2026-03-28") == "07:00"
    assert utc_of_first_switch("2026-03-29") == "06:00"
    assert utc_of_first_switch("2026-10-24") == "06:00"
    assert utc_of_first_switch("2026-10-25") == "07:00"


def test_a_boundary_that_the_clock_skips_is_when_it_jumps() -> None:
    # 2026-03-29: 02:00 becomes 03:00 in Berlin, at 01:00 UTC.
    jump_s = int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp())
    found = hours("Sun 02:30-05:00").switches(jump_s - 3600, jump_s + 4 * 3600)
    assert found == ((jump_s - 3600, False), (jump_s, True), (jump_s + 2 * 3600, False))
    found = hours("Sun 01:00-02:30").switches(jump_s - 7200, jump_s + 4 * 3600)
    assert found == ((jump_s - 7200, False), (jump_s - 3600, True), (jump_s, False))
    assert hours("Sun 02:10-02:50").switches(jump_s - 3600, jump_s + 3600) == ((jump_s - 3600, False),)


def test_midnight_is_kept_where_summer_time_begins_at_midnight() -> None:
    beirut = ZoneInfo("Asia/Beirut")
    jump_s = int(datetime(2026, 3, 28, 22, tzinfo=UTC).timestamp())  # 2026-03-29 00:00 becomes 01:00.
    assert datetime.fromtimestamp(jump_s, beirut).strftime("%d %H:%M") == "29 01:00"
    assert hours("Sun 00:00-24:00", beirut).switches(jump_s - 60, jump_s + 60) == ((jump_s - 60, False), (jump_s, True))


def test_a_boundary_that_comes_twice_is_meant_the_first_time() -> None:
    # 2026-10-25: 03:00 becomes 02:00 in Berlin, at 01:00 UTC; 02:30 is at 00:30 and at 01:30 UTC.
    first_s = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp())
    assert hours("Sun 02:30-05:00").switches(first_s - 60, first_s + 7200) == ((first_s - 60, False), (first_s, True))


@pytest.mark.parametrize("text", ["", "   "])
def test_no_hours_are_none(text: str) -> None:
    assert parse(text, UTC) is None


@pytest.mark.parametrize(
    "text",
    [
        "always",
        "08:00-20:00",
        "Mon",
        "Mon 8-20",
        "Mon 08:00-25:00",
        "Mon 08:60-20:00",
        "Mon 08:00-08:00",
        "Mon 24:00-06:00",
        "Mon 24:01-06:00",
        "Mon-Foo 08:00-20:00",
        "Mon 08:00-20:00,",
        "Mon 08:00-20:00;Tue 08:00-20:00",
        "Mon ٠٨:٠٠-20:00",
        "Mon 08:00-20:00," * 17,
        "Mon 08:00-20:00" + " " * 300,
    ],
)
def test_what_is_no_peak_hours_is_refused(text: str) -> None:
    with pytest.raises(BadPeakHours):
        parse(text, UTC)


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_is_peak_hours_or_refused(text: str) -> None:
    try:
        parse(text, UTC)
    except BadPeakHours as error:
        assert error.reason


DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
times = st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
items = st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS), times, times).filter(lambda item: item[2] != item[3])


@given(
    st.lists(items, min_size=1, max_size=4),
    st.integers(1_767_225_600, 1_798_761_600),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "UTC"]),
)
@settings(max_examples=60, deadline=None)
def test_every_minute_is_peak_exactly_where_the_clock_on_the_wall_says(
    ranges: list[tuple[str, str, tuple[int, int], tuple[int, int]]], from_s: int, zone_name: str
) -> None:
    zone = ZoneInfo(zone_name)
    text = ",".join(f"{first}-{last} {a[0]:02}:{a[1]:02}-{b[0]:02}:{b[1]:02}" for first, last, a, b in ranges)
    from_s -= from_s % 60
    found = hours(text, zone).switches(from_s, from_s + 2 * 86_400)
    assert [state for _, state in found] == [bool((found[0][1] + i) % 2) for i in range(len(found))]
    for at_s in range(from_s, from_s + 2 * 86_400, 900):
        local = datetime.fromtimestamp(at_s, zone)
        if _clock_changes_near(at_s, zone):
            continue  # The rules for skipped and repeated hours have tests of their own.
        state = [is_peak for moment_s, is_peak in found if moment_s <= at_s][-1]
        assert state is any(_contains(item, local) for item in ranges), local


def _clock_changes_near(at_s: int, zone: ZoneInfo) -> bool:
    offsets = {datetime.fromtimestamp(at_s + shift, zone).utcoffset() for shift in (-7200, 0, 7200)}
    return len(offsets) > 1


def _contains(item: tuple[str, str, tuple[int, int], tuple[int, int]], local: datetime) -> bool:
    first, last, begin, end = item
    start, count = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7 + 1
    days = {(start + i) % 7 for i in range(count)}
    now = (local.hour, local.minute)
    if begin < end:
        return local.weekday() in days and begin <= now < end
    yesterday = (local - timedelta(days=1)).weekday()
    return (local.weekday() in days and now >= begin) or (yesterday in days and now < end)


# ------------------------------------------------------------------ several hours, one before the other

MONDAY_S = 1_767_571_200  # 2026-01-05, midnight in UTC


def test_of_overlapping_hours_the_first_applies() -> None:
    plan = parse_plan(["Sat 09:00-13:00", "Mon-Sun 08:00-19:00"], BERLIN)
    friday_s = int(datetime(2026, 1, 9, 20, tzinfo=BERLIN).timestamp())
    found = plan.switches(friday_s, friday_s + 2 * 86_400)
    assert [(datetime.fromtimestamp(moment_s, BERLIN).strftime("%a %H:%M"), part) for moment_s, part in found] == [
        ("Fri 20:00", 2),
        ("Sat 08:00", 1),
        ("Sat 09:00", 0),
        ("Sat 13:00", 1),
        ("Sat 19:00", 2),
        ("Sun 08:00", 1),
        ("Sun 19:00", 2),
    ]


def test_where_one_ends_as_the_next_begins_there_is_nothing_between() -> None:
    plan = parse_plan(["Mon 10:00-12:00", "Mon 08:00-10:00", "Mon 12:00-12:01, Mon 11:00-11:30"], UTC)
    assert plan.switches(MONDAY_S, MONDAY_S + 86_400) == (
        (MONDAY_S, 3),
        (MONDAY_S + 8 * 3_600, 1),
        (MONDAY_S + 10 * 3_600, 0),
        (MONDAY_S + 12 * 3_600, 2),
        (MONDAY_S + 12 * 3_600 + 60, 3),
    )


def test_a_plan_of_one_switches_as_its_hours_do() -> None:
    text = "Mon-Fri 08:00-20:00, Sat 10:00-14:00"
    (*expected,) = hours(text).switches(MONDAY_S, MONDAY_S + 40 * 86_400)
    plan = parse_plan([text], BERLIN)
    assert plan.switches(MONDAY_S, MONDAY_S + 40 * 86_400) == tuple((at, int(not on)) for at, on in expected)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["Mon 08:00-09:00", " "],
        ["at noon"],
        [", ".join(["Mon 08:00-09:00"] * 9)] * 2 + [", ".join(["Mon 08:00-09:00"] * 7)],
    ],
)
def test_hours_that_are_none_make_no_plan(texts: list[str]) -> None:
    with pytest.raises(BadPeakHours):
        parse_plan(texts, UTC)


def test_a_plan_has_at_most_so_many_ranges_in_all() -> None:
    plan = parse_plan([", ".join(["Mon 08:00-09:00"] * 12)] * 2, UTC)
    assert sum(len(part.ranges) for part in plan.parts) == PLAN_RANGES_MAX
