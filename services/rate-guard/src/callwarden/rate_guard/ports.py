"""What rate-guard needs of the outside world. tests/test_rate_guard_bans.py is the contract suite of Bans."""

from typing import Protocol

from callwarden.rate_guard.core.bans import Ban


class BanStore(Protocol):
    """Keeps the bans of all members for all edges. Every method raises Unavailable if the store can't be reached."""

    async def put(self, ban: Ban) -> None:
        """Stores the ban, replacing any other on its target. The store removes it when it ends."""
        ...

    async def get(self, target: str) -> Ban | None:
        """The ban on exactly this target."""
        ...

    async def delete(self, target: str) -> None:
        """Removes it. No error if there is none."""
        ...


class BanEventPublisher(Protocol):
    """Publishes bans for records and notifications. Doesn't block; events wait while the bus is unavailable."""

    def banned(self, ban: Ban) -> None: ...

    def unbanned(self, ban: Ban) -> None:
        """Also has the owner of the address's counters reset them."""
        ...


class SnapshotStore(Protocol):
    """Keeps the counters of each shard for its next owner. Raises Unavailable if the store can't be reached."""

    async def put(self, shard: int, data: bytes) -> None:
        """Stores the data for a day, replacing what was there."""
        ...

    async def get(self, shard: int) -> bytes | None:
        """What was put last."""
        ...
