"""The system's clock, behind `callwarden.kernel.clock.Clock`. The fake one is in `callwarden.testing`."""

import time

from callwarden.kernel.clock import MonoS, UnixS


class SystemClock:
    """Wall time for what is stored and compared between machines, monotonic time for measuring."""

    __slots__ = ()

    def unix_s(self) -> UnixS:
        """Seconds since 1970-01-01 UTC."""
        return UnixS(time.time())

    def mono_s(self) -> MonoS:
        """Seconds from an arbitrary start; never steps back."""
        return MonoS(time.monotonic())
