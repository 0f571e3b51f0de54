"""What rate-guard needs of the world, in its own words; tests/test_rate_guard_bans.py is the contract of Bans."""

from typing import Protocol

from callwarden.rate_guard.core.bans import Ban


class Bans(Protocol):
    """Where bans are kept, for all members and all edges. All methods raise Unavailable if it can't be reached."""

    async def put(self, ban: Ban) -> None:
        """Keeps the ban in place of any other on its target; it goes by itself at its end."""
        ...

    async def get(self, target: str) -> Ban | None:
        """The ban on exactly this target."""
        ...

    async def delete(self, target: str) -> None:
        """Removes it. No error if there is none."""
        ...


class Events(Protocol):
    """Where bans are told to who keeps records and sends notices. Doesn't block; what can't be told now waits."""

    def banned(self, ban: Ban) -> None: ...

    def unbanned(self, ban: Ban) -> None:
        """Also tells the owner of the address's counters to begin anew."""
        ...


class Snapshots(Protocol):
    """Where the counters of each shard are kept for whoever owns it next. Raises Unavailable if it can't be reached."""

    async def put(self, shard: int, data: bytes) -> None:
        """Keeps the data in place of what was there, for a day."""
        ...

    async def get(self, shard: int) -> bytes | None:
        """What was put last."""
        ...
