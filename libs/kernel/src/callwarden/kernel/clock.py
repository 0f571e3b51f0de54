"""What a clock is. The system's stands in callwarden.common.clock, the one for tests in callwarden.testing."""

from typing import Protocol


class Clock(Protocol):
    """Time, injected: cores take `now_s` as an argument, apps hold a Clock."""

    def now_s(self) -> float:
        """Wall time, seconds since 1970-01-01 UTC. May step back."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start that never step back; for time-outs and durations."""
        ...
