"""Reports that come twice count once: the sequence numbers that were seen of each edge, in bounded memory.

The law is that of IPsec's anti-replay window (RFC 4303 section 3.4.3) with one difference: an edge that starts anew
counts from the beginning again. So a number far below the newest begins a new window instead of being a duplicate; a
report is sent again within seconds or never.
"""

from collections import OrderedDict
from typing import Final

EDGES_MAX: Final = 1_024  # The longest silent one is forgotten.
WINDOW: Final = 64  # Reports: 3 s of an edge that reports every 50 ms.


class Seen:
    """Which reports were counted. Mutable: asked for each."""

    __slots__ = ("_edges",)

    def __init__(self) -> None:
        self._edges: OrderedDict[str, tuple[int, int]] = OrderedDict()  # Newest number; bit n: newest - n was seen.

    def is_new(self, edge: str, sequence: int) -> bool:
        """Whether the report wasn't seen before; it is seen now."""
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
