"""The policy in force: follows the bundle in NATS KV, swaps it whole, acknowledges its revision.

Parsing and merging are in callwarden.policy; this module is about how a process notices a new bundle, and that profile
StressTest begins and ends at its time. A bundle that does not parse is logged and counted, and the last good one stays
in force (DESIGN.md D7).
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from google.protobuf.message import DecodeError

from callwarden.api.policy.v1 import policy_pb2
from callwarden.common.bus import Bucket, Bus, Put, Synced
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Unavailable
from callwarden.policy.bundle import Document, PolicySet, Result, Steps, default_set, finish
from callwarden.policy.model import PolicySpec

log = get_logger(__name__)

BUNDLE_KEY: Final = "bundle"
# For reading the bucket at start; NATS is connected by then, but the machine may be busy.
FIRST_TIMEOUT_S: Final = 60.0
# An acknowledgement is repeated while the process lives and expires after it, so that `status` shows live processes
# only: a killed one counts for up to ACK_TTL_S. Three repetitions may fail before that, as NATS elects a new leader in
# seconds; those of a hundred processes are 20 small messages a second.
ACK_EVERY_S: Final = 5.0
ACK_TTL_S: Final = 20.0
LEAVE_TIMEOUT_S: Final = 1.0  # for retracting it at the end; without NATS it expires
# 1,000 realms take 40 ms of CPU. Read at a quarter of a core, they neither keep a packet waiting for long nor take the
# cores from calls where many processes share them and all take the bundle over at the same moment.
SLICE_S: Final = 0.001
PAUSE_S: Final = 0.003

REVISION = Metric(
    "callwarden_policy_revision", "gauge", "1", "Revision of the policy bundle that this process enforces."
)
REFUSED = Metric("callwarden_policy_refused_total", "counter", "{bundles}", "Bundles that did not parse.")


def ack_key(service: str, instance: str) -> str:
    """Where in the bucket a process acknowledges."""
    return f"{service}.{instance}"


def parse_bundle(value: bytes) -> PolicySet:
    """The bundle's policies. Raises ValueError or a CallwardenError (BadPolicy) for an invalid one."""
    return finish(parse_in_steps(value))


def parse_in_steps(value: bytes) -> Steps[PolicySet]:
    """`parse_bundle` for an event loop: yields after each document and each realm."""
    try:
        bundle = policy_pb2.Bundle.FromString(value)
    except DecodeError as error:
        raise ValueError("not a policy bundle") from error
    documents = []
    for document in bundle.documents:
        documents.append(Document.from_object(json.loads(document.json)))
        yield
    return (yield from PolicySet.build_in_steps(bundle.revision, documents))


def encode_bundle(policies: PolicySet, written_s: float) -> bytes:
    """The bundle as services read it; `written_s`: Unix time."""
    documents = [policy_pb2.Document(name=document.name, json=document.to_json()) for document in policies.documents]
    return policy_pb2.Bundle(
        revision=policies.revision, created_at_s=written_s, documents=documents
    ).SerializeToString()


async def in_slices(steps: Steps[Result], clock: Clock) -> Result:
    """Does all the steps, and leaves the event loop alone for PAUSE_S after each SLICE_S of them."""
    began_s = clock.mono_s()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        if clock.mono_s() - began_s >= SLICE_S:
            await asyncio.sleep(PAUSE_S)
            began_s = clock.mono_s()


class Policies:
    """`policies = await runtime.policies()`; call `policies.for_realm(realm)` again for each decision."""

    def __init__(self, bus: Bus, service: str, instance: str, clock: Clock, metrics: Metrics) -> None:
        self.current: PolicySet = default_set()
        self._received = self.current  # as received; what of it is in force depends on the time
        self._received_value: bytes | None = None
        self._enforced = self.current.revision
        self._kv = bus.kv(Bucket.POLICY)
        self._acks = bus.kv(Bucket.POLICY_ACKS)
        self._service, self._instance = service, instance
        self._clock = clock
        self._applied_at_s = clock.unix_s()
        self._changed = asyncio.Event()
        self._synced = asyncio.Event()
        self._listeners: list[Callable[[PolicySet], None]] = []
        self._refused = metrics.counter(REFUSED)
        metrics.observe(REVISION, lambda: self._enforced)

    def for_realm(self, realm: str) -> PolicySpec:
        """The effective settings of one realm, now."""
        return self.current.for_realm(realm)

    def on_change(self, listener: Callable[[PolicySet], None]) -> None:
        """Call `listener` after each swap, for what is compiled from the policy. It runs in the event loop."""
        self._listeners.append(listener)

    async def wait_synced(self) -> None:
        """Return when the bucket's bundle is in force. Raises Unavailable after FIRST_TIMEOUT_S: a process that
        knows no policy doesn't start, since the defaults may allow what an operator has forbidden."""
        try:
            async with asyncio.timeout(FIRST_TIMEOUT_S):
                await self._synced.wait()
        except TimeoutError as error:
            raise Unavailable("the policy can't be read from NATS") from error

    async def follow(self) -> None:
        """Swap whenever there is a new bundle; for ever."""
        async for change in self._kv.watch(BUNDLE_KEY):
            match change:
                case Put(value=value):
                    await self._receive(value)
                case Synced():
                    self._synced.set()
                    self._changed.set()

    async def _receive(self, value: bytes) -> None:
        if value == self._received_value:  # sent again after a reconnect
            return
        try:
            policies = await in_slices(parse_in_steps(value), self._clock)
        except (ValueError, CallwardenError) as error:
            self._refused.value += 1
            log.error("policy.refused", error=error, bytes=len(value), revision_kept=self.current.revision)
            return
        self._received, self._received_value = policies, value
        self._applied_at_s = self._clock.unix_s()
        self._changed.set()
        log.info("policy.applied", revision=policies.revision, documents=len(policies.documents))
        self._swap(policies.at(self._applied_at_s))

    def _keep_time(self) -> None:
        """Swap where a StressTest has begun or ended."""
        policies = self._received.at(self._clock.unix_s())
        if policies.stressed != self.current.stressed:
            log.warning("policy.stress_test", realms=sorted(policies.stressed), revision=policies.revision)
            self._swap(policies)

    def _pause_s(self) -> float:
        """Until the next acknowledgement, or the next begin or end of a StressTest."""
        unix_s = self._clock.unix_s()
        next_s = self._received.next_change_s(unix_s)
        return ACK_EVERY_S if next_s is None else min(ACK_EVERY_S, next_s - unix_s)

    def _swap(self, policies: PolicySet) -> None:
        self.current = policies
        is_enforced = True
        for listener in self._listeners:
            try:
                listener(policies)
            except Exception as error:  # the boundary: the other listeners, and later ones, must be called, too
                log.error("policy.listener_failed", error=error, revision=policies.revision)
                is_enforced = False
        # Otherwise the previous revision remains acknowledged: status must never report a policy that is not enforced.
        if is_enforced:
            self._enforced = policies.revision

    async def acknowledge(self) -> None:
        """Report which revision is in force: at once after a swap, and again every ACK_EVERY_S; for ever. StressTests
        begin and end in between. It is cancelled when the process is about to end, and retracts the report."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._changed.wait()
                self._changed.clear()
                self._keep_time()
                await self._publish_ack()
        finally:
            await self._retract_ack()

    async def _publish_ack(self) -> None:
        ack = policy_pb2.Ack(
            service=self._service,
            instance=self._instance,
            revision=self._enforced,
            applied_at_s=self._applied_at_s,
        )
        try:
            await self._acks.put(ack_key(self._service, self._instance), ack.SerializeToString(), ttl_s=ACK_TTL_S)
        except CallwardenError as error:  # NATS is away: the next round tries again
            log.debug("policy.ack_failed", error=repr(error))

    async def _retract_ack(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._acks.delete(ack_key(self._service, self._instance))
        except (CallwardenError, TimeoutError) as error:
            log.debug("policy.ack_not_retracted", error=repr(error))
