"""News over NATS, both ways: that decks or routes changed, and that carriers did.

Plain messages that may be lost: what was lost is found at the next comparison with the database.
"""

from typing import Any, Final

from google.protobuf.message import DecodeError

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bus
from callwarden.common.logs import get_logger
from callwarden.kernel.errors import CallwardenError
from callwarden.rating.app import Rating

log = get_logger(__name__)

CHANGED: Final = "rating.changed"
ACCOUNT_CHANGED: Final = "security.account_changed"
# Of an account's changes, those that move routes: a trunk's address, an account that was disabled.
_MOVES_ROUTES: Final = frozenset({"trunk", "status"})


class NatsAnnouncer:
    """ports.Announcer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def changed(self, deck: str, version: int) -> None:
        event = events_pb2.DeckChanged(deck=deck, version=version)
        try:
            await self._bus.publish(CHANGED, event.SerializeToString())
        except CallwardenError as error:
            log.warning("rating.change_not_announced", error=error, deck=deck)


async def follow(bus: Bus, app: Rating) -> None:
    """Have the app told from now on, and also when NATS is back: what was said meanwhile wasn't heard."""

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

    async def back() -> None:
        app.changed()

    await bus.subscribe(CHANGED, deck_changed)
    await bus.subscribe(ACCOUNT_CHANGED, account_changed)
    bus.on_reconnect(back)
