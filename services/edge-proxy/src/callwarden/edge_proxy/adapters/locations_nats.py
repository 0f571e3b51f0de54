"""Locations in NATS KV: what this edge registers goes there, what others register comes from there.

See `ports.Directory`. A location is stored whole, so what counts is the order of writes to one user: one at a time, the
newest next, and what the watch reports of a user meanwhile waits for the revision of our own write.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Deleted, KeyValue, Put, Synced, key_of, parts_of
from callwarden.common.logs import get_logger
from callwarden.edge_proxy.core.effects import StoreLocation
from callwarden.edge_proxy.core.locations import Binding, Key, Location
from callwarden.kernel.errors import CallwardenError, Unavailable
from callwarden.sip.address import SocketAddress

log = get_logger(__name__)

WRITES_MAX: Final = 64  # At once; a restarted office registers a thousand phones.
RETRY_S: Final = 0.5
TTL_MARGIN_S: Final = 5.0


class LocationsNats:
    """Writes and follows the bucket."""

    def __init__(self, bucket: KeyValue, put: Callable[[Location], None], remove: Callable[[Key], None]) -> None:
        """`put` and `remove` change the table in memory."""
        self._bucket = bucket
        self._put, self._remove = put, remove
        self._wanted: dict[Key, StoreLocation] = {}  # newest change of each user that is not stored yet
        self._writing: set[Key] = set()
        self._revisions: dict[Key, int] = {}
        self._late: dict[Key, Put | Deleted] = {}  # reported by the watch while we wrote
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.synced = asyncio.Event()

    def store(self, change: StoreLocation) -> None:
        self._wanted[change.location.key] = change
        self._wake.set()

    async def write(self) -> None:
        """Store what is wanted; for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for key in [key for key in self._wanted if key not in self._writing]:
                if len(self._writing) >= WRITES_MAX:
                    break
                self._writing.add(key)
                task = asyncio.create_task(self._write_one(key, self._wanted.pop(key)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _write_one(self, key: Key, change: StoreLocation) -> None:
        try:
            name = key_of(*key)
            if change.location.bindings:
                value = _encode(change.location).SerializeToString()
                revision = await self._bucket.put(name, value, ttl_s=change.expires_s + TTL_MARGIN_S)
            else:
                await self._bucket.delete(name)
                revision = 0
            self._revisions[key] = revision
        except Unavailable:
            self._wanted.setdefault(key, change)  # unless there is a newer one
            await asyncio.sleep(RETRY_S)
        except CallwardenError as error:
            log.error("location.not_stored", error=error)
        finally:
            self._writing.discard(key)
            late = self._late.pop(key, None)
            if late is not None:
                self._follow_one(key, late)
            self._wake.set()

    async def follow(self) -> None:
        """Keep the table as the bucket is; for ever."""
        async for change in self._bucket.watch():
            if isinstance(change, Synced):
                self.synced.set()
                continue
            try:
                realm, username = parts_of(change.key)
            except ValueError:
                continue  # nothing of ours
            self._follow_one((realm, username), change)

    def _follow_one(self, key: Key, change: Put | Deleted) -> None:
        if key in self._writing or key in self._wanted:
            self._late[key] = change
            return
        if isinstance(change, Deleted):
            self._revisions.pop(key, None)
            self._remove(key)
            return
        if change.revision <= self._revisions.get(key, 0):
            return  # ours, or older
        self._revisions[key] = change.revision
        try:
            self._put(_decode(events_pb2.Location.FromString(change.value)))
        except (DecodeError, ValueError) as error:
            log.warning("location.unreadable", error=error)


def _encode(location: Location) -> events_pb2.Location:
    return events_pb2.Location(
        username=location.username,
        realm=location.realm,
        contacts=[
            events_pb2.Contact(
                uri=binding.uri,
                received=f"{binding.received.host} {binding.received.port}",
                expires_at_s=binding.expires_s,
                call_id=binding.call_id,
                cseq=binding.cseq,
                instance_id=binding.instance_id,
                user_agent=binding.user_agent,
                account_id=binding.account_id,
                q_thousandths=None if binding.q is None else round(binding.q * 1_000),
            )
            for binding in location.bindings
        ],
    )


def _decode(value: events_pb2.Location) -> Location:
    """Raises ValueError."""
    bindings = []
    for contact in value.contacts:
        host, _, port = contact.received.partition(" ")
        bindings.append(
            Binding(
                uri=contact.uri,
                received=SocketAddress(host, int(port)),
                expires_s=contact.expires_at_s,
                call_id=contact.call_id,
                cseq=contact.cseq,
                account_id=contact.account_id,
                instance_id=contact.instance_id,
                user_agent=contact.user_agent,
                q=contact.q_thousandths / 1_000 if contact.HasField("q_thousandths") else None,
            )
        )
    return Location(value.realm, value.username, tuple(bindings))
