"""Edges without SIP: they ask call-admission over its stream and tell over NATS what becomes of the calls.

For tests and benchmarks of admission itself, where SIP would only stand in the way. Every field of what is asked and
told is the caller's to choose, wrong ones included. Not here: accounts and policies (callwarden.testing.operator).
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from callwarden.api.admission.v1 import admission_pb2
from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Bus, Publisher, Stream
from callwarden.common.rpc.stream import StreamPool
from callwarden.local.system import LocalSystem
from callwarden.testing.consumed import consumed

SERVICE: Final = "callwarden.api.admission.v1.AdmissionService"
CONNECT_TIMEOUT_S: Final = 30.0


@dataclass(slots=True, eq=False)
class TrackedCall:
    """One call as its edge knows it."""

    account_id: str
    destination: str = "493012345"
    source_address: str = "192.0.2.7"
    caller_number: str = ""
    local: bool = False
    trunk: str = "carrier"
    """By which it goes out, if it is admitted."""
    at_s: float = field(default_factory=time.time)
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the AdmitRequest, by name."""
    hold_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    reply: admission_pb2.AdmitReply | None = None
    """None: no answer, or not yet."""
    granted_s: int = 0
    """Talk time that the edge knows to be paid for."""
    answered_at_s: float = 0.0
    ended_at_s: float = 0.0

    @property
    def call_id(self) -> str:
        return f"call-{self.hold_id}"

    @property
    def is_admitted(self) -> bool:
        return self.reply is not None and self.reply.HasField("admitted")

    @property
    def refused(self) -> admission_pb2.Refused | None:
        return self.reply.refused if self.reply is not None and self.reply.HasField("refused") else None

    def request(self) -> admission_pb2.AdmitRequest:
        return admission_pb2.AdmitRequest(
            hold_id=self.hold_id,
            call_id=self.call_id,
            account_id=self.account_id,
            destination=self.destination,
            dialled=self.destination,
            caller_number=self.caller_number,
            source_address=self.source_address,
            local=self.local,
            at_s=self.at_s,
            edge="test",
            **self.more,
        )


class Edges:
    """Several edges, each with a connection to every call-admission process; one connection to NATS for all.

    Use as `async with Edges(system) as edges`. Which process a call asks
    first is said by number (`turn`), so that calls can be spread, or sent to two processes at once; while that process
    is down, the next one is asked, as real edges do.
    """

    def __init__(self, system: LocalSystem, *, edges: int = 1) -> None:
        targets, credentials = system.targets("call-admission"), system.credentials("edge-proxy")
        self._pools = [StreamPool(SERVICE, targets, in_turn, credentials=credentials) for _ in range(edges)]
        self._bus = Bus(system.nats_url, name="edges")
        self._stack = contextlib.AsyncExitStack()
        self.processes = len(targets)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            for pool in self._pools:
                await stack.enter_async_context(pool)
            bus = await stack.enter_async_context(self._bus)
            self._events: Publisher = await stack.enter_async_context(bus.publisher())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def connected(self) -> None:
        """Returns when every edge has a connection to every process."""
        ups = await asyncio.gather(*(pool.wait_up(CONNECT_TIMEOUT_S) for pool in self._pools))
        if not all(ups):
            raise AssertionError(f"not every process was there within {CONNECT_TIMEOUT_S:g} s")

    def _pool(self, turn: int) -> StreamPool:
        # All processes from the first edge, then all from the next one: turns 0 … n visit every connection.
        return self._pools[turn // self.processes % len(self._pools)]

    async def admit(self, call: TrackedCall, turn: int, *, timeout_s: float = 10.0) -> admission_pb2.AdmitReply:
        """Asks, and asks elsewhere if a process is gone; the answer is kept in the call, too."""
        reply = await self._pool(turn).call(
            str(turn), "Admit", call.request(), admission_pb2.AdmitReply, timeout_s=timeout_s, idempotent=True
        )
        call.reply = reply
        if call.is_admitted:
            call.granted_s = max(call.granted_s, reply.admitted.granted_s)
        return reply

    async def extend(self, call: TrackedCall, turn: int, *, timeout_s: float = 10.0) -> admission_pb2.ExtendReply:
        """Asks for the next slice of an answered call; what is granted is kept in the call, too."""
        request = admission_pb2.ExtendRequest(
            hold_id=call.hold_id,
            call_id=call.call_id,
            account_id=call.account_id,
            answered_at_s=call.answered_at_s,
            granted_s=call.granted_s,
        )
        reply = await self._pool(turn).call(
            str(turn), "Extend", request, admission_pb2.ExtendReply, timeout_s=timeout_s, idempotent=True
        )
        if reply.HasField("extended"):
            call.granted_s = max(call.granted_s, reply.extended.granted_s)
        return reply

    def started(self, call: TrackedCall, *, message_id: str = "") -> None:
        """Tells that the call was answered."""
        event = events_pb2.CallStarted(
            hold_id=call.hold_id,
            call_id=call.call_id,
            account_id=call.account_id,
            answered_at_s=call.answered_at_s,
            trunk=call.trunk,
        )
        self._events.publish(
            "calls.started", event.SerializeToString(), message_id=message_id or f"{call.hold_id}.started"
        )

    def ended(self, call: TrackedCall, reason: str = "caller-bye", *, message_id: str = "") -> None:
        """Tells that the call is over; a `message_id` of its own makes it a second telling of the same."""
        event = events_pb2.CallEnded(
            hold_id=call.hold_id,
            call_id=call.call_id,
            account_id=call.account_id,
            answered_at_s=call.answered_at_s,
            ended_at_s=call.ended_at_s or time.time(),
            reason=reason,
            sip_status=0 if call.answered_at_s else 487,  # as an edge tells that it wasn't answered
            trunk=call.trunk,
        )
        self._events.publish("calls.ended", event.SerializeToString(), message_id=message_id or f"{call.hold_id}.ended")

    async def flush(self) -> None:
        """Returns when JetStream has all that was told."""
        await self._events.flush()

    async def consumed(self, durable: str = "call-admission") -> bool:
        """Whether call-admission has taken in all that JetStream has for it."""
        return await consumed(self._bus, Stream.CALLS, durable)


def in_turn(key: str, targets: Sequence[str]) -> Sequence[str]:
    """A ranking for StreamPool whose keys are numbers: the key-th target first, then those after it."""
    first = int(key) % len(targets)
    return [*targets[first:], *targets[:first]]
