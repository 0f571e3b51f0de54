"""NATS key-value buckets: put with a time to live, compare-and-set by revision, and watches that survive everything.

How a bucket is read in order is in `ordered`.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.kv import KV_DEL, KV_MARKER_REASON, KV_OP, KV_PURGE

from callwarden.common.bus.ordered import Change, Deleted, OrderedConsumer, Put, Synced
from callwarden.common.bus.streams import Bucket
from callwarden.common.logs import get_logger
from callwarden.kernel.errors import Conflict, Invalid, Unavailable

log = get_logger(__name__)

WATCH_RETRY_S: Final = 0.2
_WRONG_LAST_SEQUENCE: Final = 10071


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

    async def get(self, key: str) -> Put | None:
        """What `key` has now. Raises Unavailable."""
        last = await self._last(key)
        return last if isinstance(last, Put) else None

    async def _last(self, key: str) -> Put | Deleted | None:
        """The last that was said of `key`. nats.py's own `get` takes the marker of an expired key for a value."""
        if not _valid_key(key):
            raise Invalid("not a key for NATS", field="key")
        try:
            message = await self._jetstream.get_last_msg(f"KV_{self._bucket}", self._prefix + key, direct=True)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("NATS is not available") from error
        headers = message.headers or {}
        revision = message.seq or 0
        if headers.get(KV_OP) in (KV_DEL, KV_PURGE) or KV_MARKER_REASON in headers:
            return Deleted(key, revision)
        return Put(key, message.data or b"", revision)

    async def put(self, key: str, value: bytes, *, ttl_s: float = 0.0, revision: int | None = None) -> int:
        """Set `key`; gone by itself after `ttl_s` (rounded up to whole seconds; 0: stays). Returns the new revision.

        With `revision` only if that is still the key's (0: only if there is none): raises Conflict otherwise. Raises
        Unavailable.
        """
        headers: dict[str, str] = {}
        if ttl_s > 0:
            headers[api.Header.MSG_TTL] = str(math.ceil(ttl_s))
        try:
            return await self._write(key, value, headers, revision)
        except Conflict:
            # For NATS a deleted or expired key has a last message, too: the marker.
            last = await self._last(key) if revision == 0 else None
            if not isinstance(last, Deleted):
                raise
            return await self._write(key, value, headers, last.revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove `key` and notify watchers. Does nothing if there is no such key. Raises Conflict, Unavailable."""
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
            async with OrderedConsumer(self._client, self._jetstream, self._bucket, pattern) as consumer:
                async for change in consumer.changes():
                    match change:
                        case Put(key=key):
                            found[key] = change
                        case Deleted(key=key):
                            found.pop(key, None)
                        case Synced():
                            return found
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable("NATS is not available") from error
        raise Unavailable("NATS went away")

    async def watch(self, pattern: str = ">") -> AsyncIterator[Change]:
        """What matches `pattern` now, then Synced, then each change, for as long as you iterate.

        Never raises for the network: after a reconnect everything is compared again, so that a change or the end of a
        key in the meantime is reported then. What was reported before is not reported again.
        """
        known: dict[str, int] = {}
        while True:
            missing = set(known)
            try:
                async with OrderedConsumer(self._client, self._jetstream, self._bucket, pattern) as consumer:
                    forget = self._on_reconnect(consumer.end)  # the server may have forgotten it
                    try:
                        async for change in consumer.changes():
                            match change:
                                case Synced():
                                    for key in missing:
                                        del known[key]
                                        yield Deleted(key, 0)
                                    missing = set()
                                    yield change
                                case Deleted(key=key):
                                    missing.discard(key)
                                    if known.pop(key, None) is not None:
                                        yield change
                                # Not ">": a server that lost its disk counts from 1 again.
                                case Put(key=key, revision=revision):
                                    missing.discard(key)
                                    if known.get(key) != revision:
                                        known[key] = revision
                                        yield change
                    finally:
                        forget()
            except (nats.errors.Error, TimeoutError) as error:
                log.debug("kv.watch_retry", error=repr(error), bucket=self._bucket)
                await asyncio.sleep(WATCH_RETRY_S)


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
