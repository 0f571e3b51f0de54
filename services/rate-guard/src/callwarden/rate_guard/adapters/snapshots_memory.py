"""Snapshots in memory, for tests. The same contract suite runs over it and over NATS."""

from callwarden.kernel.errors import Unavailable


class MemorySnapshotStore:
    """ports.SnapshotStore. `down` makes it unavailable."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}
        self.down = False

    async def put(self, shard: int, data: bytes) -> None:
        self._check_up()
        self.kept[shard] = data

    async def get(self, shard: int) -> bytes | None:
        self._check_up()
        return self.kept.get(shard)

    def _check_up(self) -> None:
        if self.down:
            raise Unavailable("NATS is not available")
