"""Two processes of auth on a real NATS and PostgreSQL: what one changes, the other knows; settings; metrics."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import nats
import pytest

from callwarden.api.auth.v1 import auth_pb2, auth_pb2_grpc
from callwarden.api.events.v1 import events_pb2
from callwarden.auth.core.digest import ha1s_of
from callwarden.auth.core.sealing import SALT_BYTES, SealingKeys
from callwarden.auth.core.users import UserKey
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.stream import StreamClient
from callwarden.kernel.errors import Conflict, Invalid, NotFound
from callwarden.local.system import LocalSystem
from callwarden.sip.digest import Algorithm, ha1, response_for
from callwarden.testing import databases
from callwarden.testing.waiting import eventually

pytestmark = pytest.mark.integration

REALM = "sip.example"
SERVICE = "callwarden.api.auth.v1.AuthService"


def answer(password: str, name: str = "alice") -> auth_pb2.VerifyRequest:
    known = ha1(Algorithm.SHA_256, name, REALM, password)
    return auth_pb2.VerifyRequest(
        username=name,
        realm=REALM,
        method="INVITE",
        uri="sip:bob@sip.example",
        nonce="n",
        nonce_count="00000001",
        cnonce="c",
        qop="auth",
        algorithm="SHA-256",
        response=response_for(
            Algorithm.SHA_256, known, "INVITE", "sip:bob@sip.example", "n", qop="auth", nc="00000001", cnonce="c"
        ),
        source_address="192.0.2.7",
    )


@dataclass(frozen=True, slots=True)
class AuthProcesses:
    system: LocalSystem
    first: auth_pb2_grpc.AuthServiceStub  # as the administrator
    first_by_edge: auth_pb2_grpc.AuthServiceStub
    second: StreamClient
    account_id: str

    async def execute(self, statement: str, *arguments: object) -> None:
        connection = await databases.connect(self.system.database_url)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    async def set_password(self, password: str, name: str = "alice") -> None:
        request = auth_pb2.SetPasswordRequest(account_id=self.account_id, username=name, realm=REALM, password=password)
        await unary(self.first.SetPassword, request)

    async def verdict(self, password: str, name: str = "alice") -> str:
        """By the second process: the account's id, or the reason."""
        reply = await self.second.call("Verify", answer(password, name), auth_pb2.VerifyReply, timeout_s=5.0)
        return reply.identity.account_id or reply.rejected.reason


@asynccontextmanager
async def rig(state_dir: Path) -> AsyncIterator[AuthProcesses]:
    account_id = uuid4()
    async with LocalSystem(state_dir, services={"auth"}, processes={"auth": 2}) as system:
        first, second = system.targets("auth")
        async with (
            channel(first, system.credentials("admin")) as to_first,
            channel(first, system.credentials("edge-proxy")) as edge_to_first,
            channel(second, system.credentials("edge-proxy")) as to_second,
            StreamClient(to_second, SERVICE, target=second) as stream,
        ):
            by_admin, by_edge = auth_pb2_grpc.AuthServiceStub(to_first), auth_pb2_grpc.AuthServiceStub(edge_to_first)
            found = AuthProcesses(system, by_admin, by_edge, stream, str(account_id))
            await found.execute(
                "INSERT INTO account (id, realm, name, type, currency, prepaid)"
                " VALUES ($1, $2, 'alice', 'enduser', 'EUR', false)",
                account_id,
                REALM,
            )
            yield found


@pytest.mark.setting("securepasswords")
async def test_what_one_process_changes_the_other_knows(state_dir: Path) -> None:
    async with rig(state_dir) as h:
        connection = await nats.connect(h.system.nats_url)
        heard = await connection.subscribe("security.account_changed")
        await connection.flush()
        assert await h.verdict("correct horse") == "credentials"

        await h.set_password("correct horse")
        event = events_pb2.AccountChanged.FromString((await heard.next_msg(timeout=5)).data)
        assert (event.account_id, event.what) == (h.account_id, "credential")
        assert (event.realm, event.username) == (REALM, "alice")

        async def is_known() -> bool:
            return await h.verdict("correct horse") == h.account_id

        await eventually(is_known)

        # What call-admission says when an operator disables an account.
        await h.execute("UPDATE account SET status = 'disabled'")
        changed = events_pb2.AccountChanged(account_id=h.account_id, what="status")
        await connection.publish("security.account_changed", changed.SerializeToString())

        async def is_disabled() -> bool:
            return await h.verdict("correct horse") == "account-disabled"

        await eventually(is_disabled)
        await connection.close()


async def test_events_that_were_missed_while_nats_was_away_are_made_up_for(state_dir: Path) -> None:
    async with rig(state_dir) as h:
        # Not by SetPassword, whose event could still be on its way and empty the cache.
        user = UserKey(REALM, "alice")
        keys = SealingKeys(h.system.keys.credential_key)
        sealed = keys.seal(user, ha1s_of(user, "correct horse"), os.urandom(SALT_BYTES))
        await h.execute(
            "INSERT INTO credential (realm, username, account_id, sealed_ha1, key_id) VALUES ($1, $2, $3, $4, $5)",
            user.realm,
            user.username,
            UUID(h.account_id),
            sealed.value,
            sealed.key_id,
        )
        assert await h.verdict("correct horse") == h.account_id
        await h.system.kill("nats")
        await h.execute("UPDATE account SET status = 'disabled'")
        assert await h.verdict("correct horse") == h.account_id  # Nobody could tell it.
        await h.system.restart("nats")

        async def is_disabled() -> bool:
            return await h.verdict("correct horse") == "account-disabled"

        await eventually(is_disabled)


async def test_mistakes_of_who_asks_come_back_as_what_they_are(state_dir: Path) -> None:
    async with rig(state_dir) as h:
        with pytest.raises(Invalid) as caught:
            await h.set_password("short")
        assert caught.value.field == "password"
        stranger = auth_pb2.SetPasswordRequest(
            account_id=str(uuid4()), username="alice", realm=REALM, password="correct horse"
        )
        with pytest.raises(NotFound):
            await unary(h.first.SetPassword, stranger)
        await h.set_password("correct horse")
        other = uuid4()
        await h.execute(
            "INSERT INTO account (id, realm, name, type, currency, prepaid)"
            " VALUES ($1, $2, 'bob', 'enduser', 'EUR', false)",
            other,
            REALM,
        )
        thief = auth_pb2.SetPasswordRequest(
            account_id=str(other), username="alice", realm=REALM, password="battery staple"
        )
        with pytest.raises(Conflict):
            await unary(h.first.SetPassword, thief)
        reply = await unary(h.first.RemoveCredential, auth_pb2.RemoveCredentialRequest(username="alice", realm=REALM))
        assert reply.removed
        assert (await unary(h.first_by_edge.Verify, answer("correct horse"))).rejected.reason == "credentials"


async def test_no_log_holds_a_password_or_a_response(state_dir: Path) -> None:
    async with rig(state_dir) as h:
        await h.set_password("correct horse")
        await h.verdict("correct horse")
        await h.verdict("wrong horse")
        with pytest.raises(Invalid):
            await h.set_password("horse")
        logs = "".join(path.read_text() for path in (h.system.state_dir / "log").glob("auth-*.log"))
        key = h.system.keys.credential_key
    assert "service.ready" in logs
    for secret in ("horse", answer("correct horse").response, key):
        assert secret not in logs


@pytest.mark.parametrize("key", ["", "too short", "zz" * 32])
async def test_it_does_not_start_without_a_key_and_says_so_in_one_line(key: str) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "callwarden.auth.main"],
            env={"CALLWARDEN_CREDENTIAL_KEY": key} if key else {},
            capture_output=True,
            text=True,
            timeout=60,
        )

    ended = await asyncio.to_thread(run)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "CALLWARDEN_CREDENTIAL_KEY" in ended.stderr
    assert not key or key not in ended.stderr
