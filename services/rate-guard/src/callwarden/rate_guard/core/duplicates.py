"""Counts a report that arrives twice only once: remembers the sequence numbers of each edge, in bounded memory.

The rule is that of IPsec's anti-replay window (RFC 4303 section 3.4.3) with one difference: an edge that restarts
counts from the beginning. So a number far below the newest starts a new window instead of being a duplicate; an edge
resends a report within seconds or never.
"""

from collections import OrderedDict
from typing import Final

EDGES_MAX: Final = 1_024  # Beyond that, the one that has been silent longest is forgotten.
WINDOW: Final = 64  # Reports: 3 s of an edge that reports every 50 ms.


class ReportWindow:
    """Which reports were counted. Mutable: it is on the path of every report."""

    __slots__ = ("_edges",)

    def __init__(self) -> None:
        self._edges: OrderedDict[str, tuple[int, int]] = OrderedDict()  # Newest number; bit n: newest - n was seen.

    def is_new(self, edge: str, sequence: int) -> bool:
        """Whether the report is new. Remembers it."""
        window = self._edges.get(edge)
        if window is None:
            if len(self._edges) >= EDGES_MAX:
                self._edges.popitem(last=False)
            self._edges[edge] = sequence, 1
            return True
        self._edges.move_to_end(edge)
        newest, bits = window
        ahead = sequence - newest
        if ahead > 0:
            bits = (bits << ahead | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self._edges[edge] = sequence, bits
            return True
        if ahead <= -WINDOW:
            self._edges[edge] = sequence, 1
            return True
        bit = 1 << -ahead
        if bits & bit:
            return False
        self._edges[edge] = newest, bits | bit
        return True
