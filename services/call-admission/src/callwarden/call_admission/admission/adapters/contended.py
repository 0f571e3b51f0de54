"""Which accounts several processes have moved at the same moment again and again: those that want more shards."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from callwarden.call_admission.admission.core.book import Loaded
from callwarden.call_admission.model.account import shards_of

CONFLICTS_PER_S: Final = 20  # Of one account here. Two processes at 200 calls/s on it come to that.
KNOWN_MAX: Final = 1_024  # accounts with a conflict within a second
HOT_MAX: Final = 64  # that wait for their shards


class Contended:
    """Conflicts of the last second by account."""

    def __init__(self) -> None:
        self._conflicts: OrderedDict[UUID, tuple[int, int]] = OrderedDict()
        self._hot: dict[UUID, int] = {}

    def compare(self, lost: Mapping[UUID, int], loaded: Loaded, now_s: float) -> None:
        """After a write that failed with these versions, what is true now: those that have moved were in the way."""
        for account_id, version in lost.items():
            standing = loaded.standings.get(account_id)
            if standing is None:
                continue
            count = shards_of(standing.account)
            now = standing.version
            if count > 1:
                now = sum(row.version for (scope, _), row in loaded.counters.items() if scope == account_id)
            if now != version:
                self._count(account_id, count, int(now_s))

    def _count(self, account_id: UUID, shards: int, second: int) -> None:
        since, conflicts = self._conflicts.pop(account_id, (second, 0))
        conflicts = conflicts + 1 if since == second else 1
        self._conflicts[account_id] = second, conflicts
        if len(self._conflicts) > KNOWN_MAX:
            self._conflicts.popitem(last=False)
        if conflicts >= CONFLICTS_PER_S and len(self._hot) < HOT_MAX:
            self._hot[account_id] = shards

    def take(self) -> dict[UUID, int]:
        """Accounts that have had too many since this was asked last, with the number of shards that they have."""
        hot, self._hot = self._hot, {}
        return hot
