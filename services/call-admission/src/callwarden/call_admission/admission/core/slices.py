"""How much talk time is paid for at once: the first slice, the next ones, the last one that credit allows.

In: seconds and money of one slice under what the rules allow. Out: which budget a rule leaves (rules/), what becomes of
the hold (transaction). Prices are those of callwarden.kernel.tariff, whose cost never falls as a call grows longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from callwarden.kernel.tariff import Price, Window, affordable_s, cost

# A call that costs nothing needs no money slice, but its line must come back if its edge dies: it is granted in leases.
FREE_LEASE_S: Final = 120


@dataclass(slots=True)
class SliceBounds:
    """What all enforced rules together leave to a call; None: no bound. Made for every decision, so not frozen.

    `budget_micros` refuses talk time that costs more; `cap_micros` only bounds what is held: a prepaid account whose
    credit rule is only reported talks on, but what it can't pay is neither held nor charged.
    """

    budget_micros: int | None
    cap_micros: int | None
    talk_s_max: int


@dataclass(slots=True)
class TalkSlice:
    """Talk time from the answer (all of it, not only the newest piece) and the money held for it."""

    granted_s: int
    held_micros: int
    final: bool
    """Nothing further will be granted."""


def possible_answers(price: Price, start_s: float, setup_s_max: int) -> tuple[float, ...]:
    """The earliest and the last moment of answer of a call begun at `start_s`; only one where the moment is all one.

    The money is held before anybody knows when the callee answers, and peak hours may begin while it rings.
    """
    if len(price.windows) == 1:  # most decks
        return (start_s,)
    return start_s, start_s + setup_s_max


def cost_max(price: Price, answers: tuple[float, ...], talk_s: int) -> int:
    """The most that `talk_s` seconds cost whenever between these moments the callee answers."""
    if len(answers) == 1:
        return cost(price, answers[0], talk_s)
    return max(cost(price, answer_s, talk_s) for answer_s in _decisive(price, answers, talk_s))


def _decisive(price: Price, answers: tuple[float, ...], talk_s: int) -> Sequence[float]:
    """Moments of answer that between them show the most that a call of up to `talk_s` costs.

    Without a change of price it is the same at all. At one change, the later the answer, the more increments lie behind
    it: so the cost moves one way but for the connect fee, and both ends and both sides of the change are enough. That
    needs increments to begin at the same seconds on both sides. Where they don't, or where several changes are near,
    every whole second is looked at (no other moments differ).
    """
    start_s, last_s = answers
    windows = price.windows_until(last_s + talk_s + 1)
    changes = [index for index, window in enumerate(windows) if index and start_s < window.from_s <= last_s + talk_s]
    if not changes:
        return (start_s,)
    if len(changes) == 1:
        after = windows[changes[0]]
        if _is_alike(windows[changes[0] - 1], after):
            return tuple(
                moment_s
                for moment_s in (start_s, last_s, after.from_s - 1.0, float(after.from_s))
                if start_s <= moment_s <= last_s
            )
    return (start_s, *range(int(start_s) + 1, int(last_s) + 1))


def _is_alike(before: Window, after: Window) -> bool:
    """Whether they have the same increments, and one rate each, as those of a deck do."""
    return len({group.rate_micros for group in before.groups}) == len(
        {group.rate_micros for group in after.groups}
    ) == 1 and [(group.start_s, group.unit_s, group.increment_s) for group in before.groups] == [
        (group.start_s, group.unit_s, group.increment_s) for group in after.groups
    ]


def talk_within_maximum(price: Price, maximum_micros: int, answers: tuple[float, ...], limit_s: int) -> int:
    """The longest talk time up to `limit_s` that no moment of answer makes dearer than the maximum, which cuts."""
    # What the first moment allows is rarely a minute's work for the others; the limit may be a year.
    limit_s = affordable_s(price, answers[0], maximum_micros, limit_s)
    if len(answers) == 1:
        return limit_s
    moments = _decisive(price, answers, limit_s)
    return min(affordable_s(price, answer_s, maximum_micros, limit_s) for answer_s in moments)


def cut_to_size(
    price: Price, answers: tuple[float, ...], granted_s: int, wanted_s: int, bounds: SliceBounds
) -> TalkSlice | None:
    """Talk time of `wanted_s` or as much of it as the bounds allow, and its money; None if not a second more than
    `granted_s`."""
    limit_s = min(wanted_s, bounds.talk_s_max)
    total_s = limit_s
    micros = cost_max(price, answers, total_s)
    budget_micros = bounds.budget_micros
    if budget_micros is not None and micros > budget_micros:
        moments = answers if len(answers) == 1 else _decisive(price, answers, limit_s)
        total_s = min(affordable_s(price, answer_s, budget_micros, limit_s) for answer_s in moments)
        micros = min(cost_max(price, answers, total_s), budget_micros)
    if total_s <= granted_s:
        return None
    if bounds.cap_micros is not None:
        micros = max(min(micros, bounds.cap_micros), 0)
    return TalkSlice(total_s, micros, final=total_s < limit_s or total_s >= bounds.talk_s_max)
