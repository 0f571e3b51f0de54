"""The asking side of a coalescing stream: one connection, kept open, to one target."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from callwarden.api.stream.v1 import stream_pb2
from callwarden.common import trace
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.rpc import direct
from callwarden.common.rpc.interceptors import bounded_timeout_s
from callwarden.common.rpc.status import to_error
from callwarden.common.rpc.stream.bounds import (
    FRAME_BYTES_MAX,
    FRAME_ITEMS_MAX,
    GOODBYE_ID,
    IN_FLIGHT_MAX,
    ITEM_BYTES_MAX,
    SWEEP_S,
)
from callwarden.kernel.errors import CallwardenError, Exhausted, Internal, Invalid, TimedOut, Unavailable

log = get_logger(__name__)

RECONNECT_MIN_S: Final = 0.05
RECONNECT_MAX_S: Final = 1.0  # A restarted process is up in a second or two; asking once a second costs nothing.
CONNECT_PATIENCE_S: Final = 1.0  # Calls wait this long for a first connection; then they fail at once until it is open.
ATTEMPT_S: Final = 10.0  # Then it restarts with the certificates of that moment, which may have been the reason.
STABLE_S: Final = 1.0  # A connection that lived this long was a good one: reconnect without growing pauses.

CALLS = Metric(
    "callwarden_stream_client_calls_total", "counter", "{requests}", "Requests sent on a stream.", labels=("target",)
)
FRAMES = Metric(
    "callwarden_stream_client_frames_total", "counter", "{messages}", "Messages they were packed into.", ("target",)
)
BREAKS = Metric(
    "callwarden_stream_client_breaks_total", "counter", "{breaks}", "Streams that broke or never stood.", ("target",)
)
IN_FLIGHT = Metric(
    "callwarden_stream_client_in_flight", "gauge", "{requests}", "Requests that wait for an answer.", labels=("target",)
)


class Message(Protocol):
    """The part of a protobuf message that is needed here."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802


ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class MessageType(Protocol[ReplyT_co]):
    """A generated message class."""

    def FromString(self, s: bytes) -> ReplyT_co: ...  # noqa: N802


class StreamClient:
    """Calls methods of one service over one stream. `async with`, or `await runtime.open(StreamClient(…))`.

    It connects by itself, again and again; while it has no connection, calls fail with Unavailable at once.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        service: str,
        *,
        target: str = "",
        in_flight_max: int = IN_FLIGHT_MAX,
        metrics: Metrics | None = None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`service` is the full name, e.g. "callwarden.api.auth.v1.AuthService"; `target` names it in logs, metrics."""
        self._method: Any = channel.stream_stream(
            f"/{service}/Stream",
            request_serializer=stream_pb2.Frame.SerializeToString,
            response_deserializer=stream_pb2.Frame.FromString,
        )
        self.target = target or service
        self._in_flight_max = in_flight_max
        self._rng = rng
        self._connection: _Connection | None = None  # where new calls go; None while there is none
        self._has_connection = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics = metrics = metrics or Metrics()
        self._breaks = metrics.counter(BREAKS, self.target)
        self._counts = (metrics.counter(CALLS, self.target), metrics.counter(FRAMES, self.target))

    @property
    def up(self) -> bool:
        """Whether a call made now would be sent (or wait for a first connection) rather than fail at once."""
        return self._connection is not None

    async def connected(self) -> None:
        """Return when the stream is open, as the server has confirmed; for callers that can do nothing without it."""
        await self._has_connection.wait()

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer on the current connection."""
        return len(self._connection.pending) if self._connection else 0

    async def __aenter__(self) -> "StreamClient":
        self._forget = self._metrics.observe(IN_FLIGHT, lambda: {(self.target,): self.in_flight})
        self._keeper = asyncio.create_task(self._keep_connected(), name=f"stream {self.target}")
        await asyncio.sleep(0)  # let it begin, so that a call made now finds a connection to wait for
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._forget()
        self._connection = None
        tasks = [self._keeper, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def call(
        self, method: str, request: Message, reply_type: MessageType[ReplyT_co], *, timeout_s: float
    ) -> ReplyT_co:
        """Ask `method` (its short name) and wait for the reply.

        The deadline is `timeout_s` from now, or that of the request we are serving if it is earlier, noticed up to 10
        ms late. Trace and Call-ID of the current scope go along. Cancelling the caller cancels the work on the
        server. Raises what the server meant; TimedOut; Unavailable (no connection, or it broke: `NotSent` if the
        server can't have seen the request); Exhausted when too much is in flight already; Invalid above 1 MiB.
        """
        connection = self._connection
        if connection is None:
            raise NotSent(f"{self.target} is not available")
        payload = request.SerializeToString()
        if len(payload) > ITEM_BYTES_MAX:
            raise Invalid(f"a request to {method} is larger than {ITEM_BYTES_MAX} bytes")
        # What waits to be written counts, too: its callers may have given up, so that `pending` alone has no bound.
        if len(connection.pending) >= self._in_flight_max or len(connection.queue) >= self._in_flight_max:
            raise Exhausted(f"too many requests to {self.target} are under way")
        reply = await connection.ask(method, payload, bounded_timeout_s(timeout_s))
        try:
            return reply_type.FromString(reply)
        except DecodeError as error:
            raise Internal(f"the reply of {method} doesn't parse") from error

    async def finish(self, timeout_s: float) -> None:
        """Ask nothing new any more, and return when all that was asked is answered, after `timeout_s` at the latest."""
        self._keeper.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _keep_connected(self) -> None:
        """Have a connection, always. Runs until cancelled."""
        failures = 0
        waits_for_it = True  # the first one, and one after a goodbye: calls may wait for it instead of failing
        while True:
            started_s = time.monotonic()
            connection = _Connection(self._method, self.target, self._counts, wait_for_ready=failures > 0)
            task = asyncio.create_task(connection.run(), name=f"stream {self.target} connection")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if waits_for_it:
                self._connection = connection
                await asyncio.wait({connection.opened}, timeout=CONNECT_PATIENCE_S)
                if not connection.opened.done():
                    self._connection = None
                    connection.fail(NotSent(f"{self.target} is not available"))
            await asyncio.wait({connection.opened}, timeout=ATTEMPT_S)
            if not connection.opened.done():
                task.cancel()
            if await connection.opened:
                self._connection = connection
                self._has_connection.set()
                await connection.leaving
                self._has_connection.clear()
            self._connection = None
            waits_for_it = connection.goodbye
            if not connection.goodbye:
                self._breaks.value += 1
                failures = 1 if time.monotonic() - started_s > STABLE_S else failures + 1
            if not connection.goodbye or time.monotonic() - started_s < STABLE_S:
                pause_s = min(RECONNECT_MIN_S * 2 ** min(failures, 10), RECONNECT_MAX_S)
                await asyncio.sleep(pause_s * (0.5 + self._rng() / 2))  # not all clients at once


class NotSent(Unavailable):
    """There was no connection: the server has not seen the request, so that another one may be asked."""


# What waits to be written: id, method, payload, deadline on time.monotonic(), scope. A cancel has method "".
# A tuple instead of a dataclass, since one is made for each request (0.06 µs against 0.5).
_Waiting = tuple[int, str, bytes, float, trace.Scope]


class _Connection:
    """One stream from opening to its end. `pending`: the callers that wait; `queue`: what is not written yet."""

    def __init__(self, method: Any, target: str, counts: tuple[Any, Any], *, wait_for_ready: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._method = method
        self._target = target
        self._calls, self._frames = counts
        self._wait_for_ready = wait_for_ready
        self.pending: dict[int, tuple[asyncio.Future[bytes], float]] = {}
        self.queue: deque[_Waiting] = deque()
        self.goodbye = False
        self.opened: asyncio.Future[bool] = self._loop.create_future()
        self.leaving: asyncio.Future[None] = self._loop.create_future()  # nothing new any more
        self._wake = asyncio.Event()
        self._link: direct.Link | None = None  # where frames go instead of the gRPC stream, once it is open
        self._flushing = False
        self._last_id = GOODBYE_ID
        self._ended = False
        self._sweeper: asyncio.TimerHandle | None = None

    async def ask(self, method: str, payload: bytes, timeout_s: float) -> bytes:
        """The payload of the reply. Raises what `StreamClient.call` says."""
        if self._ended:
            raise NotSent(f"{self._target} is not available")
        deadline_s = time.monotonic() + timeout_s
        self._last_id = item_id = self._last_id + 1
        waiter = self._loop.create_future()
        self.pending[item_id] = waiter, deadline_s
        self.queue.append((item_id, method, payload, deadline_s, trace.current_scope()))
        self._notify()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        try:
            reply: bytes = await waiter
            return reply
        except asyncio.CancelledError:
            if self.pending.pop(item_id, None) is not None and not self._ended:
                self.queue.append((item_id, "", b"", 0.0, trace.current_scope()))
                self._notify()
            raise

    def _notify(self) -> None:
        """Something waits to be written."""
        if self._link is None:
            self._wake.set()
        elif not self._flushing:
            # In the next turn of the loop: what is asked in this one goes together.
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        link = self._link
        if link is None or self._ended:
            return
        try:
            while self.queue and not link.paused:
                frame = self._pack()
                if frame.items:
                    self._frames.value += 1
                    link.send(frame.SerializeToString())
        except Exception as error:  # as a failed writer of the gRPC stream: one that can't ask had better be gone
            log.error("stream.write_failed", error=error, target=self._target)
            link.abort()

    def leave(self) -> None:
        """End when everybody who waits has an answer: our own goodbye, as the server's."""
        self.goodbye = True
        if not self.leaving.done():
            self.leaving.set_result(None)
        self._wake.set()

    def fail(self, error: CallwardenError) -> None:
        """Tell everybody who waits."""
        waiting, self.pending = self.pending, {}
        self.queue.clear()
        for waiter, _ in waiting.values():
            if not waiter.done():
                # One object each: a raised exception grows by a traceback wherever it is raised again.
                waiter.set_exception(type(error)(error.message))

    async def run(self) -> None:
        """Open, write and read until the stream ends; never raises but when cancelled."""
        call = self._method(wait_for_ready=self._wait_for_ready)
        writer = asyncio.create_task(self._write(call))
        writer.add_done_callback(lambda done: self._written(done, call))
        reason = "closed"
        try:
            while (frame := await call.read()) is not grpc.aio.EOF:
                self._receive(frame)
            if await call.code() is not grpc.StatusCode.OK:
                reason = str(await call.details())
        except grpc.aio.AioRpcError as error:
            reason = error.details() or error.code().name
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                # No outage: it lasts until somebody sets the credentials right.
                log.warning("stream.refused", target=self._target, reason=reason)
        except asyncio.InvalidStateError as error:  # grpc.aio: the call ended while we asked for the next message
            reason = str(error)
        finally:
            self._end(reason)
            writer.cancel()
            call.cancel()
            with suppress(asyncio.CancelledError):
                await writer

    def _written(self, writer: "asyncio.Task[None]", call: Any) -> None:
        if not writer.cancelled() and (error := writer.exception()) is not None:
            log.error("stream.write_failed", error=error, target=self._target)
            call.cancel()  # a stream that can't ask had better be seen to be gone

    def _end(self, reason: str) -> None:
        self._ended = True
        never_opened = not self.opened.done()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if never_opened:
            self.opened.set_result(False)
        if not self.leaving.done():
            self.leaving.set_result(None)
        if not self.goodbye:
            log.debug("stream.ended", target=self._target, reason=reason, waiting=len(self.pending))
        unsent = {item_id for item_id, *_ in self.queue}
        for item_id, (waiter, _) in self.pending.items():
            if not waiter.done():
                error = NotSent if never_opened or item_id in unsent else Unavailable
                waiter.set_exception(error(f"{self._target} is not available"))
        self.pending.clear()
        self.queue.clear()

    async def _write(self, call: Any) -> None:
        # A failure here is the stream's end, which `run` sees and reports.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            await call.wait_for_connection()  # our servers send their headers at once
            self._link = link = await direct.connect(self._target, tuple(await call.initial_metadata()))
            if not self.opened.done():
                self.opened.set_result(True)
            if link is not None:
                await self._write_direct(call, link)
                return
            while True:
                while self.queue:
                    frame = self._pack()
                    if frame.items:
                        self._frames.value += 1
                        # While this waits for the transport, more gets into the queue: that is the coalescing.
                        await call.write(frame)
                if self.goodbye and not self.pending:
                    await call.done_writing()
                    return
                self._wake.clear()
                await self._wake.wait()

    async def _write_direct(self, call: Any, link: direct.Link) -> None:
        """Writing and reading are callbacks of the link; this waits for the end, whichever side brings it."""
        link.attach(self._receive_bytes, self._notify)
        self._notify()
        try:
            while not (self.goodbye and not self.pending):
                self._wake.clear()
                woken = self._loop.create_task(self._wake.wait())
                try:
                    await asyncio.wait({woken, link.lost}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
                if link.lost.done():
                    call.cancel()  # one way lost is the stream lost
                    return
            await call.done_writing()
        finally:
            link.close()

    def _receive_bytes(self, data: bytes) -> None:
        try:
            frame = stream_pb2.Frame.FromString(data)
        except DecodeError:
            log.warning("stream.direct_garbled", target=self._target)
            if self._link is not None:
                self._link.abort()
            return
        self._receive(frame)

    def _pack(self) -> stream_pb2.Frame:
        frame = stream_pb2.Frame()
        add = frame.items.add
        queue, pending = self.queue, self.pending
        mono_s = time.monotonic()
        frame_bytes = items = 0
        while queue and items < FRAME_ITEMS_MAX and frame_bytes < FRAME_BYTES_MAX:
            item_id, method, payload, deadline_s, scope = queue.popleft()
            if not method:
                add(id=item_id, cancel=True)
            elif (asked := pending.get(item_id)) is not None:  # otherwise its time has passed
                if asked[0].done():  # cancelled, and has not had its turn to say so
                    del pending[item_id]
                    continue
                item = add(
                    id=item_id, method=method, timeout_ms=max(1, int((deadline_s - mono_s) * 1000)), payload=payload
                )
                # A caller chose them, and they may not be Unicode (a lone surrogate): then they are left out.
                with suppress(ValueError):
                    if scope.traceparent:  # a field that is set to '' costs 0.3 µs, too
                        item.traceparent = scope.traceparent
                    if scope.call_id:
                        item.call_id = scope.call_id
            else:
                continue
            items += 1
            frame_bytes += len(payload)
        self._calls.value += items
        return frame

    def _receive(self, frame: stream_pb2.Frame) -> None:
        pending = self.pending
        for item in frame.items:
            found = pending.pop(item.id, None)
            if found is None:
                if item.id == GOODBYE_ID:
                    self.leave()
                continue  # or the answer comes after its time
            waiter = found[0]
            if waiter.done():  # cancelled in this very turn of the loop
                continue
            if item.status:
                waiter.set_exception(to_error(item.status, item.error))
            else:
                waiter.set_result(item.payload)
        if self.goodbye and not pending:
            self._wake.set()  # so that the writer closes its side

    def _sweep(self) -> None:
        """Tell those whose time has passed. One timer for all: see SWEEP_S."""
        mono_s = time.monotonic()
        late = [item_id for item_id, (_, deadline_s) in self.pending.items() if deadline_s <= mono_s]
        for item_id in late:
            waiter, _ = self.pending.pop(item_id)
            if not waiter.done():
                waiter.set_exception(TimedOut(f"{self._target} has not answered in time"))
        if self.goodbye and not self.pending:
            self._wake.set()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep) if self.pending else None
