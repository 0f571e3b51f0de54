"""Bans in memory, for tests. The same contract suite runs over it and over NATS."""

from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import Unavailable
from callwarden.rate_guard.core.bans import Ban


class MemoryBanStore:
    """ports.BanStore. `down` makes it unavailable."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.kept: dict[str, Ban] = {}
        self.down = False

    async def put(self, ban: Ban) -> None:
        self._check_up()
        self.kept[ban.target] = ban

    async def get(self, target: str) -> Ban | None:
        self._check_up()
        ban = self.kept.get(target)
        return ban if ban is not None and ban.is_active_at(self._clock.unix_s()) else None

    async def delete(self, target: str) -> None:
        self._check_up()
        self.kept.pop(target, None)

    def _check_up(self) -> None:
        if self.down:
            raise Unavailable("NATS is not available")
