"""Several targets: the same key to the same one, and to the next while that is away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.common.rpc import names
from callwarden.common.rpc.stream import StreamPool
from callwarden.common.rpc.stream.client import NotSent
from callwarden.kernel.errors import Exhausted, Invalid, Unavailable
from callwarden.limits.rendezvous import ranking
from callwarden.testing.certificates import Authority
from callwarden.testing.waiting import eventually

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


# ------------------------------------------------------------------ names


class Dns:
    """A resolver whose answers a test changes."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = asyncio.Condition()

    async def __call__(self, host: str) -> tuple[str, ...]:
        assert host == "admission.voip"
        async with self.asked:
            self.asked.notify_all()
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses

    async def is_asked(self) -> None:
        async with self.asked:
            await self.asked.wait()


class Pods:
    """Real servers on one port of 127.0.0.1, 127.0.0.2 …, each of which says its address; a pool over their name."""

    def __init__(self, serve: Serve, dns: Dns) -> None:
        self.serve = serve
        self.dns = dns
        self.port = 0
        self.handlers: dict[str, Names] = {}

    async def add(self, host: str) -> Served:
        handler = self.handlers[host] = Names(host)
        served = await self.serve({"Count": handler}, host=host, port=self.port)
        self.port = served.server.port
        return served

    def pool(self) -> StreamPool:
        target = f"admission.voip:{self.port}"
        return StreamPool(SERVICE, [target], ranking, resolve=self.dns, look_up_every_s=0.01)

    def is_over(self, pool: StreamPool, *hosts: str) -> Callable[[], bool]:
        return lambda: set(pool.targets) == {f"{host}:{self.port}" for host in hosts}


async def answering(pool: StreamPool) -> set[str]:
    """Who answers for the keys."""
    asked = (pool.call(key, "Count", pb.CountRequest(), pb.CountReply, timeout_s=30) for key in KEYS)
    return {str(reply.not_owned[0]) for reply in await asyncio.gather(*asked)}


async def test_a_name_stands_for_all_its_addresses_and_they_are_followed_as_they_come_and_go(serve: Serve) -> None:
    pods = Pods(serve, Dns("127.0.0.1", "127.0.0.2"))
    for host in pods.dns.addresses:
        await pods.add(host)
    async with pods.pool() as pool:
        assert await answering(pool) == {"127.0.0.1", "127.0.0.2"}
        await pods.add("127.0.0.3")
        pods.dns.addresses = ("127.0.0.3", "127.0.0.1", "127.0.0.2")
        await eventually(pods.is_over(pool, "127.0.0.1", "127.0.0.2", "127.0.0.3"))
        assert await answering(pool) == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
        pods.dns.addresses = ("127.0.0.2", "127.0.0.3")
        await eventually(pods.is_over(pool, "127.0.0.2", "127.0.0.3"))
        assert await answering(pool) == {"127.0.0.2", "127.0.0.3"}


async def test_what_was_asked_of_a_pod_that_goes_is_still_answered(serve: Serve) -> None:
    pods = Pods(serve, Dns("127.0.0.1"))
    let_go, begun = asyncio.Event(), asyncio.Event()

    async def slow(request: Any) -> pb.CountReply:
        begun.set()
        await let_go.wait()
        return pb.CountReply(not_owned=["late"])

    pods.port = (await serve({"Count": slow})).server.port
    await pods.add("127.0.0.2")
    async with pods.pool() as pool:
        call = asyncio.create_task(pool.call("k", "Count", pb.CountRequest(), pb.CountReply, timeout_s=30))
        await begun.wait()
        pods.dns.addresses = ("127.0.0.2",)
        await eventually(pods.is_over(pool, "127.0.0.2"))
        assert await answering(pool) == {"127.0.0.2"}
        assert not call.done()
        let_go.set()
        assert (await call).not_owned == ["late"]
        await eventually(lambda: not pool._finishing, what="the connection's end")


async def test_a_name_that_nobody_knows_yet_is_asked_for_until_somebody_is_behind_it(serve: Serve) -> None:
    pods = Pods(serve, Dns())
    await pods.add("127.0.0.1")
    async with pods.pool() as pool:
        with pytest.raises(NotSent):
            await answering(pool)
        assert not await pool.wait_up(0.01)
        pods.dns.addresses = ("127.0.0.1",)
        assert await pool.wait_up(60)
        assert await answering(pool) == {"127.0.0.1"}


async def test_while_the_name_is_not_known_whoever_was_behind_it_is_asked_on(serve: Serve) -> None:
    pods = Pods(serve, Dns("127.0.0.1"))
    await pods.add("127.0.0.1")
    async with pods.pool() as pool:
        assert await answering(pool) == {"127.0.0.1"}
        pods.dns.addresses = ()
        for _ in range(3):
            await pods.dns.is_asked()
        assert await answering(pool) == {"127.0.0.1"}


async def test_names_are_followed_on_after_certificates_could_not_be_read(tmp_path: Path) -> None:
    dns = Dns("127.0.0.1")
    files = Authority(tmp_path, "ours").files("edge")
    away = files.ca.with_suffix(".away")

    def pool() -> StreamPool:
        return StreamPool(SERVICE, ["admission.voip:1"], ranking, credentials=files, resolve=dns, look_up_every_s=0.01)

    async with pool() as opened:
        files.ca.rename(away)
        dns.addresses = ("127.0.0.1", "127.0.0.2")
        for _ in range(3):
            await dns.is_asked()
        assert opened.targets == ("127.0.0.1:1",)
        with pytest.raises(OSError, match=files.ca.name):
            await pool().__aenter__()
        away.rename(files.ca)
        await eventually(lambda: set(opened.targets) == {"127.0.0.1:1", "127.0.0.2:1"})


async def test_the_machines_own_resolver_is_asked(serve: Serve) -> None:
    served = await serve({"Count": Names("here")})
    async with StreamPool(SERVICE, [f"localhost:{served.server.port}"], ranking) as pool:
        assert pool.targets == (served.target,)
        assert await answering(pool) == {"here"}


async def test_addresses_are_ordered_bounded_and_bracketed_where_they_must_be() -> None:
    async def many(host: str) -> list[str]:
        return ["fd00::2", "fd00::1", "fd00::0001", *(f"10.0.0.{number}" for number in range(250, 0, -1))]

    found = await names.targets("auth:7000", many)
    assert found == tuple(f"10.0.0.{number}:7000" for number in range(1, names.ADDRESSES_MAX + 1))

    async def six(host: str) -> list[str]:
        return ["fd00::2", "fd00::1", "fd00:0::1"]

    assert await names.targets("auth:7000", six) == ("[fd00::1]:7000", "[fd00::2]:7000")


async def test_a_name_that_is_none_and_a_target_without_a_port_are_told() -> None:
    with pytest.raises(OSError, match="no name of a host"):
        await names.addresses("a..b")
    with pytest.raises(Invalid, match="host:port"):
        await StreamPool(SERVICE, ["auth"], ranking).__aenter__()
    assert not names.is_name("[::1]:7000")
    assert not names.is_name("10.0.0.1:7000")
    assert names.is_name("auth:7000")
