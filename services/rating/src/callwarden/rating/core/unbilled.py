"""Calls without a price, counted by price list and prefix: an event at once, and then at most one a minute.

In: what is counted together, when an event is due. Out: publishing it (ports.UnbilledEventPublisher), and which calls
have no price (app).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from callwarden.kernel.clock import UnixS

PERIOD_S: Final = 60.0
PREFIX_DIGITS: Final = 6  # Enough for country and network; whole numbers are private.
GROUPS_MAX: Final = 4_096  # Groups counted at a time: a scan over all prefixes must not fill memory or mailboxes.
SEVERAL: Final = "*", ""
"""Deck and prefix of calls beyond GROUPS_MAX groups; no deck can have this name."""


class UnbilledSeverity(Enum):
    """The values of spec.billing.notBilledSeverity."""

    LOW = 0
    ERROR = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class Unbilled:
    """`count` requests without a price in a deck (empty: the account has none), the first at `at_s`."""

    deck: str
    prefix: str
    at_s: float
    severity: UnbilledSeverity
    count: int
    text: str


class UnbilledCounts:
    """Counts calls without a price, and decides when an event is due."""

    def __init__(self) -> None:
        self._raised_s: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], Unbilled] = {}

    def count(self, deck: str, digits: str, severity: UnbilledSeverity, unix_s: UnixS, text: str) -> Unbilled | None:
        """Count one. Returns an event if the group's last one is at least a minute ago."""
        key = deck, digits[:PREFIX_DIGITS]
        if key not in self._raised_s and len(self._raised_s) >= GROUPS_MAX:
            key = SEVERAL
        before = self._waiting.pop(key, None)
        if before is None:
            event = Unbilled(*key, unix_s, severity, 1, text)
        else:
            worst = severity if severity.value > before.severity.value else before.severity
            event = Unbilled(*key, before.at_s, worst, before.count + 1, before.text)
        if self._is_due(key, unix_s):
            self._raised_s[key] = unix_s
            return event
        self._waiting[key] = event
        return None

    def due(self, unix_s: UnixS) -> list[Unbilled]:
        """Events for groups whose last one is at least a minute ago. Forgets groups that were quiet since."""
        due = [key for key in self._raised_s if self._is_due(key, unix_s)]
        events = []
        for key in due:
            event = self._waiting.pop(key, None)
            if event is None:
                del self._raised_s[key]
            else:
                self._raised_s[key] = unix_s
                events.append(event)
        return events

    def _is_due(self, key: tuple[str, str], unix_s: UnixS) -> bool:
        """True also if the clock was set back: one event too many is better than silence until it has caught up."""
        raised_s = self._raised_s.get(key)
        return raised_s is None or not 0 <= unix_s - raised_s < PERIOD_S
