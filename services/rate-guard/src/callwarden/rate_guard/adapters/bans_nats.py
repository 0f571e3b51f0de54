"""Bans in NATS: kept in the bucket `bans`, published as events."""

from typing import Final
from uuid import uuid4

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bus, Deleted, KeyValue, Publisher, Put
from callwarden.common.bus.keys import key_of, parts_of
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError
from callwarden.rate_guard.app import RateGuard
from callwarden.rate_guard.core.bans import PERMANENT, Ban, By

log = get_logger(__name__)

BANNED: Final = "security.banned"
UNBANNED: Final = "security.unbanned"
TTL_S_MIN: Final = 1.0  # The shortest that NATS accepts.


class NatsBanStore:
    """ports.BanStore. The key is that of the target, the value an events.v1.Ban."""

    def __init__(self, kv: KeyValue, clock: Clock) -> None:
        self._kv = kv
        self._clock = clock

    async def put(self, ban: Ban) -> None:
        ttl_s = 0.0 if ban.until_s == PERMANENT else max(TTL_S_MIN, ban.until_s - self._clock.unix_s())
        await self._kv.put(key_of(ban.target), to_message(ban).SerializeToString(), ttl_s=ttl_s)

    async def get(self, target: str) -> Ban | None:
        found = await self._kv.get(key_of(target))
        return None if found is None else _read(found)

    async def delete(self, target: str) -> None:
        await self._kv.delete(key_of(target))


class NatsBanEventPublisher:
    """ports.BanEventPublisher: through JetStream, which keeps them; other members receive them as plain messages."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def banned(self, ban: Ban) -> None:
        self._publish(BANNED, ban)

    def unbanned(self, ban: Ban) -> None:
        self._publish(UNBANNED, ban)

    def _publish(self, subject: str, ban: Ban) -> None:
        try:
            self._publisher.publish(subject, to_message(ban).SerializeToString(), message_id=str(uuid4()))
        except CallwardenError as error:  # The record is lost; the ban itself is in the bucket.
            log.warning("ban.not_published", error=error, target=ban.target)


async def follow_bans(kv: KeyValue, app: RateGuard) -> None:
    """Reports the bans in the bucket to the app. Runs until it is cancelled."""
    async for change in kv.watch():
        match change:
            case Put():
                ban = _read(change)
                if ban is not None:
                    app.ban_stored(ban)
            case Deleted(key=key):
                try:
                    (target,) = parts_of(key)
                except ValueError:
                    continue
                app.ban_removed(target)


async def follow_unbans(bus: Bus, app: RateGuard) -> None:
    """Reports lifted bans to the app from now on."""

    async def heard(message: Msg) -> None:
        app.unban_reported(events_pb2.Ban.FromString(message.data).address)

    await bus.subscribe(UNBANNED, heard)


def to_message(ban: Ban) -> events_pb2.Ban:
    return events_pb2.Ban(
        address=ban.target,
        reason=ban.reason,
        evidence=ban.evidence,
        since_s=ban.since_s,
        until_s=ban.until_s,
        by=ban.by,
    )


def _read(entry: Put) -> Ban | None:
    try:
        message = events_pb2.Ban.FromString(entry.value)
    except DecodeError:
        log.warning("ban.unreadable", key=entry.key)
        return None
    by: By = "operator" if message.by == "operator" else "counter"
    return Ban(message.address, message.reason, message.evidence, message.since_s, message.until_s, by)
