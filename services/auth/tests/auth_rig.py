"""An auth with all around it, over accounts in memory, which pass the same contract as the database."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from callwarden.api.auth.v1 import auth_pb2
from callwarden.auth.adapters.credentials_memory import MemoryCredentialStore
from callwarden.auth.app import Auth
from callwarden.auth.core.digest import DigestAnswer
from callwarden.auth.core.sealing import SealingKeys
from callwarden.auth.core.users import AuthAccount, UserKey
from callwarden.auth.ports import AuthAccountChange
from callwarden.policy.bundle import Document, PolicySet
from callwarden.sip.digest import Algorithm, ha1, response_for
from callwarden.testing.clock import FakeClock

REALM = "sip.example"
PASSWORD = "correct horse"
KEY, NEW_KEY = "11" * 32, "22" * 32


class RecordedAccountChanges:
    """ports.AccountEventPublisher that remembers."""

    def __init__(self) -> None:
        self.changes: list[AuthAccountChange] = []

    def account_changed(self, change: AuthAccountChange) -> None:
        self.changes.append(change)


class AuthUnderTest:
    """An Auth with all around it."""

    def __init__(self, policy: dict[str, Any] | None = None, key: str = KEY, old: tuple[str, ...] = ()) -> None:
        self.accounts = MemoryCredentialStore()
        self.told = RecordedAccountChanges()
        self.clock = FakeClock()
        document = Document("test", policy or {})
        self.keys = SealingKeys(key, old)
        self.auth = Auth(self.accounts, self.told, PolicySet.build(1, [document]), self.keys, self.clock, os.urandom)

    async def user(self, name: str = "alice", *, active: bool = True, numbers: tuple[str, ...] = ()) -> str:
        account_id = str(uuid4())
        self.accounts.accounts[account_id] = REALM, AuthAccount(account_id, "enduser", active, numbers)
        await self.auth.set_password(account_id, UserKey(REALM, name), PASSWORD)
        return account_id

    def disable(self, account_id: str) -> None:
        """In the database; nobody is told."""
        realm, account = self.accounts.accounts[account_id]
        self.accounts.accounts[account_id] = realm, AuthAccount(account_id, account.kind, False, account.numbers)


def answer(
    name: str = "alice", password: str = PASSWORD, algorithm: Algorithm | None = Algorithm.SHA_256
) -> DigestAnswer:
    """As a phone would make it. Without algorithm: MD5 in the way of RFC 2069."""
    user = UserKey(REALM, name)
    if algorithm is None:
        response = response_for(Algorithm.MD5, ha1(Algorithm.MD5, name, REALM, password), "INVITE", "sip:x", "nonce")
        return DigestAnswer(user, "INVITE", "sip:x", "nonce", "", "", "", "", response)
    response = response_for(
        algorithm,
        ha1(algorithm, name, REALM, password),
        "INVITE",
        "sip:x",
        "nonce",
        qop="auth",
        nc="00000001",
        cnonce="c",
    )
    return DigestAnswer(user, "INVITE", "sip:x", "nonce", "00000001", "c", "auth", str(algorithm), response)


def request(name: str = "alice", password: str = PASSWORD) -> auth_pb2.VerifyRequest:
    made = answer(name, password)
    return auth_pb2.VerifyRequest(
        username=made.user.username,
        realm=made.user.realm,
        method=made.method,
        uri=made.uri,
        nonce=made.nonce,
        nonce_count=made.nonce_count,
        cnonce=made.cnonce,
        qop=made.qop,
        algorithm=made.algorithm,
        response=made.response,
        source_address="192.0.2.7",
    )


@asynccontextmanager
async def following(rig: AuthUnderTest) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(rig.auth.follow_trunks())
    numbers = asyncio.gather(rig.auth.numbers.follow(), rig.auth.names.follow())
    await asyncio.sleep(0)
    await rig.auth.numbers.loaded.wait()
    await rig.auth.names.loaded.wait()
    yield task
    for each in (task, numbers):
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each


async def settled() -> None:
    """What follows changes has had its turns: one to wake, one for each page."""
    for _ in range(5):
        await asyncio.sleep(0)
