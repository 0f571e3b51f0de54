"""What each role may do on NATS, tried on a real server with the users that `callwarden up` gives it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from callwarden.common.bus import Bucket, Bus
from callwarden.common.bus.rights import INBOX, RIGHTS, permissions
from callwarden.common.bus.streams import STREAMS
from callwarden.local.nats import NatsServer

pytestmark = [pytest.mark.integration, pytest.mark.cases]

SERVICES: Final = RIGHTS.keys() - {"security-policy", "admin"}
POLICY: Final = {"security-policy", "admin"}

# Who may publish there, of all roles.
PUBLISHERS: Final[dict[str, set[str]]] = {
    "$KV.policy.bundle": POLICY,
    "$KV.bans.abc": {"rate-guard"},
    "$KV.listed.abc": {"call-admission", "administration"},
    "$KV.dialogs.abc": {"edge-proxy"},
    "$KV.locations.abc": {"edge-proxy"},
    "$KV.counters.abc": {"rate-guard"},
    "$KV.members.rate-guard.x": {"rate-guard"},
    "$KV.members.abc": {"edge-proxy"},
    **{f"$KV.policy_acks.{service}.x": {service} for service in SERVICES},
    "calls.batch": {"edge-proxy"},
    "security.decision": {"edge-proxy"},
    "security.account_changed": {"auth", "administration"},
    "security.banned": {"rate-guard"},
    "security.limit": {"call-admission"},
    "security.unbilled": {"rating"},
    "payments.done": set(),
    "rating.changed": {"rating"},
    "lists.changed": {"administration"},
    "$JS.API.DIRECT.GET.KV_bans.$KV.bans.abc": {"edge-proxy", "rate-guard", "security-policy"},
    "$JS.API.DIRECT.GET.KV_policy.$KV.policy.bundle": set(RIGHTS),
    "$JS.API.DIRECT.GET.KV_locations.$KV.locations.abc": {"edge-proxy"},
    "$JS.API.CONSUMER.CREATE.KV_dialogs": {"edge-proxy", "administration"},  # which asks whose calls are known
    "$JS.API.CONSUMER.CREATE.CALLS": set(),
    "$JS.API.CONSUMER.MSG.NEXT.CALLS.call-admission": {"call-admission"},
    "$JS.API.CONSUMER.INFO.CALLS.call-admission": {"call-admission"},
    "$JS.API.CONSUMER.DELETE.CALLS.call-admission": set(),
    "$JS.ACK.CALLS.call-admission.1.1.1.1.0": {"call-admission"},
    "$JS.API.STREAM.UPDATE.CALLS": {"administration"},
    **{f"$JS.API.STREAM.{verb}.{name}": set() for verb in ("DELETE", "PURGE") for name in ("CALLS", "KV_bans")},
    "$JS.API.STREAM.MSG.DELETE.CALLS": set(),
    "$JS.API.STREAM.CREATE.STOLEN": set(),
    "$JS.API.STREAM.INFO.CALLS": set(),
    "_INBOX.administration.x": set(),
    "anything.else": set(),
}

LISTENERS: Final[dict[str, set[str]]] = {
    ">": set(),
    "calls.>": set(),
    "$KV.>": set(),
    f"{INBOX}.>": set(),
    f"{INBOX}.edge-proxy.>": {"edge-proxy"},
    "security.account_changed": {"edge-proxy", "auth", "call-admission", "administration", "rating"},
    "security.unbanned": {"rate-guard"},
    "lists.counted": {"call-admission"},
}


class Try:
    """One user's connection, and what the server said against it, in the order of what was tried."""

    def __init__(self, client: Client, complaints: asyncio.Queue[str]) -> None:
        self.client = client
        self._complaints = complaints
        self._last = 0

    async def may_publish(self, subject: str) -> bool:
        await self.client.publish(subject, b"{}")
        return f'publish to "{subject.lower()}"' not in await self._complained()

    async def may_hear(self, subject: str) -> bool:
        subscription = await self.client.subscribe(subject)
        complained = await self._complained()
        await subscription.unsubscribe()
        return f'subscription to "{subject.lower()}"' not in complained

    async def _complained(self) -> str:
        """What the server has said before it complains of something that nobody may do."""
        self._last += 1
        await self.client.publish(f"end.{self._last}", b"")
        said = ""
        async with asyncio.timeout(30):
            while f'publish to "end.{self._last}"' not in said:
                said += (await self._complaints.get()).lower().replace("'", '"')
        return said


@pytest.fixture
async def server(state_dir: Path) -> AsyncIterator[NatsServer]:
    """With all streams and buckets."""
    users = {role: f"password-of-{role}" for role in RIGHTS}
    async with NatsServer(state_dir / "nats", users=users) as started, Bus(started.url, name="declares"):
        yield started


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Try]:
    complaints: asyncio.Queue[str] = asyncio.Queue()

    async def complain(error: Exception) -> None:
        complaints.put_nowait(str(error))

    client = await nats.connect(url, error_cb=complain)
    try:
        yield Try(client, complaints)
    finally:
        await client.close()


async def test_each_role_may_publish_and_hear_what_it_does_and_nothing_else(server: NatsServer) -> None:
    for role in RIGHTS:
        async with connected(server.url_of(role)) as tried:
            for subject, roles in PUBLISHERS.items():
                assert await tried.may_publish(subject) is (role in roles), (role, subject)
            for subject, roles in LISTENERS.items():
                assert await tried.may_hear(subject) is (role in roles), (role, subject)
            for subject in permissions(role).publish:
                example = subject.replace("*", "x").replace(">", "x")
                if not example.startswith("$JS.API.STREAM."):  # of which the update would be one
                    assert await tried.may_publish(example), (role, subject)


async def test_what_is_denied_does_not_happen(server: NatsServer) -> None:
    """Not only said: the bucket stays as it is, and the stream keeps its messages."""
    async with Bus(server.url, name="owner") as owner, connected(server.url_of("edge-proxy")) as edge:
        await owner.kv(Bucket.BANS).put("abc", b"banned")
        await owner.jetstream.publish("calls.batch", b"a call")
        for subject in (
            "$KV.bans.abc",
            "$KV.policy.bundle",
            "$JS.API.STREAM.PURGE.CALLS",
            "$JS.API.STREAM.DELETE.CALLS",
        ):
            await edge.client.publish(subject, b"")
        await edge.client.flush()
        found = await owner.kv(Bucket.BANS).get("abc")
        assert found is not None
        assert found.value == b"banned"
        assert await owner.kv(Bucket.POLICY).get("bundle") is None
        assert (await owner.jetstream.stream_info("CALLS")).state.messages == 1


async def test_nobody_gets_in_without_the_password_of_a_role(server: NatsServer) -> None:
    place = server.url.rpartition("@")[2]
    for who in ("", "admin@", "admin:wrong@", "edge-proxy:password-of-admin@"):
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await nats.connect(
                f"nats://{who}{place}", allow_reconnect=False, max_reconnect_attempts=0, error_cb=_ignore
            )


async def test_streams_are_made_by_whoever_comes_first_and_changed_by_one(state_dir: Path) -> None:
    users = {role: f"password-of-{role}" for role in RIGHTS}
    async with (
        NatsServer(state_dir / "nats", users=users) as server,
        Bus(server.url_of("edge-proxy"), name="edge"),
        Bus(server.url, name="owner", declare=False) as owner,
    ):
        assert {each.config.name for each in await owner.jetstream.streams_info()} == {
            *(stream.value for stream in STREAMS),
            *(f"KV_{bucket.value}" for bucket in Bucket),
        }
        older = (await owner.jetstream.stream_info("CALLS")).config
        await owner.jetstream.update_stream(older.evolve(max_age=3600.0))
        for role in RIGHTS.keys() - {"administration"}:
            async with Bus(server.url_of(role), name=role, declare=RIGHTS[role].creates):
                assert (await owner.jetstream.stream_info("CALLS")).config.max_age == 3600.0
        async with Bus(server.url_of("administration"), name="administration"):
            assert (await owner.jetstream.stream_info("CALLS")).config.max_age == older.max_age


async def _ignore(_: Exception) -> None:
    await asyncio.sleep(0)
