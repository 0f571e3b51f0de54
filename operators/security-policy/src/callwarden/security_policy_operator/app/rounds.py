"""What becomes of the rounds of one kind, for metrics."""

from collections import Counter
from collections.abc import Callable

from callwarden.kernel.clock import Clock, MonoS


class Rounds:
    """Counts changes until a round that has seen them is done."""

    def __init__(self, clock: Clock, seen: Callable[[float], None]) -> None:
        """`seen` is told how long, in seconds, the oldest of a round's changes has waited until the round was done."""
        self._clock, self._seen = clock, seen
        self.outcomes: Counter[str] = Counter()
        """Since the start: done, conflict, failed."""
        self.waiting = 0
        """Changes that no finished round has seen."""
        self._since_s: MonoS | None = None  # of the oldest of them

    def forget(self) -> None:
        """Another process may have led meanwhile, and have seen them."""
        self.waiting, self._since_s = 0, None

    def changed(self) -> None:
        """A resource may be different."""
        self.waiting += 1
        if self._since_s is None:
            self._since_s = self._clock.mono_s()

    def begin(self) -> Callable[[str], None]:
        """A round begins; returns what to tell its outcome. Changes that come meanwhile are for the next one."""
        taken, since_s = self.waiting, self._since_s
        self._since_s = None

        def end(outcome: str) -> None:
            self.outcomes[outcome] += 1
            if outcome != "done":
                self._since_s = since_s if since_s is not None else self._since_s
                return
            self.waiting -= taken
            if since_s is not None:
                self._seen(self._clock.mono_s() - since_s)

        return end
