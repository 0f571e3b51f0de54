"""How a shard that is short of room gets some from the other shards of its scope, within one transaction.

Out: the arithmetic (callwarden.limits.shards), which rules are short (rules.counted_limit).
"""

from collections.abc import Iterable, MutableMapping
from typing import Final
from uuid import UUID

from callwarden.call_admission.admission.core.rules.rule import ShardDemand
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.admission.core.state import CounterKey, CounterRow
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.call_admission.model.usage_shards import merged
from callwarden.kernel.clock import UnixS
from callwarden.limits.shards import Shard, shared

# How often a call is decided again with more room from other shards: once to share out a limit, once to lend.
SHARES_MAX: Final = 4


class Sharing:
    """One for each attempt at a transaction. `missing` and `touched` are the transaction's: rows that have to be read,
    and rows that change."""

    __slots__ = ("_counters", "_missing", "_own_shards", "_touched", "_unix_s")

    def __init__(
        self,
        counters: MutableMapping[CounterKey, CounterRow],
        unix_s: UnixS,
        missing: set[CounterKey],
        touched: MutableMapping[CounterKey, CounterRow],
        own_shards: set[UUID],
    ) -> None:
        self._counters = counters
        self._unix_s = unix_s
        self._missing = missing
        self._touched = touched
        self._own_shards = own_shards

    def share(self, demands: Iterable[ShardDemand], snapshot: Snapshot) -> bool:
        """Moves room from other shards to those that are short; whether there is more of it now, or more is known.

        Shards that haven't been read are added to `missing`.
        """
        has_more = False
        for demand in demands:
            view = snapshot.counted[demand.owner]
            shard = view.shard
            assert shard is not None, "only of a shard more is asked for"
            keys = [(view.key, index) for index in range(shard.count)]
            rows = [row for key in keys if (row := self._counters.get(key)) is not None]
            if len(rows) < len(keys):
                self._missing.update(keys)
                continue
            before = [Shard(shard.count, index, row.grants) for index, row in enumerate(rows)]
            if view.total is None:
                has_more = True  # Nothing may be lent, but a refusal then shows the numbers of the whole scope.
            used = [row.usage.used(demand.quantity, self._unix_s) for row in rows]
            after = shared(before, demand.quantity, demand.limit, used, shard.index, demand.needed)
            view.total = merged([row.usage for row in rows])
            for key, row, old, new in zip(keys, rows, before, after, strict=True):
                if old.grants == new.grants:
                    continue
                row.grants = new.grants
                self._touched[key] = row
                if demand.owner == ACCOUNT:
                    self._own_shards.add(view.key)
                if key[1] == shard.index:
                    has_more = True
                    view.shard = new
        return has_more
