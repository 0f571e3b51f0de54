"""NATS: notifications of changed decks, routes and carriers, both ways, and events for unbilled calls.

Notifications are plain messages that may be lost: the next comparison with the database finds the change. Events go
through JetStream.
"""

from typing import Any, Final
from uuid import uuid4

from google.protobuf.message import DecodeError

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bus, Publisher
from callwarden.common.logs import get_logger
from callwarden.kernel.errors import CallwardenError
from callwarden.rating.app.rating import Rating
from callwarden.rating.core.unbilled import Unbilled, UnbilledSeverity

log = get_logger(__name__)

CHANGED: Final = "rating.changed"
ACCOUNT_CHANGED: Final = "security.account_changed"
UNBILLED: Final = "security.unbilled"
# Changes of an account that affect routes: a trunk's address, a disabled account.
_MOVES_ROUTES: Final = frozenset({"trunk", "status"})
_SEVERITIES: Final = {
    UnbilledSeverity.LOW: events_pb2.Unbilled.LOW,
    UnbilledSeverity.ERROR: events_pb2.Unbilled.ERROR,
    UnbilledSeverity.CRITICAL: events_pb2.Unbilled.CRITICAL,
}


class NatsDeckNotifier:
    """ports.DeckNotifier."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def changed(self, deck: str, version: int) -> None:
        event = events_pb2.DeckChanged(deck=deck, version=version)
        try:
            await self._bus.publish(CHANGED, event.SerializeToString())
        except CallwardenError as error:
            log.warning("rating.change_not_announced", error=error, deck=deck)


class NatsUnbilledEventPublisher:
    """ports.UnbilledEventPublisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def unbilled(self, event: Unbilled) -> None:
        message = events_pb2.Unbilled(
            deck=event.deck,
            prefix=event.prefix,
            at_s=event.at_s,
            severity=_SEVERITIES[event.severity],
            count=event.count,
            text=event.text,
        )
        try:
            self._publisher.publish(UNBILLED, message.SerializeToString(), message_id=str(uuid4()))
        except CallwardenError as error:  # NATS is unavailable and the queue is full; the log has the event.
            log.warning("rating.event_lost", error=error, subject=UNBILLED)


async def follow(bus: Bus, app: Rating) -> None:
    """Notify the app of changes from now on, and after each reconnect: notifications in between were lost."""

    async def deck_changed(_: Any) -> None:
        app.changed()

    async def account_changed(message: Any) -> None:
        try:
            event = events_pb2.AccountChanged.FromString(message.data)
        except DecodeError:
            log.warning("bus.bad_event", subject=ACCOUNT_CHANGED)
            return
        if event.what in _MOVES_ROUTES:
            app.changed()

    async def reconnected() -> None:
        app.changed()

    await bus.subscribe(CHANGED, deck_changed)
    await bus.subscribe(ACCOUNT_CHANGED, account_changed)
    bus.on_reconnect(reconnected)
