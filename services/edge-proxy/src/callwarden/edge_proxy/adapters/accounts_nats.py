"""Account changes that other services report over NATS, as far as they concern the edge."""

from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bus

SUBJECT: Final = "security.account_changed"
CONCERNS_SOURCES: Final = ("trunk", "status")


async def follow(bus: Bus, forget_sources: Callable[[], None]) -> None:
    """Calls `forget_sources` whenever a trunk or the status of an account has changed."""

    async def account_changed(message: Msg) -> None:
        if events_pb2.AccountChanged.FromString(message.data).what in CONCERNS_SOURCES:
            forget_sources()

    await bus.subscribe(SUBJECT, account_changed)
