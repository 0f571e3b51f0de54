"""Number lists over NATS: that one has changed and how calls ended (plain messages, which may be lost), and what is
listed for a time (the bucket `listed`, from which a number is gone by itself)."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg

from callwarden.api.admission.v1 import lists_pb2
from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.lists.adapters.lists_grpc import listed_message
from callwarden.call_admission.lists.app.call_watch import CallWatch
from callwarden.call_admission.lists.app.number_lists import NumberLists
from callwarden.call_admission.lists.core.call_stats import CallCount, NumberStats, StatsKey
from callwarden.call_admission.model.lists import RESERVED, Listed, ListSide
from callwarden.common.bus import Bus, Deleted, KeyValue, Put
from callwarden.common.bus.keys import key_of
from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict

log = get_logger(__name__)

CHANGED: Final = "lists.changed"
COUNTED: Final = "lists.counted"
COUNTS_A_MESSAGE: Final = 1_000  # 150 bytes each, at most twice that
TTL_S_MIN: Final = 1.0  # The shortest that NATS knows.


class NatsListPublisher:
    """lists.ports.ListNews."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def changed(self, name: str, version: int) -> None:
        try:
            await self._bus.publish(CHANGED, events_pb2.ListChanged(list=name, version=version).SerializeToString())
        except CallwardenError as error:
            log.warning("lists.change_not_announced", error=error, list=name)


async def follow_changes(bus: Bus, lists: NumberLists) -> None:
    """Has the lists told from now on, and also when NATS is back: what was said meanwhile wasn't heard."""

    async def changed(_: Any) -> None:
        lists.changed()

    async def back() -> None:
        lists.changed()

    await bus.subscribe(CHANGED, changed)
    bus.on_reconnect(back)


class NatsCountPublisher:
    """lists.ports.CountNews. `instance`: who we are, so that we don't hear ourselves."""

    def __init__(self, bus: Bus, instance: str) -> None:
        self._bus = bus
        self._instance = instance

    async def counted(self, counts: Sequence[CallCount]) -> None:
        for start in range(0, len(counts), COUNTS_A_MESSAGE):
            message = events_pb2.CallsCounted(
                instance=self._instance, counts=map(_count_message, counts[start : start + COUNTS_A_MESSAGE])
            )
            try:
                await self._bus.publish(COUNTED, message.SerializeToString())
            except CallwardenError as error:
                log.warning("lists.counts_not_told", error=error, counts=len(message.counts))


async def follow_counts(bus: Bus, instance: str, watch: CallWatch) -> None:
    """Has the watch told from now on what other processes count."""

    async def counted(message: Msg) -> None:
        event = events_pb2.CallsCounted.FromString(message.data)
        if event.instance != instance:
            await watch.add([_count(one) for one in event.counts])

    await bus.subscribe(COUNTED, counted)


def _count_message(count: CallCount) -> events_pb2.NumberCount:
    key, tally = count.key, count.tally
    return events_pb2.NumberCount(
        realm=count.realm,
        account_id=str(key.account_id),
        number=key.number,
        calling=key.calling,
        calls=tally.calls,
        answered=tally.answered,
        short=tally.short,
        talk_ms=tally.talk_ms,
        failures=tally.failures,
        fresh=tally.fresh,
        attacks=tally.attacks,
        source=key.source,
    )


def _count(message: events_pb2.NumberCount) -> CallCount:
    tally = NumberStats(
        message.calls,
        message.answered,
        message.short,
        message.talk_ms,
        message.failures,
        message.fresh,
        message.attacks,
    )
    key = StatsKey(UUID(message.account_id), message.number, message.calling, message.source)
    return CallCount(message.realm, key, tally)


class NatsListed:
    """lists.ports.ListedStore. The key is that of what is listed, the value an admission.v1.ListedNumber."""

    def __init__(self, kv: KeyValue, clock: Clock) -> None:
        self._kv = kv
        self._clock = clock

    async def put(self, listed: Listed) -> bool:
        ttl_s = max(TTL_S_MIN, listed.until_s - self._clock.unix_s())
        try:
            await self._kv.put(key_of(*listed.key), listed_message(listed).SerializeToString(), ttl_s=ttl_s, revision=0)
        except Conflict:
            return False
        return True

    async def delete(self, listed: Listed) -> None:
        await self._kv.delete(key_of(*listed.key))

    async def all(self) -> Sequence[Listed]:
        found = [_read(entry) for entry in (await self._kv.items()).values()]
        return [listed for listed in found if listed is not None]


async def follow_listed(kv: KeyValue, lists: NumberLists, gone: Callable[[Listed], None]) -> None:
    """Passes on to the lists what is listed, and to `gone` what no longer is. Runs until it is cancelled."""
    known: dict[str, Listed] = {}
    async for change in kv.watch():
        match change:
            case Put():
                listed = _read(change)
                if listed is not None and lists.listings.put(listed):
                    known[change.key] = listed
            case Deleted(key=key):
                was = known.pop(key, None)
                if was is not None:
                    lists.listings.remove(was)
                    gone(was)


def _read(entry: Put) -> Listed | None:
    try:
        message = lists_pb2.ListedNumber.FromString(entry.value)
        account_id = UUID(message.account_id) if message.account_id else None
        side = ListSide(message.side)
        if message.list not in RESERVED or not math.isfinite(message.until_s):
            raise ValueError("not one of our lists")
    except (DecodeError, ValueError):
        log.warning("listed.unreadable", key=entry.key)
        return None
    return Listed(
        message.list,
        message.realm,
        side,
        message.number,
        account_id,
        message.reason,
        message.evidence,
        message.since_s,
        message.until_s,
    )
