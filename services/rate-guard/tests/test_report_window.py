"""Reports that arrive twice, at the bounds of what is remembered of an edge."""

from callwarden.rate_guard.core.duplicates import EDGES_MAX, WINDOW, ReportWindow


def seen(newest: int) -> ReportWindow:
    reports = ReportWindow()
    for sequence in range(1, newest + 1):
        assert reports.is_new("edge", sequence)
    return reports


def test_the_oldest_number_in_the_window_is_a_duplicate_and_the_one_below_a_restart() -> None:
    assert not seen(100).is_new("edge", 100 - WINDOW + 1)
    restarted = seen(100)
    assert restarted.is_new("edge", 100 - WINDOW)
    assert restarted.is_new("edge", 100 - WINDOW + 1)


def test_the_first_report_after_a_restart_counts_once() -> None:
    restarted = seen(100)
    assert restarted.is_new("edge", 1)
    assert not restarted.is_new("edge", 1)
    assert restarted.is_new("edge", 2)


def test_a_jump_ahead_forgets_what_fell_out_of_the_window_and_nothing_else() -> None:
    reports = seen(100)
    assert reports.is_new("edge", 100 + WINDOW - 1)
    assert not reports.is_new("edge", 100)
    assert reports.is_new("edge", 101)


def test_the_edge_that_was_silent_longest_is_forgotten_first() -> None:
    reports = ReportWindow()
    for number in range(EDGES_MAX):
        reports.is_new(f"edge-{number}", 1)
    reports.is_new("edge-0", 2)
    reports.is_new("another", 1)
    assert not reports.is_new("edge-0", 2)
    assert reports.is_new("edge-1", 1)
