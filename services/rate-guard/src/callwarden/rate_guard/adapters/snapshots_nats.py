"""Snapshots of counters in the NATS bucket `counters`, one key a shard."""

from typing import Final

from callwarden.common.bus import KeyValue
from callwarden.rate_guard.core.counters import KNOWN_TTL_S

PREFIX: Final = "rate-guard"


class NatsSnapshotStore:
    """ports.SnapshotStore."""

    def __init__(self, kv: KeyValue) -> None:
        self._kv = kv

    async def put(self, shard: int, data: bytes) -> None:
        await self._kv.put(f"{PREFIX}.{shard}", data, ttl_s=KNOWN_TTL_S)

    async def get(self, shard: int) -> bytes | None:
        found = await self._kv.get(f"{PREFIX}.{shard}")
        return None if found is None else found.value
