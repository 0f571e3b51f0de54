"""Bans from NATS KV into the screen: enforced by every edge within a second of being made or lifted.

A ban lasts as long as the bucket has it, which drops it when it ends. In case that NATS is away then, the edge ends it
when the time that it was made for has passed since the edge heard of it. When the edge's wall clock says that it ends
is not looked at: where that is ahead, no ban would ever be enforced.
"""

import asyncio
from ipaddress import IPv6Network

from google.protobuf.message import DecodeError

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Deleted, KeyValue, Put, Synced, parts_of
from callwarden.common.logs import get_logger
from callwarden.edge_proxy.core.counters import EdgeCounters
from callwarden.edge_proxy.core.source_filter import SourceFilter
from callwarden.kernel.clock import Clock
from callwarden.sip.address import parse_address

log = get_logger(__name__)


class BansNats:
    """Follows the bucket."""

    def __init__(self, bucket: KeyValue, source_filter: SourceFilter, counters: EdgeCounters, clock: Clock) -> None:
        self._bucket = bucket
        self._source_filter = source_filter
        self._counters = counters
        self._clock = clock
        self.synced = asyncio.Event()

    async def follow(self) -> None:
        """For ever."""
        async for change in self._bucket.watch():
            match change:
                case Put(key, value, _):
                    try:
                        ban = events_pb2.Ban.FromString(value)
                        address = ban.address or parts_of(key)[0]
                        host, port = _parse(address)
                    except (DecodeError, ValueError) as error:
                        log.warning("ban.unreadable", error=error)
                        continue
                    lasts_s = max(ban.until_s - ban.since_s, 0.0)
                    until_mono_s = self._clock.mono_s() + lasts_s if ban.until_s else 0.0
                    self._source_filter.ban(host, port, until_mono_s)
                    log.info("ban.applied", address=address, reason=ban.reason, until_s=ban.until_s)
                case Deleted(key, _):
                    try:
                        (address,) = parts_of(key)
                        host, port = _parse(address)
                    except ValueError:
                        continue
                    self._source_filter.unban(host, port)
                    if port is None:
                        self._counters.forget(host)
                    log.info("ban.lifted", address=address)
                case Synced():
                    self.synced.set()


def _parse(target: str) -> tuple[str, int | None]:
    """Host and port of a ban: "192.0.2.7", "2001:db8:1:2::/64", "[2001:db8::1]:5060". Raises ValueError."""
    return (str(IPv6Network(target)), None) if "/" in target else parse_address(target)
