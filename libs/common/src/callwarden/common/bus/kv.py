"""NATS key-value buckets: put with a time to live, compare-and-set by revision, and watches that survive everything."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.kv import KV_DEL, KV_OP, KV_PURGE
from nats.js.kv import KeyValue as NatsKeyValue

from callwarden.common.bus.streams import Bucket
from callwarden.common.logs import get_logger
from callwarden.kernel.errors import Conflict, Invalid, Unavailable

log = get_logger(__name__)

WATCH_RETRY_S: Final = 0.2
_WRONG_LAST_SEQUENCE: Final = 10071


@dataclass(frozen=True, slots=True)
class Put:
    """`key` has `value` now. `revision` grows with each change in the bucket."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """`key` is no more: deleted, or its time has come. `revision` 0 if it went while we were not connected."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything that was in the bucket has been said; what follows is news. Said again after each reconnect."""


Change: TypeAlias = Put | Deleted | Synced


class KeyValue:
    """One bucket: `bus.kv(Bucket.BANS)`. Keys are [-/_=.A-Za-z0-9]+; nothing else is accepted by NATS."""

    def __init__(
        self,
        client: Client,
        jetstream: JetStreamContext,
        bucket: Bucket,
        on_reconnect: Callable[[Callable[[], Awaitable[None]]], Callable[[], None]],
    ) -> None:
        self._client = client
        self._jetstream = jetstream
        self._bucket = bucket.value
        self._prefix = f"$KV.{bucket.value}."
        self._on_reconnect = on_reconnect
        self._native = NatsKeyValue(
            name=self._bucket, stream=f"KV_{self._bucket}", pre=self._prefix, js=jetstream, direct=True
        )

    async def get(self, key: str) -> Put | None:
        """What `key` has now. Raises Unavailable."""
        try:
            entry = await self._native.get(key)
        except (nats.js.errors.KeyNotFoundError, nats.js.errors.KeyDeletedError):
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("NATS is not available") from error
        return Put(key, entry.value or b"", entry.revision or 0)

    async def put(self, key: str, value: bytes, *, ttl_s: float = 0.0, revision: int | None = None) -> int:
        """Set `key`; gone by itself after `ttl_s` (rounded up to whole seconds; 0: stays). Returns the new revision.

        With `revision` only if that is still the key's (0: only if there is none): raises Conflict otherwise. Raises
        Unavailable.
        """
        headers: dict[str, str] = {}
        if ttl_s > 0:
            headers[api.Header.MSG_TTL] = str(math.ceil(ttl_s))
        return await self._write(key, value, headers, revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove `key`; watchers are told. Nothing happens if there is none. Raises Conflict, Unavailable."""
        # A purge rolls up the key's history; its marker goes by itself, or a busy bucket would keep them all.
        headers = {KV_OP: KV_PURGE, "Nats-Rollup": "sub", api.Header.MSG_TTL: "60"}
        await self._write(key, b"", headers, revision)

    async def _write(self, key: str, value: bytes, headers: dict[str, str], revision: int | None) -> int:
        if not _valid_key(key):
            raise Invalid("not a key for NATS", field="key")
        if revision is not None:
            headers[api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(revision)
        try:
            ack = await self._jetstream.publish(self._prefix + key, value, headers=headers or None)
        except nats.js.errors.APIError as error:
            if error.err_code == _WRONG_LAST_SEQUENCE:
                raise Conflict(f"{key} has changed") from error
            raise Unavailable(f"the bucket {self._bucket} refuses: {error.description}") from error
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("NATS is not available") from error
        return ack.seq

    async def items(self, pattern: str = ">") -> dict[str, Put]:
        """Everything that matches now. Raises Unavailable."""
        found: dict[str, Put] = {}
        try:
            watcher = await self._native.watch(pattern, ignore_deletes=True)
            try:
                async for entry in watcher:
                    if entry is None:
                        return found
                    found[entry.key] = Put(entry.key, entry.value or b"", entry.revision or 0)
            finally:
                await watcher.stop()  # type: ignore[no-untyped-call]
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("NATS is not available") from error
        return found

    async def watch(self, pattern: str = ">") -> AsyncIterator[Change]:
        """What matches `pattern` now, then Synced, then each change, for as long as you iterate.

        Never raises for the network: after a reconnect everything is compared anew, so that a change (or the end of a
        key) that happened meanwhile is told then; what was told already isn't told again.
        """
        known: dict[str, int] = {}
        while True:
            try:
                watcher = await self._native.watch(pattern)
            except (nats.errors.Error, TimeoutError) as error:
                log.debug("kv.watch_retry", error=repr(error), bucket=self._bucket)
                await asyncio.sleep(WATCH_RETRY_S)
                continue
            forget = self._on_reconnect(watcher.stop)  # ends the loop below: the server has forgotten our consumer
            missing = set(known)
            try:
                async for entry in watcher:
                    if entry is None:
                        for key in missing:
                            del known[key]
                            yield Deleted(key, 0)
                        missing = set()
                        yield Synced()
                    elif entry.operation in (KV_DEL, KV_PURGE):
                        missing.discard(entry.key)
                        if known.pop(entry.key, None) is not None:
                            yield Deleted(entry.key, entry.revision or 0)
                    else:
                        missing.discard(entry.key)
                        revision = entry.revision or 0
                        # Not ">": a server that lost its disk counts from 1 again.
                        if known.get(entry.key) != revision:
                            known[entry.key] = revision
                            yield Put(entry.key, entry.value or b"", revision)
            finally:
                forget()
                await _stop(watcher)


async def _stop(watcher: NatsKeyValue.KeyWatcher) -> None:
    try:
        await watcher.stop()  # type: ignore[no-untyped-call]
    except (nats.errors.Error, nats.js.errors.Error):
        return  # stopped already, or the connection is closed


_KEY_CHARS: Final = frozenset("-/_=.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def _valid_key(key: str) -> bool:
    """ADR-8: no empty token, nothing that means something in a subject."""
    return (
        bool(key)
        and _KEY_CHARS.issuperset(key)
        and not key.startswith(".")
        and not key.endswith(".")
        and ".." not in key
    )
