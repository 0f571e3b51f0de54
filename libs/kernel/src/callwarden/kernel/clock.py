"""What a clock is. The system's is in callwarden.common.clock, the one for tests in callwarden.testing.

The two kinds of time are two types, so that mypy tells them apart. Both are plain floats at run time, and arithmetic on
them gives a float: `MonoS(clock.mono_s() + 5.0)` names the result again where a parameter asks for the type.
"""

from typing import Final, NewType, Protocol

# Seconds from an arbitrary start that never step back: time-outs, rates, durations. Worth nothing on another machine.
MonoS = NewType("MonoS", float)
# Seconds since 1970-01-01 UTC. May step back: what is stored, shown and compared between machines.
UnixS = NewType("UnixS", float)
EPOCH_S: Final = UnixS(0.0)


class Clock(Protocol):
    """Time, injected: cores take `mono_s` or `unix_s` as arguments, apps hold a Clock."""

    def unix_s(self) -> UnixS:
        """Wall time, seconds since 1970-01-01 UTC. May step back."""
        ...

    def mono_s(self) -> MonoS:
        """Seconds from an arbitrary start that never step back; for time-outs and durations."""
        ...
