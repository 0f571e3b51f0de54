"""What the tests of the bus share."""

import asyncio

from callwarden.common.bus import Bus, Delivery, Stream
from callwarden.testing.consumed import consumed
from callwarden.testing.waiting import eventually


async def messages_in(bus: Bus, stream: Stream) -> int:
    return int((await bus.jetstream.stream_info(stream.value)).state.messages)


async def nothing_left(bus: Bus) -> bool:
    return await consumed(bus, Stream.CALLS, "settle")


class Received:
    """What a consumer handled, and when there was enough of it."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self._more = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self._more.set()

    async def ids(self, count: int) -> list[str]:
        while len(self.deliveries) < count:
            self._more.clear()
            await self._more.wait()
        return [delivery.message_id for delivery in self.deliveries]


async def disconnected(bus: Bus) -> None:
    await eventually(lambda: not bus.connected, what="the connection ends")
