"""Until when whatever was told of calls has been heard: what calls without an end wait for before they are recorded."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from callwarden.call_admission.admission.adapters.events_nats import DURABLE, SPOOLS_EMPTY_S, ConsumerProgress
from callwarden.common.bus import Bus, Delivery, Stream
from callwarden.kernel.errors import Unavailable
from callwarden.local.nats import NatsServer
from callwarden.testing.clock import FakeClock
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.cases]


class Hearing:
    """Takes what is told when it is let."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.has_some = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.has_some.set()
        await self.may.wait()


async def test_nothing_is_heard_until_nats_has_been_there_for_a_while_and_all_events_are_done(
    state_dir: Path, fake_clock: FakeClock
) -> None:
    async with NatsServer(state_dir) as nats, Bus(nats.url, name="test") as bus, bus.publisher() as events:
        progress = ConsumerProgress(bus, fake_clock)
        fake_clock.advance(SPOOLS_EMPTY_S)
        with pytest.raises(Unavailable):
            await progress.heard_until()  # there is no consumer, so nobody knows
        hearing = Hearing()
        consuming = asyncio.create_task(bus.consume(Stream.CALLS, DURABLE, "calls.*", hearing))

        async def knows() -> bool:
            with suppress(Unavailable):  # the consumer isn't declared yet
                return await progress.heard_until() == fake_clock.unix_s()
            return False

        await eventually(knows, what="the consumer is there and has nothing to do")
        events.publish("calls.ended", b"", message_id="one")
        await events.flush()
        await hearing.has_some.wait()
        assert await progress.heard_until() is None, "delivered, but not done"
        hearing.may.set()
        await eventually(knows, what="the event is done")

        await nats.kill()
        await eventually(lambda: not bus.connected, what="NATS is away")
        assert await progress.heard_until() is None
        fake_clock.advance(3_600)
        await nats.restart()
        await eventually(lambda: bus.connected, what="NATS is back")
        assert await progress.heard_until() is None, "edges are still sending what they have spooled"
        fake_clock.advance(SPOOLS_EMPTY_S - 1)
        assert await progress.heard_until() is None
        fake_clock.advance(1)
        # An acknowledgement that died with the server: the event comes again after 30 s.
        await eventually(knows, timeout_s=60, what="all is heard")
        bus.stopping.set()
        await consuming
