"""Several targets: the same key to the same one, and to the next while that is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.rpc.stream import StreamPool
from callwarden.common.rpc.stream.client import NotSent
from callwarden.kernel.errors import Exhausted, Unavailable
from callwarden.limits.rendezvous import ranking

from .example_server import Serve, Served

SERVICE = "callwarden.api.rateguard.v1.RateGuardService"
KEYS = [f"account-{number}" for number in range(200)]


class Names:
    """A handler that says which server answered."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: Exception | None = None
        self.calls = 0

    async def __call__(self, request: Any) -> pb.CountReply:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return pb.CountReply(not_owned=[self.name])


class Cluster:
    """Three servers and a pool over them."""

    def __init__(self, pool: StreamPool, served: dict[str, Served], handlers: dict[str, Names]) -> None:
        self.pool = pool
        self.served = served
        self.handlers = handlers

    async def ask(self, key: str, **options: Any) -> str:
        reply = await self.pool.call(key, "Count", pb.CountRequest(), pb.CountReply, timeout_s=30, **options)
        return str(reply.not_owned[0])

    async def stop(self, name: str) -> None:
        """Returns when the pool knows."""
        client, _ = self.pool._clients[self.served[name].target]
        await client.connected()
        assert client._connection is not None
        leaving = client._connection.leaving
        await self.served[name].stop()
        await leaving
        await asyncio.sleep(0)

    async def all(self) -> dict[str, str]:
        return {key: await self.ask(key) for key in KEYS}


@pytest_asyncio.fixture
async def cluster(serve: Serve) -> AsyncIterator[Cluster]:
    handlers = {name: Names(name) for name in "abc"}
    served = {name: await serve({"Count": handler}) for name, handler in handlers.items()}
    targets = [one.target for one in served.values()]
    async with StreamPool(SERVICE, targets, ranking) as pool:
        yield Cluster(pool, served, handlers)


async def test_a_key_stays_with_its_target_and_all_have_some(cluster: Cluster) -> None:
    first = await cluster.all()
    assert await cluster.all() == first
    assert set(first.values()) == {"a", "b", "c"}


async def test_only_the_keys_of_a_dead_target_move_and_they_come_back(cluster: Cluster, serve: Serve) -> None:
    before = await cluster.all()
    await cluster.stop("b")
    during = await cluster.all()
    assert {key: during[key] for key in KEYS if before[key] != "b"} == {
        key: before[key] for key in KEYS if before[key] != "b"
    }
    assert "b" not in during.values()
    await serve({"Count": cluster.handlers["b"]}, port=cluster.served["b"].server.port)
    await cluster.pool._clients[cluster.served["b"].target][0].connected()
    assert await cluster.all() == before


async def test_with_nobody_there_it_is_unavailable(cluster: Cluster) -> None:
    for name in "abc":
        await cluster.stop(name)
    with pytest.raises(NotSent):
        await cluster.ask("any")


async def test_what_may_have_been_done_is_asked_again_only_if_that_is_harmless(cluster: Cluster) -> None:
    owner = await cluster.ask("key")
    cluster.handlers[owner].error = Unavailable("my database is away")
    calls = {name: handler.calls for name, handler in cluster.handlers.items()}
    with pytest.raises(Unavailable, match="my database is away"):
        await cluster.ask("key")
    assert sum(handler.calls for handler in cluster.handlers.values()) == sum(calls.values()) + 1
    other = await cluster.ask("key", idempotent=True)
    assert other != owner
    for handler in cluster.handlers.values():
        handler.error = Unavailable("mine, too")
    with pytest.raises(Unavailable, match="mine, too"):
        await cluster.ask("key", idempotent=True)


async def test_an_overload_is_not_handed_to_the_next(cluster: Cluster) -> None:
    owner = await cluster.ask("key")
    cluster.handlers[owner].error = Exhausted("too much to do")
    with pytest.raises(Exhausted):
        await cluster.ask("key", idempotent=True)


async def test_targets_come_and_go(cluster: Cluster, serve: Serve) -> None:
    before = await cluster.all()
    newcomer = Names("d")
    added = await serve({"Count": newcomer})
    kept = [served.target for name, served in cluster.served.items() if name != "a"]
    connections = {target: cluster.pool._clients[target][0] for target in kept}
    await cluster.pool.update([*kept, added.target])
    after = await cluster.all()
    assert set(after.values()) == {"b", "c", "d"}
    assert {target: cluster.pool._clients[target][0] for target in kept} == connections
    moved = {key for key in KEYS if after[key] != before[key]}
    assert all(before[key] == "a" or after[key] == "d" for key in moved)
    assert set(cluster.pool.targets) == {*kept, added.target}


async def test_a_start_waits_for_all_targets_and_not_for_ever(cluster: Cluster) -> None:
    assert await cluster.pool.wait_up(60)
    assert all(client.up for client, _ in cluster.pool._clients.values())
    await cluster.stop("a")
    assert not await cluster.pool.wait_up(0.01)


async def test_a_pool_without_targets_is_unavailable() -> None:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(StreamPool(SERVICE, [], ranking))
        with pytest.raises(NotSent):
            await pool.call("key", "Count", pb.CountRequest(), pb.CountReply, timeout_s=1)
