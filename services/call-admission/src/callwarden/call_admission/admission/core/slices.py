"""How much talk time is paid for at once: the first slice, the next ones, the last one that credit allows.

In: seconds and money of one slice under what the rules allow. Out: which budget a rule leaves (rules/), what becomes of
the hold (transaction). Prices are those of callwarden.kernel.tariff, whose cost never falls as a call grows longer.
"""

from dataclasses import dataclass
from typing import Final

from callwarden.kernel.tariff import Price, affordable_s, cost

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
    """Moments of answer that between them show the most that a call begun at `start_s` may cost; the first two are the
    earliest and the last.

    The money is held before anybody knows when the callee answers, and peak hours may begin while it rings. Between two
    changes of price (of the connect fee; of the rate, free seconds earlier; of the rate at the call's end, see
    cost_max) the cost moves one way with the moment of answer, but for an increment and its rounding: so the ends and
    both sides of each change are looked at. Should a call cost that increment more than was held, it isn't charged.
    """
    windows = price.windows
    if len(windows) == 1:  # most decks
        return (start_s,)
    last_s = start_s + setup_s_max
    changes = [window.from_s for window in windows if start_s < window.from_s <= last_s]
    candidates = [start_s, last_s]
    for change in changes:
        candidates += (change, change - 1.0, change - price.free_s)
    return tuple(answer_s for answer_s in candidates if answer_s >= start_s)


def cost_max(price: Price, answers: tuple[float, ...], talk_s: int) -> int:
    """The most that `talk_s` seconds cost over these moments of answer, and those that let it end at a change."""
    if len(answers) == 1:
        return cost(price, answers[0], talk_s)
    start_s, last_s = answers[0], answers[1]
    ends = [answer_s for window in price.windows if start_s < (answer_s := float(window.from_s - talk_s)) < last_s]
    return max(cost(price, answer_s, talk_s) for answer_s in (*answers, *ends))


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
        total_s = min(affordable_s(price, answer_s, budget_micros, limit_s) for answer_s in answers)
        micros = min(cost_max(price, answers, total_s), budget_micros)
    if total_s <= granted_s:
        return None
    if bounds.cap_micros is not None and micros > bounds.cap_micros:
        micros = max(bounds.cap_micros, 0)
    return TalkSlice(total_s, micros, final=total_s < limit_s or total_s >= bounds.talk_s_max)
