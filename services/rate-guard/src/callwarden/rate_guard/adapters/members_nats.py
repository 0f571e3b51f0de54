"""The members that share the counting, in the NATS bucket `members`: each renews its entry every second, and is gone
when it stops.
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
TTL_S: Final = 3.0  # Two heartbeats may be lost. After this, others own a dead member's addresses.


def key_of_member(instance: str) -> str:
    """Instances have no dots (callwarden.common.settings)."""
    return f"{SERVICE}.{instance}"


@asynccontextmanager
async def membership(kv: KeyValue, member: events_pb2.Member) -> AsyncIterator[None]:
    """Keeps the member registered inside the block; the others notice at once when it ends."""
    task = asyncio.create_task(beat(kv, member), name="heartbeat")
    try:
        yield
    finally:
        task.cancel()
        try:
            await kv.delete(key_of_member(member.instance))
        except CallwardenError as error:  # Then they notice after TTL_S.
            log.debug("member.not_removed", error=repr(error))


async def beat(kv: KeyValue, member: events_pb2.Member) -> None:
    """Renews the member's entry. Runs until it is cancelled."""
    while True:
        try:
            await kv.put(key_of_member(member.instance), member.SerializeToString(), ttl_s=TTL_S)
        except CallwardenError as error:  # NATS is unavailable: the edges keep the members they know.
            log.debug("member.not_put", error=repr(error))
        await asyncio.sleep(EVERY_S)


async def follow_members(kv: KeyValue, app: RateGuard) -> None:
    """Reports the members to the app. Runs until it is cancelled."""
    members: set[str] = set()
    is_whole = False  # The initial entries arrive one by one; acting on each would move shards about.
    async for change in kv.watch(f"{SERVICE}.*"):
        match change:
            case Put(key=key):
                members.add(key.removeprefix(f"{SERVICE}."))
            case Deleted(key=key):
                members.discard(key.removeprefix(f"{SERVICE}."))
            case Synced():
                is_whole = True
        if is_whole:
            app.set_members(members)
