"""Counts that lie in several rows: added up as those of one owner, and corrected wherever they are."""

from admission_line import TODAY

from callwarden.call_admission.model.habits import AccountBaseline, VelocityCounts, merged_baselines, merged_velocity
from callwarden.call_admission.model.leases import Leases
from callwarden.call_admission.model.spans import CalendarSpan, merged_spans
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.usage_shards import correct, correct_in_all, correct_period, merged
from callwarden.call_admission.model.windows import SlidingWindow, WindowBucket

DAY, MONTH = TODAY.toordinal(), TODAY.year * 12 + TODAY.month - 1


def span(key: int, **counts: int) -> CalendarSpan:
    return CalendarSpan(key, **counts)


def in_period(usage: Usage) -> tuple[int, int, int]:
    assert usage.period is not None
    (bucket,) = usage.period.buckets
    return bucket.calls, bucket.micros, bucket.talk_s


def seconds(*begun: float) -> SlidingWindow:
    made = SlidingWindow(1_000)
    for at_s in begun:
        made.begin(at_s, 10, 1)
    return made


def test_all_that_several_rows_count_is_added_up() -> None:
    one = Usage(
        held_micros=1, spent_micros=2, days=[CalendarSpan(3, 4, 5, 6, 7, 8, 9)],
        months=[span(1, calls=1)], peak_day_micros=50, leases=Leases([[5, 1]], 1), second=seconds(9.0),
        period=seconds(9.0), groups={"a": VelocityCounts(leases=Leases([[5, 1]], 1))},
        notice_day=7, notices={"lines": 80, "credit": 50}, baseline=AccountBaseline(5, 9, spent_micros=1),
    )  # fmt: skip
    other = Usage(
        held_micros=10, spent_micros=20, days=[span(2, calls=1), CalendarSpan(3, 40, 50, 60, 70, 80, 90)],
        months=[span(1, calls=2), span(2, calls=3)], peak_day_micros=40, leases=Leases([[5, 2]], 1),
        second=seconds(9.0), period=seconds(9.0),
        groups={"a": VelocityCounts(leases=Leases([[5, 2]], 1)), "b": VelocityCounts(in_sequence=3)},
        notice_day=7, notices={"lines": 100, "credit": 10}, baseline=AccountBaseline(5, 9, spent_micros=2),
    )  # fmt: skip
    for total in (merged([one, other]), merged([other, one])):
        assert (total.held_micros, total.spent_micros, total.peak_day_micros) == (11, 22, 50)
        assert total.days == [
            span(2, calls=1), CalendarSpan(3, 44, 55, 66, 77, 88, 99)
        ]  # fmt: skip
        assert total.months == [span(1, calls=3), span(2, calls=3)]
        assert total.leases == Leases([[5, 3]], 1)
        for window in (total.second, total.period):
            assert window is not None
            assert window.buckets == [WindowBucket(9, 2, 20, 2)]
        assert total.groups["a"].leases == Leases([[5, 3]], 1)
        assert total.groups["b"].in_sequence == 3
        assert total.baseline == AccountBaseline(5, 9, spent_micros=3)
        assert (total.notice_day, total.notices) == (7, {"lines": 100, "credit": 50})


def test_notices_of_the_newest_day_are_those_of_all() -> None:
    old, new = Usage(notice_day=6, notices={"lines": 100}), Usage(notice_day=7, notices={"credit": 50})
    for total in (merged([old, new]), merged([new, old])):
        assert (total.notice_day, total.notices) == (7, {"credit": 50})


def test_growth_of_several_rows_is_the_latest_and_largest() -> None:
    def grown(base: int | None, micros: int, month: int) -> Usage:
        return Usage(month_base_micros=base, month_grown_micros=micros, month_grown=month)

    def of(*usages: Usage) -> tuple[int | None, int, int]:
        total = merged(usages)
        return total.month_base_micros, total.month_grown_micros, total.month_grown

    assert of(grown(10, 5, 3), grown(10, 7, 4)) == of(grown(10, 7, 4), grown(10, 5, 3)) == (10, 7, 4)
    assert of(grown(10, 5, 4), grown(10, 7, 4)) == of(grown(10, 7, 4), grown(10, 5, 4)) == (10, 7, 4)
    assert of(grown(None, 0, 0), grown(10, 7, 4)) == of(grown(10, 7, 4), grown(None, 0, 0)) == (10, 7, 4)


def test_the_last_sequence_of_several_rows_is_that_of_the_account() -> None:
    early, late = (
        VelocityCounts(last="33", in_sequence=4, last_at_s=5),
        VelocityCounts(last="49", in_sequence=1, last_at_s=6),
    )
    for total in (merged_velocity(early, late), merged_velocity(late, early)):
        assert (total.last, total.in_sequence, total.last_at_s) == ("49", 1, 6)
    same = VelocityCounts(last="53", in_sequence=2, last_at_s=6)
    assert merged_velocity(late, same).last == "53"
    full = VelocityCounts(seconds(9.0), seconds(9.0), seconds(9.0), Leases([[5, 1]], 1))
    both = merged_velocity(full, full)
    for window in (both.second, both.minute, both.period):
        assert window is not None
        assert window.buckets == [WindowBucket(9, 2, 20, 2)]
    assert both.leases == Leases([[5, 2]], 1)


def test_baselines_of_several_rows_are_those_of_one_account() -> None:
    one = AccountBaseline(5, 9, [1] * 24, 100, 7_000)
    other = AccountBaseline(4, 10, [2] * 24, 50, 6_000)
    wanted = AccountBaseline(4, 10, [3] * 24, 150, 7_000)
    assert merged_baselines(one, other) == merged_baselines(other, one) == wanted
    for copy in (merged_baselines(one, None), merged_baselines(None, one)):
        assert copy == one
        assert copy is not None
        copy.hours[0] = 99
    assert one.hours[0] == 1, "what is merged is a copy"
    assert merged_baselines(None, None) is None


def test_spans_of_several_rows_are_in_order_and_copies() -> None:
    one = [span(5, calls=1)]
    total = merged_spans(one, [span(4, calls=1)])
    assert [each.key for each in total] == [4, 5]
    total[1].calls = 7
    assert one[0].calls == 1


# ------------------------------------------------------------------ corrections


def test_a_correction_is_taken_from_whoever_counts_that_day_and_month_and_from_none_below_nothing() -> None:
    def usage(day: int, month: int) -> Usage:
        return Usage(
            days=[span(DAY - 1, spent_micros=9), span(DAY, spent_micros=day)], months=[span(MONTH, spent_micros=month)]
        )

    def after(usages: list[Usage]) -> list[tuple[int, int, int]]:
        return [(u.days[0].spent_micros, u.days[1].spent_micros, u.months[0].spent_micros) for u in usages]

    usages = [usage(10, 30), usage(20, 40)]
    correct(usages, TODAY, 5)
    assert after(usages) == [(9, 15, 35), (9, 20, 40)]
    correct(usages, TODAY, -18)
    assert after(usages) == [(9, 0, 17), (9, 17, 40)]
    correct(usages, TODAY, -100)
    assert after(usages) == [(9, 0, 0), (9, 0, 0)]


def test_a_correction_counts_against_a_resellers_credit_in_all_its_rows() -> None:
    usages = [Usage(spent_micros=10), Usage(spent_micros=20)]
    correct_in_all(usages, 5)
    assert [usage.spent_micros for usage in usages] == [15, 20]
    correct_in_all(usages, -18)
    assert [usage.spent_micros for usage in usages] == [0, 17]


def test_a_correction_counts_in_an_addresss_period_while_the_call_does() -> None:
    usage = Usage(period=seconds(1_000.0))
    correct_period(usage, 1_000.5, 5)
    assert in_period(usage) == (1, 15, 1)
    correct_period(usage, 1_000.5, -100)
    assert in_period(usage) == (1, 0, 1)
    correct_period(usage, 900.0, 5)
    correct_period(Usage(), 1_000.0, 5)
    assert in_period(usage) == (1, 0, 1)
