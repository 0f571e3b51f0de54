"""Events: that an account has changed, out."""

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.admission.adapters.events_nats import ACCOUNT_CHANGED
from callwarden.common.bus import Publisher

NUMBERS_MAX: Final = 1_000  # named in an event, 20 KB; of more, all are read again


class NatsAccountEvents:
    """Implements ports.AccountEvents."""

    def __init__(self, publisher: Publisher, new_id: Callable[[], UUID]) -> None:
        self._publisher = publisher
        self._new_id = new_id

    def account_changed(self, account_id: UUID, what: str, realm: str, numbers: Sequence[str] = ()) -> None:
        named = numbers if len(numbers) <= NUMBERS_MAX else ()
        event = events_pb2.AccountChanged(account_id=str(account_id), what=what, realm=realm, numbers=named)
        self._publisher.publish(ACCOUNT_CHANGED, event.SerializeToString(), message_id=str(self._new_id()))
