"""What edges tell each other of calls, as plain NATS messages: an ACK, an end or a new address that came by an edge
which doesn't watch the call. See `ports.OtherEdges`.
"""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bus
from callwarden.common.logs import get_logger
from callwarden.edge_proxy.core.effects import CallNews, NewsKind
from callwarden.kernel.errors import CallwardenError
from callwarden.sip.address import SocketAddress, endpoint

log = get_logger(__name__)

SUBJECT: Final = "edges.news"
TELLING_MAX: Final = 1_000  # At once; more are lost, as they are while NATS is away for long.


class NewsNats:
    """Publishes and hears."""

    def __init__(self, bus: Bus, edge: str, heard: Callable[[CallNews], None]) -> None:
        self._bus = bus
        self._edge = edge
        self._heard = heard
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_heard(self) -> bool:
        return self._bus.connected

    def publish(self, news: CallNews) -> None:
        if len(self._tasks) >= TELLING_MAX:
            return
        address = "" if news.address is None else f"{news.address.host} {news.address.port}"
        message = events_pb2.CallNews(
            hold_id=str(news.hold_id),
            kind=news.kind.value,
            from_caller=news.from_caller,
            address=address,
            edge=self._edge,
            session_s=news.session_s,
            age_s=news.age_s,
        )
        task = asyncio.create_task(self._publish(message.SerializeToString()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, payload: bytes) -> None:
        try:
            await self._bus.publish(SUBJECT, payload)
        except CallwardenError as error:
            log.debug("news.not_told", error=repr(error))

    async def follow(self) -> None:
        """Hear of the others from now on."""

        async def arrived(message: Msg) -> None:
            try:
                news = events_pb2.CallNews.FromString(message.data)
                if news.edge != self._edge:
                    self._heard(_decode(news))
            except (DecodeError, ValueError) as error:
                log.warning("news.unreadable", error=error)

        await self._bus.subscribe(SUBJECT, arrived)


def _decode(news: events_pb2.CallNews) -> CallNews:
    """Raises ValueError."""
    address = None
    if news.address:
        host, _, port = news.address.partition(" ")
        found = endpoint(host, int(port))
        if not isinstance(found, SocketAddress):
            raise ValueError("a side is never known by name")
        address = found
    return CallNews(UUID(news.hold_id), NewsKind(news.kind), news.from_caller, address, news.session_s, news.age_s)
