"""admission.core.edge_clocks: how far edges' clocks are from ours, and when to warn."""

from callwarden.call_admission.admission.core.edge_clocks import EDGES_MAX, EdgeClocks
from callwarden.kernel.clock import UnixS


def test_a_clock_that_is_right_is_measured_and_nobody_is_warned() -> None:
    clocks = EdgeClocks()
    assert not clocks.observe("edge-0", 99.75, UnixS(100.0))
    assert not clocks.observe("edge-1", 101.0, UnixS(100.0))
    assert clocks.skew_s == {"edge-0": -0.25, "edge-1": 1.0}


def test_a_clock_that_is_wrong_is_warned_of_once_a_minute_for_each_edge() -> None:
    clocks = EdgeClocks()
    warned = [clocks.observe("edge-0", unix_s + 5, UnixS(unix_s)) for unix_s in (100.0, 101.0, 159.5, 160.0, 161.0)]
    assert warned == [True, False, False, True, False]
    assert clocks.observe("edge-1", 155.0, UnixS(161.0))
    assert clocks.skew_s == {"edge-0": 5.0, "edge-1": -6.0}


def test_a_thousand_edges_are_remembered_the_last_ones_that_were_heard() -> None:
    clocks = EdgeClocks()
    for number in range(EDGES_MAX):
        clocks.observe(f"edge-{number}", 100.0, UnixS(100.0))
    clocks.observe("edge-0", 100.0, UnixS(100.0))
    clocks.observe("another", 100.0, UnixS(100.0))
    assert len(clocks.skew_s) == EDGES_MAX
    assert "edge-0" in clocks.skew_s
    assert "edge-1" not in clocks.skew_s


def test_an_edge_that_was_forgotten_is_warned_of_as_a_new_one() -> None:
    clocks = EdgeClocks()
    assert clocks.observe("edge-0", 105.0, UnixS(100.0))
    for number in range(1, EDGES_MAX + 1):
        clocks.observe(f"edge-{number}", 100.0, UnixS(100.0))
    assert clocks.observe("edge-0", 105.0, UnixS(100.0))
