"""How far the clocks of edges are from ours, as their requests show. In: each request's moment. Out: what is done
about it: a charge never depends on it (DESIGN D15), so people are warned."""

from typing import Final

from callwarden.kernel.clock import UnixS

EDGES_MAX: Final = 1_000  # Edges come and go with their pods; the one that was heard longest ago is forgotten.
APART_S: Final = 1.0  # More than a request waits on its way; with NTP two clocks differ by milliseconds.
WARN_EVERY_S: Final = 60.0


class EdgeClocks:
    """The last difference of each edge, and which warnings are due. Mutable: it is the state."""

    def __init__(self) -> None:
        self.skew_s: dict[str, float] = {}
        """By edge: its clock less ours, in seconds, the delay of the request on its way included."""
        self._warned_at_s: dict[str, float] = {}

    def observe(self, edge: str, edge_unix_s: float, unix_s: UnixS) -> bool:
        """A request of an edge that says what time it is; whether to warn now."""
        skew_s = edge_unix_s - unix_s
        self.skew_s.pop(edge, None)
        self.skew_s[edge] = skew_s
        if len(self.skew_s) > EDGES_MAX:
            forgotten = next(iter(self.skew_s))
            del self.skew_s[forgotten]
            self._warned_at_s.pop(forgotten, None)
        if abs(skew_s) <= APART_S or unix_s < self._warned_at_s.get(edge, -WARN_EVERY_S) + WARN_EVERY_S:
            return False
        self._warned_at_s[edge] = unix_s
        return True
