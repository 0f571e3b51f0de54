"""The policy bundle in NATS KV, as the command line changes it: compare-and-set, then wait for who runs it.

In: reading, applying, deleting, who acknowledged what. Out: what a policy may say (callwarden.policy), how a service
takes it (callwarden.common.policy). On Kubernetes the operator writes the same bundle from SecurityPolicy resources.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from callwarden.api.policy.v1.policy_pb2 import Ack
from callwarden.cli.failure import Failure
from callwarden.common.bus import Bucket, Bus, KeyValue
from callwarden.common.policy import BUNDLE_KEY, ack_key, encode_bundle, parse_bundle
from callwarden.kernel.errors import Conflict, Unavailable
from callwarden.policy.bundle import BadPolicy, Document, Key, PolicySet

CONNECT_TIMEOUT_S: Final = 3.0
ACKS_TIMEOUT_S: Final = 2.0  # A service takes a new bundle within one second.
_CONFLICTS_MAX: Final = 5  # Others apply at the same time; five in a row is no coincidence.
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class RunningRevision:
    """What one process runs."""

    service: str
    instance: str
    revision: int
    applied_at_s: float

    @property
    def key(self) -> str:
        return ack_key(self.service, self.instance)


@dataclass(frozen=True, slots=True)
class AppliedChange:
    """The result of applying or deleting: the policies now in force, and the names of those that changed."""

    policies: PolicySet
    changed: tuple[str, ...]


class PolicyStore:
    """The two buckets of one bus."""

    def __init__(self, policy: KeyValue, acks: KeyValue, live: Collection[str] = ()) -> None:
        """`live`: `<service>.<instance>` of the processes that run, where that is known; only these are looked at."""
        self._policy = policy
        self._acks = acks
        self._live = frozenset(live)

    async def load(self) -> PolicySet:
        """The policies in force; revision 0 and no document where none was ever applied."""
        return (await self._read())[0]

    async def apply(self, documents: Sequence[Document]) -> AppliedChange:
        """Put these documents in the place of those of the same keys. BadPolicy if the whole can't hold together."""

        def change(current: PolicySet) -> tuple[PolicySet, tuple[str, ...]]:
            held = {document.key: document.to_json() for document in current.documents}
            changed = tuple(document.name for document in documents if held.get(document.key) != document.to_json())
            return current.with_applied(documents), changed

        return await self._change(change)

    async def delete(self, key: Key) -> AppliedChange:
        """Take a document out. Failure if it isn't there."""

        def change(current: PolicySet) -> tuple[PolicySet, tuple[str, ...]]:
            if all(document.key != key for document in current.documents):
                raise Failure(f"no {key.kind} is called {key.name}: `callwarden policy list` shows them")
            return current.without(key), (key.name,)

        return await self._change(change)

    async def running(self) -> list[RunningRevision]:
        """What each process last acknowledged, by service and instance. Of those that ended where it isn't known who
        lives: their acknowledgement stays for a while.
        """
        found = []
        for key, entry in (await self._acks.items()).items():
            service, _, instance = key.partition(".")
            if self._live and key not in self._live:
                continue
            ack = Ack.FromString(entry.value)
            found.append(RunningRevision(service, instance, ack.revision, ack.applied_at_s))
        return sorted(found, key=lambda one: (one.service, one.instance))

    async def await_acks(self, revision: int, *, timeout_s: float = ACKS_TIMEOUT_S) -> list[RunningRevision]:
        """Wait until everyone who follows policies runs this revision, or the time is up; who runs what then."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            running = await self.running()
            if not behind(revision, running) or time.monotonic() >= deadline_s:
                return running
            await asyncio.sleep(_POLL_S)

    async def _change(self, change: Callable[[PolicySet], tuple[PolicySet, tuple[str, ...]]]) -> AppliedChange:
        for _ in range(_CONFLICTS_MAX):
            current, sequence = await self._read()
            wanted, changed = change(current)
            if not changed:
                return AppliedChange(current, ())
            try:
                # Sequence 0: only if the key was never written.
                await self._policy.put(BUNDLE_KEY, encode_bundle(wanted, time.time()), revision=sequence)
            except Conflict:
                continue
            return AppliedChange(wanted, changed)
        raise Failure("others keep changing the policies at the same time: try again")

    async def _read(self) -> tuple[PolicySet, int]:
        entry = await self._policy.get(BUNDLE_KEY)
        if entry is None:
            return PolicySet.build(0, ()), 0
        try:
            return parse_bundle(entry.value), entry.revision
        except (ValueError, BadPolicy) as error:
            raise Failure("the policy bundle in NATS can't be read: another version of Callwarden wrote it") from error


def behind(revision: int, running: Iterable[RunningRevision]) -> list[str]:
    """Who runs an older revision, as `<service>.<instance>`."""
    return [one.key for one in running if one.revision < revision]


@asynccontextmanager
async def connect(nats_url: str, live: Collection[str] = ()) -> AsyncIterator[PolicyStore]:
    """The store on that bus; `live` as in PolicyStore. Failure if it doesn't answer or stops answering."""
    bus = Bus(nats_url, name="callwarden-cli", declare=False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await bus.__aenter__()
    except (Unavailable, TimeoutError) as error:
        await bus.__aexit__(None, None, None)
        raise Failure("NATS doesn't answer: is the system running? `callwarden up` starts one") from error
    try:
        yield PolicyStore(bus.kv(Bucket.POLICY), bus.kv(Bucket.POLICY_ACKS), live)
    except Unavailable as error:
        raise Failure(f"{error.message}; `callwarden policy status` shows what is in force") from error
    finally:
        await bus.__aexit__(None, None, None)
