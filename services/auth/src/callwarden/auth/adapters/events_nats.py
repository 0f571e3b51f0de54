"""Account changes over NATS: published through JetStream, received as plain messages."""

from typing import Any, Final, get_args
from uuid import uuid4

from nats.aio.msg import Msg

from callwarden.api.events.v1 import events_pb2
from callwarden.auth.app import Auth
from callwarden.auth.core.users import UserKey
from callwarden.auth.ports import AuthAccountChange
from callwarden.common.bus import Bus, Publisher
from callwarden.common.logs import get_logger

log = get_logger(__name__)

SUBJECT: Final = "security.account_changed"
_WHATS: Final = frozenset(get_args(AuthAccountChange.__dataclass_fields__["what"].type))


class NatsAccountEventPublisher:
    """ports.AccountEventPublisher: an event waits in memory while NATS is unavailable."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def account_changed(self, change: AuthAccountChange) -> None:
        event = events_pb2.AccountChanged(account_id=change.account_id, what=change.what)
        if change.user is not None:
            event.realm, event.username = change.user
        self._publisher.publish(SUBJECT, event.SerializeToString(), message_id=str(uuid4()))


async def follow(bus: Bus, app: Auth) -> None:
    """Has the app forget what changes from now on. Events are lost while we are not connected, so the app forgets
    everything after each reconnect."""

    async def changed(message: Msg) -> None:
        event = events_pb2.AccountChanged.FromString(message.data)
        user = UserKey(event.realm, event.username) if event.username else None
        what: Any = event.what if event.what in _WHATS else "status"  # Of a newer release: forget all of it.
        app.account_changed(AuthAccountChange(event.account_id, what, user, tuple(event.numbers)))

    async def reconnected() -> None:
        app.forget_all()

    await bus.subscribe(SUBJECT, changed)
    bus.on_reconnect(reconnected)
    app.forget_all()  # What was looked up before we subscribed.
