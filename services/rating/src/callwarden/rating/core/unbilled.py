"""Calls without a price: counted by price list and prefix, told at once and then at most once a minute.

In: what is counted together, when it is told. Out: who hears of it (ports.Events), which calls have no price (app).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

PERIOD_S: Final = 60.0
PREFIX_DIGITS: Final = 6  # Enough for country and network; a whole number is nobody's business.
GROUPS_MAX: Final = (
    4_096  # What is told apart at once: a scan over all prefixes must not fill memory, nor anybody's mail.
)
SEVERAL: Final = "*", ""
"""Deck and prefix of what isn't told apart any more; no deck is called that."""


class Severity(Enum):
    """As spec.billing.notBilledSeverity says it."""

    LOW = 0
    ERROR = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Unbilled:
    """`count` questions for prices of a deck (empty: the account has none) that aren't there, the first at `at_s`."""

    deck: str
    prefix: str
    at_s: float
    severity: Severity
    count: int
    text: str


class UnbilledCounts:
    """What is to be told."""

    def __init__(self) -> None:
        self._told_s: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], Unbilled] = {}

    def count(self, deck: str, digits: str, severity: Severity, now_s: float, text: str) -> Unbilled | None:
        """One more; what is to be told at once, where the last time is a minute ago."""
        key = deck, digits[:PREFIX_DIGITS]
        if key not in self._told_s and len(self._told_s) >= GROUPS_MAX:
            key = SEVERAL
        before = self._waiting.pop(key, None)
        if before is None:
            event = Unbilled(*key, now_s, severity, 1, text)
        else:
            worst = severity if severity.value > before.severity.value else before.severity
            event = Unbilled(*key, before.at_s, worst, before.count + 1, before.text)
        if self._may_tell(key, now_s):
            self._told_s[key] = now_s
            return event
        self._waiting[key] = event
        return None

    def due(self, now_s: float) -> list[Unbilled]:
        """What waits and was last told a minute ago. What was quiet for a minute is forgotten."""
        told = [key for key in self._told_s if self._may_tell(key, now_s)]
        events = []
        for key in told:
            event = self._waiting.pop(key, None)
            if event is None:
                del self._told_s[key]
            else:
                self._told_s[key] = now_s
                events.append(event)
        return events

    def _may_tell(self, key: tuple[str, str], now_s: float) -> bool:
        """Also when the clock was set back: better once too often than silent until it has caught up."""
        told_s = self._told_s.get(key)
        return told_s is None or not 0 <= now_s - told_s < PERIOD_S
