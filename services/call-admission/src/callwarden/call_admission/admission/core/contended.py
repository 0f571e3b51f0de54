"""Accounts that several processes keep changing at the same moment: candidates for more shards."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from callwarden.call_admission.admission.core.state import Changes, Loaded
from callwarden.call_admission.model.account import shards_of
from callwarden.kernel.clock import UnixS

CONFLICTS_PER_S: Final = 20  # Of one account in this process. Two processes at 200 calls/s on it reach that.
KNOWN_MAX: Final = 1_024  # accounts with a conflict within a second
HOT_MAX: Final = 64  # that wait for their shards


class Contended:
    """Conflicts of the last second by account."""

    def __init__(self) -> None:
        self._conflicts: OrderedDict[UUID, tuple[int, int]] = OrderedDict()
        self._hot: dict[UUID, int] = {}

    def compare(self, lost: Mapping[UUID, int], loaded: Loaded, unix_s: UnixS) -> None:
        """Compares what is true now with the versions of a write that failed (versions_of): accounts that have moved
        caused the conflict."""
        for account_id, version in lost.items():
            state = loaded.accounts.get(account_id)
            if state is None:
                continue
            count = shards_of(state.account)
            now = state.version
            if count > 1:
                now = sum(row.version for (scope, _), row in loaded.counters.items() if scope == account_id)
            if now != version:
                self._count(account_id, count, int(unix_s))

    def _count(self, account_id: UUID, shards: int, second: int) -> None:
        since, conflicts = self._conflicts.pop(account_id, (second, 0))
        conflicts = conflicts + 1 if since == second else 1
        self._conflicts[account_id] = second, conflicts
        if len(self._conflicts) > KNOWN_MAX:
            self._conflicts.popitem(last=False)
        if conflicts >= CONFLICTS_PER_S and len(self._hot) < HOT_MAX:
            self._hot[account_id] = shards

    def take(self) -> dict[UUID, int]:
        """Accounts with too many conflicts since the last call, with the number of shards that each has (1: none)."""
        hot, self._hot = self._hot, {}
        return hot


def versions_of(changes: Changes) -> dict[UUID, int]:
    """The versions that a write was based on: of accounts, and of their shards summed up."""
    versions = dict(changes.versions)
    for (scope, _), counter in changes.counters.items():
        if scope in changes.own_shards:
            versions[scope] = versions.get(scope, 0) + counter.version
    return versions
