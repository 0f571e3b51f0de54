"""Calls at the same time, counted by the moment at which their holds expire."""

from bisect import bisect_left
from math import ceil
from typing import Final

import msgspec

from callwarden.kernel.clock import UnixS

LEASE_STEP_S: Final = 8  # An expired hold counts so much longer at most; the reaper is quicker (2 s).


LEASES_MAX: Final = 4_096  # 9 h ahead in steps of 8 s; holds are extended slice by slice, an hour at most.


class Leases(msgspec.Struct, array_like=True):
    """Calls at the same time, by the step in which their holds expire."""

    steps: list[list[int]] = msgspec.field(default_factory=list)
    """[step, calls], in order."""
    swept: int = -1
    """Everything up to this step has expired and is gone."""

    def begin(self, expires_at_s: float, unix_s: UnixS) -> None:
        now = int(unix_s) // LEASE_STEP_S
        if now < self.swept:
            self.swept = now  # The clock has stepped back: new calls are to count all the same.
        self._sweep(unix_s)
        self._add(_step(expires_at_s), 1)

    def extend(self, before_s: float, after_s: float, unix_s: UnixS) -> None:
        before, after = _step(before_s), _step(after_s)
        if before != after:
            self._add(before, -1)
            self._sweep(unix_s)
            self._add(after, 1)

    def end(self, expires_at_s: float, unix_s: UnixS) -> None:
        self._add(_step(expires_at_s), -1)
        self._sweep(unix_s)

    def count(self, unix_s: UnixS) -> int:
        now = int(unix_s) // LEASE_STEP_S
        return sum([calls for step, calls in self.steps if step > now])

    def _sweep(self, unix_s: UnixS) -> None:
        now = int(unix_s) // LEASE_STEP_S
        steps = self.steps
        gone = 0
        while gone < len(steps) and steps[gone][0] <= now:
            gone += 1
        if gone:
            del steps[:gone]
        if now > self.swept:
            self.swept = now

    def _add(self, step: int, calls: int) -> None:
        if step <= self.swept:  # It has expired, and so counts no more.
            return
        steps = self.steps
        position = bisect_left(steps, step, key=_first)
        if position < len(steps) and steps[position][0] == step:
            steps[position][1] += calls
            if steps[position][1] <= 0:
                del steps[position]
        elif calls > 0:
            if len(steps) >= LEASES_MAX:  # Then the two that expire last count as one: longer, never shorter.
                steps[-1][1] += calls
            else:
                steps.insert(position, [step, calls])


def _step(at_s: float) -> int:
    return ceil(at_s / LEASE_STEP_S)


def _first(step: list[int]) -> int:
    return step[0]


def merged_leases(one: Leases | None, other: Leases | None) -> Leases | None:
    if one is None or other is None:
        found = one or other
        return None if found is None else Leases([list(step) for step in found.steps], found.swept)
    total = Leases(swept=max(one.swept, other.swept))
    for step, calls in (*one.steps, *other.steps):
        total._add(step, calls)
    return total
