"""A process that runs `run_service` on the given behaviour: `python processes.py NAME`, settings by environment.

What it does is printed as lines of words, so that a test waits for them instead of for time.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common.bus import Delivery, Stream
from callwarden.common.rpc.stream import StreamServicer
from callwarden.common.runtime import Runtime, run_service
from callwarden.common.settings import Settings
from callwarden.kernel.errors import Unavailable


def print_line(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


@asynccontextmanager
async def resource(name: str, fails: bool = False) -> AsyncIterator[None]:
    yield
    print_line(f"closed {name}")
    if fails:
        raise RuntimeError(f"{name} does not close")


class Lists(Settings):
    """With a field that is read as JSON."""

    realms: tuple[str, ...] = ()


class Slow(StreamServicer, rateguard_pb2_grpc.RateGuardServiceServicer):
    """Answers Count when the process has been told to stop: what runs is finished."""

    def __init__(self, runtime: Runtime, *, ever: bool = True) -> None:
        super().__init__({"Count": (pb.CountRequest, self.count)})
        self._runtime = runtime
        self._ever = ever

    async def count(self, request: pb.CountRequest) -> pb.CountReply:
        print_line("working")
        await self._runtime.stopping.wait()
        if not self._ever:
            await asyncio.Event().wait()
        return pb.CountReply(not_owned=["done"])

    async def Count(self, request: pb.CountRequest, context: object) -> pb.CountReply:
        return await self.count(request)

    async def ListBans(self, request: pb.ListBansRequest, context: object) -> pb.ListBansReply:
        return pb.ListBansReply()

    async def AddBan(self, request: pb.AddBanRequest, context: object) -> pb.AddBanReply:
        return pb.AddBanReply()

    async def RemoveBans(self, request: pb.RemoveBansRequest, context: object) -> pb.RemoveBansReply:
        return pb.RemoveBansReply()


async def works(settings: Settings, runtime: Runtime) -> None:
    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            print_line("cancelled background")

    async def consumer() -> None:
        await runtime.stopping.wait()
        print_line("consumer done")

    await runtime.open(resource("first"))
    await runtime.open(resource("second", fails=True))
    await runtime.open(resource("third"))
    runtime.spawn("background", background())
    runtime.spawn("consumer", consumer(), drains=True)
    runtime.ready_details["sip_port"] = 5060
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(Slow(runtime), runtime.server)


async def hangs(settings: Settings, runtime: Runtime) -> None:
    rateguard_pb2_grpc.add_RateGuardServiceServicer_to_server(Slow(runtime, ever=False), runtime.server)


async def fails_in_background(settings: Settings, runtime: Runtime) -> None:
    async def fail() -> None:
        raise RuntimeError("the follower fell over")

    await runtime.open(resource("first"))
    runtime.spawn("follower", fail())


async def fails_at_start(settings: Settings, runtime: Runtime) -> None:
    await runtime.open(resource("first"))
    raise RuntimeError("a mistake")


async def lacks_something(settings: Settings, runtime: Runtime) -> None:
    await runtime.open(resource("first"))
    raise Unavailable("the rating service is not available")


async def never_starts(settings: Settings, runtime: Runtime) -> None:
    await runtime.open(resource("first"))
    print_line("starting")
    await asyncio.Event().wait()


async def uses_nats(settings: Settings, runtime: Runtime) -> None:
    bus = await runtime.bus()
    assert await runtime.bus() is bus
    assert await runtime.policies() is await runtime.policies()

    async def handle(delivery: Delivery) -> None:
        print_line("working")
        await runtime.stopping.wait()
        print_line(f"handled {delivery.message_id}")

    runtime.spawn("settle", bus.consume(Stream.CALLS, "settle", "calls.ended", handle), drains=True)


async def uses_database(settings: Settings, runtime: Runtime) -> None:
    database = await runtime.database()
    hot = await runtime.open(await database.hot())
    print_line(f"selected {await hot.run('one', lambda connection: connection.fetchval('SELECT 1'))}")


BEHAVIOURS: dict[str, Callable[[Settings, Runtime], Awaitable[None]]] = {
    behaviour.__name__: behaviour
    for behaviour in (
        works, hangs, fails_in_background, fails_at_start, lacks_something, never_starts, uses_nats, uses_database,
    )
}  # fmt: skip

if __name__ == "__main__":
    run_service("example", Lists, BEHAVIOURS[sys.argv[1]])
