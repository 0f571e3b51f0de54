"""The system's clock, behind `callwarden.kernel.clock.Clock`. The fake one is in `callwarden.testing`."""

import time


class SystemClock:
    """Wall time for what is stored and compared between machines, monotonic time for measuring."""

    __slots__ = ()

    def now_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never steps back."""
        return time.monotonic()
