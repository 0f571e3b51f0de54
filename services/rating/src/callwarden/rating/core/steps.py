"""Volume steps as text: other rates from a second of the charged time on.

In: "60:0.05 600:0.02:10:60" as decks in CSV say it (START:RATE[:INCREMENT[:UNIT]], amounts in the currency's unit), and
the same with all four numbers and the rate in micros as the store keeps it. Out: how steps are charged
(callwarden.kernel.tariff).
"""

import itertools
import re
from functools import lru_cache
from typing import Final

from callwarden.kernel.money import BadAmount, parse_amount
from callwarden.kernel.tariff import BadPrice, RateGroup
from callwarden.rating.core.deck import STEPS_MAX

NONE: Final = "none"
"""In a window: no steps, where the row has some."""
_STEP = re.compile(r"(\d{1,5}):([0-9.]{1,20})(?::(\d{1,5}))?(?::(\d{1,5}))?", re.ASCII)


class BadSteps(ValueError):
    """The text isn't a list of steps; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


# A list has few different ones.
@lru_cache(4_096)
def parse_steps(text: str, unit_s: int, increment_s: int) -> tuple[RateGroup, ...]:
    """The steps that a cell means; `unit_s` and `increment_s` are those of one that doesn't say its own. BadSteps."""
    if text == NONE:
        return ()
    steps: list[RateGroup] = []
    for item in text.split():
        match = _STEP.fullmatch(item)
        if match is None:
            raise BadSteps(
                f"{item[:40]!r} is not like 60:0.05, 60:0.05:10 or 60:0.05:10:60 (start:rate:increment:unit)"
            )
        start, rate, increment, unit = match.groups()
        try:
            group = RateGroup(int(start), parse_amount(rate), int(unit or unit_s), int(increment or increment_s))
        except (BadAmount, BadPrice) as error:
            raise BadSteps(f"{item[:40]!r}: {error}") from error
        if group.start_s == 0:
            raise BadSteps(f"{item[:40]!r} begins at 0: that is the rate itself")
        steps.append(group)
    if len(steps) > STEPS_MAX:
        raise BadSteps(f"there are more than {STEPS_MAX} steps")
    if any(later.start_s <= step.start_s for step, later in itertools.pairwise(steps)):
        raise BadSteps("each step must begin after the one before it")
    return tuple(steps)


def steps_text(steps: tuple[RateGroup, ...]) -> str:
    """As the store keeps them."""
    return " ".join(f"{step.start_s}:{step.rate_micros}:{step.increment_s}:{step.unit_s}" for step in steps)


@lru_cache(4_096)
def steps_from(text: str) -> tuple[RateGroup, ...]:
    """What the store has kept. ValueError (BadPrice is one) for anything else."""
    steps = []
    for item in text.split():
        start_s, rate_micros, increment_s, unit_s = map(int, item.split(":"))
        steps.append(RateGroup(start_s, rate_micros, unit_s, increment_s))
    return tuple(steps)
