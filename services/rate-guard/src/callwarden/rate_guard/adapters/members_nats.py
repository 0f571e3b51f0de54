"""The members that share the counting, in the NATS bucket `members`: each puts itself there again and again, and is
gone when it stops doing so.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Deleted, KeyValue, Put, Synced
from callwarden.common.logs import get_logger
from callwarden.kernel.errors import CallwardenError
from callwarden.rate_guard.app import RateGuard

log = get_logger(__name__)

SERVICE: Final = "rate-guard"
EVERY_S: Final = 1.0
TTL_S: Final = 3.0  # Two heartbeats may be lost. A dead member's addresses are counted anew by others after this.


def key_of_member(instance: str) -> str:
    """Instances have no dots (callwarden.common.settings)."""
    return f"{SERVICE}.{instance}"


@asynccontextmanager
async def membership(kv: KeyValue, member: events_pb2.Member) -> AsyncIterator[None]:
    """A member while inside; the others know at once when it ends."""
    task = asyncio.create_task(beat(kv, member), name="heartbeat")
    try:
        yield
    finally:
        task.cancel()
        try:
            await kv.delete(key_of_member(member.instance))
        except CallwardenError as error:  # Then they know after TTL_S.
            log.debug("member.not_removed", error=repr(error))


async def beat(kv: KeyValue, member: events_pb2.Member) -> None:
    """Says again and again that the member lives. Runs until it is cancelled."""
    while True:
        try:
            await kv.put(key_of_member(member.instance), member.SerializeToString(), ttl_s=TTL_S)
        except CallwardenError as error:  # NATS is away: the edges keep the members they know.
            log.debug("member.not_put", error=repr(error))
        await asyncio.sleep(EVERY_S)


async def follow_members(kv: KeyValue, app: RateGuard) -> None:
    """Tells the app who the members are. Runs until it is cancelled."""
    members: set[str] = set()
    is_whole = False  # What stands there at first comes member by member; acting on each would move shards about.
    async for change in kv.watch(f"{SERVICE}.*"):
        match change:
            case Put(key=key):
                members.add(key.removeprefix(f"{SERVICE}."))
            case Deleted(key=key):
                members.discard(key.removeprefix(f"{SERVICE}."))
            case Synced():
                is_whole = True
        if is_whole:
            app.members_are(members)
