"""Events: that an account has changed, out."""

from collections.abc import Callable
from uuid import UUID

from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.admission.adapters.events_nats import ACCOUNT_CHANGED
from callwarden.common.bus import Publisher


class NatsAccountEvents:
    """Implements ports.AccountEvents."""

    def __init__(self, publisher: Publisher, new_id: Callable[[], UUID]) -> None:
        self._publisher = publisher
        self._new_id = new_id

    def account_changed(self, account_id: UUID, what: str, realm: str) -> None:
        event = events_pb2.AccountChanged(account_id=str(account_id), what=what, realm=realm)
        self._publisher.publish(ACCOUNT_CHANGED, event.SerializeToString(), message_id=str(self._new_id()))
