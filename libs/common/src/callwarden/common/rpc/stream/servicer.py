"""The answering side of a coalescing stream.

A handler takes the request message and gives the reply message in whichever way is cheapest for it:
- a plain function that returns the reply: answered in the same turn of the loop, no Task, no Future;
- a plain function that returns an asyncio.Future of the reply (group commit): one callback, no Task;
- a coroutine (`async def`): a Task each, and everything a Task may do.
A plain function may also decide as it goes: the cached answer at once, a coroutine for the rest. Over both sides, at 64
in flight, the three cost about 13, 16 and 20 µs (benchmarks/stream.py). Beginning a coroutine without a Task, as Python
3.12 can, would save a third of the difference; done by hand on 3.11 it would run under the reader's Task, so that an
asyncio.timeout() in a handler cancelled the reader.

Inside, `trace.deadline_remaining_s()` is how long the caller will wait, and logs carry trace and Call-ID. When the
time has passed or the caller has cancelled, the Task or Future is cancelled and nothing is answered.
"""

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from callwarden.api.stream.v1 import stream_pb2
from callwarden.common import trace
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Counter, Histogram, Metric, Metrics
from callwarden.common.rpc import direct
from callwarden.common.rpc.access import ROLES
from callwarden.common.rpc.gate import Roles
from callwarden.common.rpc.interceptors import RPC_SECONDS, RPCS, SERVING, Serving, log_failure
from callwarden.common.rpc.status import INTERNAL_TEXT, to_status
from callwarden.common.rpc.stream.bounds import (
    FRAME_BYTES_MAX,
    FRAME_ITEMS_MAX,
    GOODBYE_ID,
    IN_FLIGHT_MAX,
    ITEM_BYTES_MAX,
    STREAMS_WORTH,
    SWEEP_S,
)
from callwarden.kernel.clock import MonoS
from callwarden.kernel.errors import Denied, Exhausted, Internal, Invalid

log = get_logger(__name__)

# The reply, or what gives it when awaited. Any: each method has its own pair of generated types.
Handler: TypeAlias = Callable[[Any], Any | Awaitable[Any]]

TIMEOUT_DEFAULT_MS: Final = 5_000  # for a client that names none

STREAMS = Metric("callwarden_stream_server_streams", "gauge", "{streams}", "Streams that are open.")
RUNNING = Metric("callwarden_stream_server_running", "gauge", "{requests}", "Requests being worked on.")
DROPPED = Metric(
    "callwarden_stream_server_dropped_total",
    "counter",
    "{requests}",
    "Requests given up because the caller had cancelled, its time had passed or its stream had ended.",
    labels=("why",),
)

_OK: Final = 0


class StreamServicer:
    """Serves `Stream` of one service: inherit from it before the generated servicer.

    class AuthGrpc(StreamServicer, AuthServiceServicer):
        def __init__(self, app: Auth) -> None:
            super().__init__({"Verify": (VerifyRequest, self._verify)})
    """

    def __init__(self, handlers: Mapping[str, tuple[Any, Handler]], *, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        """`handlers` by the method's short name: the request's message class, and what answers it.

        One stream may have `in_flight_max` requests being worked on, all together STREAMS_WORTH times that.
        """
        self._handlers = dict(handlers)
        self._in_flight_max = in_flight_max
        self._load = _Load(in_flight_max * STREAMS_WORTH)
        self._streams: set[_ServedStream] = set()
        self._measured: set[Metrics] = set()  # those that read this servicer already

    async def Stream(  # noqa: N802 - the name in the .proto
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[stream_pb2.Frame]:
        """One client's stream, until it ends, breaks or is drained."""
        # The latter on a server without our interceptor.
        serving, method, roles = SERVING.get() or (Serving(), "/Stream", ROLES)
        self._measure(serving)
        service = method.removesuffix("/Stream")
        stream = _ServedStream(self._handlers, self._in_flight_max, self._load, serving, service, roles)
        self._streams.add(stream)
        tasks = (
            asyncio.create_task(stream.read(request_iterator), name="stream reader"),
            asyncio.create_task(stream.say_goodbye(), name="stream drain"),
        )
        token, offer = serving.direct.offer(stream.adopt) if serving.direct.port else (b"", ())
        try:
            await context.send_initial_metadata(offer)  # shows the client that the stream is open
            while (frame := await stream.next_frame()) is not None:
                yield frame
        finally:
            self._streams.discard(stream)
            serving.direct.withdraw(token)
            for task in tasks:
                task.cancel()
            stream.abandon()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    def _measure(self, serving: Serving) -> None:
        if serving.metrics not in self._measured:
            self._measured.add(serving.metrics)
            serving.metrics.observe(STREAMS, lambda: len(self._streams))
            serving.metrics.observe(RUNNING, lambda: self._load.running)


class _Load:
    """What all streams of a servicer work on together, and the most they may."""

    __slots__ = ("most", "running")

    def __init__(self, most: int) -> None:
        self.running = 0
        self.most = most


class _Meter:
    """Counts of one method on one stream, looked up once."""

    __slots__ = ("_name", "_serving", "ok", "seconds")

    def __init__(self, serving: Serving, name: str) -> None:
        self._serving, self._name = serving, name
        self.ok: Counter = serving.metrics.counter(RPCS, name, "OK")
        self.seconds: Histogram = serving.metrics.histogram(RPC_SECONDS, name)

    def failed(self, code: grpc.StatusCode) -> None:
        self._serving.metrics.counter(RPCS, self._name, code.name).value += 1


# A reply that waits to be written: id, payload, status, text, meter of its method, when the request came.
_Reply: TypeAlias = tuple[int, bytes, int, str, _Meter | None, float]


class _ServedStream:
    """The state of one stream. `running`: the requests in progress, with their deadlines."""

    def __init__(
        self,
        handlers: Mapping[str, tuple[Any, Handler]],
        in_flight_max: int,
        load: "_Load",
        serving: Serving,
        service: str,
        roles: Roles,
    ) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._in_flight_max = in_flight_max
        self._serving = serving
        self._methods = {
            name: (request_type, handler, _Meter(serving, f"{service}/{name}"))
            for name, (request_type, handler) in handlers.items()
            if serving.gate.allows(f"{service}/{name}", roles)
        }
        # Known, and not for this caller, who stays the same for as long as the stream lives.
        self._denied = handlers.keys() - self._methods.keys()
        self.running: dict[int, tuple[asyncio.Future[Any], float, Any]] = {}
        self._replies: deque[_Reply] = deque()
        self._wake = asyncio.Event()
        self._written = asyncio.Event()
        self._link: direct.Link | None = None  # where replies go instead of the gRPC stream, once it is open
        self._flushing = False
        self._client_done = False
        self._goodbye = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._service = service
        self._tracing = serving.tracer.enabled
        self._verbose = log.verbose

    async def read(self, frames: AsyncIterator[stream_pb2.Frame]) -> None:
        """Begin the work of each request as it comes; returns when the client has closed its side."""
        try:
            async for frame in frames:
                self._take_frame(frame)
                while len(self._replies) >= self._in_flight_max:  # a client that does not read gets no more work done
                    self._written.clear()
                    await self._written.wait()
        except grpc.aio.BaseError as error:  # the stream is gone; any other error is ours, and Stream reports it
            log.debug("stream.read_failed", error=repr(error))
        finally:
            self._client_done = True
            self._wake.set()

    def _take_frame(self, frame: stream_pb2.Frame) -> None:
        mono_s = MonoS(time.monotonic())
        for item in frame.items:
            method = item.method  # reading a field costs 0.15 µs: none is read twice
            if method or not item.cancel:
                self._begin(item, method, mono_s)
            else:
                self._give_up(item.id, "cancelled")

    def adopt(self, link: direct.Link) -> None:
        """The client has come by its direct connection: frames come and go there from now on."""
        self._link = link
        link.attach(self._take_bytes, self._notify)

    def _take_bytes(self, data: bytes) -> None:
        link = self._link
        try:
            frame = stream_pb2.Frame.FromString(data)
        except DecodeError:
            log.warning("stream.direct_garbled", service=self._service)
            if link is not None:
                link.abort()
            return
        self._take_frame(frame)
        if link is not None and len(self._replies) >= self._in_flight_max:
            link.hold_reading(True)  # a client that does not read gets no more work done

    def _notify(self) -> None:
        """Something waits to be written."""
        if self._link is None:
            self._wake.set()
        elif not self._flushing:
            # In the next turn of the loop: what is answered in this one goes together.
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        link = self._link
        if link is None:
            return
        try:
            while self._replies and not link.paused:
                link.send(self._pack().SerializeToString())
        except Exception as error:  # a stream that can't answer had better be seen to be gone
            log.error("stream.write_failed", error=error, service=self._service)
            link.abort()
            return
        if len(self._replies) < self._in_flight_max:
            link.hold_reading(False)

    def _begin(self, item: stream_pb2.Item, method: str, mono_s: MonoS) -> None:
        item_id = item.id
        found = self._methods.get(method)
        if found is None and method in self._denied:
            meter = _Meter(self._serving, f"{self._service}/{method}")
            self._fail(item_id, Denied(f"this caller may not call {method}"), meter, mono_s)
            return
        if found is None:
            self._reply(item_id, b"", grpc.StatusCode.UNIMPLEMENTED.value[0], "no such method", None, mono_s)
            return
        request_type, handler, meter = found
        running = self.running
        if len(running) >= self._in_flight_max or self._load.running >= self._load.most or item_id in running:
            self._fail(item_id, Exhausted("too many requests are under way"), meter, mono_s)
            return
        deadline_s = mono_s + (item.timeout_ms or TIMEOUT_DEFAULT_MS) / 1000
        # Set in the reader's own context: a plain function sees it, a Task copies it.
        traceparent = item.traceparent
        trace.set_scope(trace.Scope(traceparent, item.call_id, deadline_s))
        if self._verbose:
            log.debug("stream.request", method=f"{self._service}/{method}")
        try:
            request = request_type.FromString(item.payload)
        except DecodeError:
            self._fail(item_id, Invalid("the request doesn't parse"), meter, mono_s)
            return
        try:
            result: Any
            if self._tracing and traceparent.endswith("1"):
                result = self._traced(method, handler, request)
            else:
                result = handler(request)
            serialise = getattr(result, "SerializeToString", None)
            if serialise is not None:
                self._succeed(item_id, serialise(), meter, mono_s)
                return
            work: asyncio.Future[Any]
            if isinstance(result, asyncio.Future):
                work = result
                work.add_done_callback(lambda done: self._done(item_id, done, meter, mono_s))
            else:
                work = self._loop.create_task(self._finish(item_id, result, meter, mono_s))
        except Exception as error:
            self._fail(item_id, error, meter, mono_s)
            return
        self.running[item_id] = work, deadline_s, result
        self._load.running += 1
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    async def _finish(self, item_id: int, result: Awaitable[Any], meter: _Meter, began_s: float) -> None:
        """Cheaper than a done callback: one turn of the loop less."""
        try:
            payload = (await result).SerializeToString()
        except asyncio.CancelledError:
            if self._take(item_id):  # cancelled from elsewhere: the client still waits
                self._fail(item_id, Internal("cancelled"), meter, began_s)
            raise
        except Exception as error:
            if self._take(item_id):
                self._fail(item_id, error, meter, began_s)
        else:
            if self._take(item_id):
                self._succeed(item_id, payload, meter, began_s)

    def _take(self, item_id: int) -> bool:
        """Whether it is still ours to answer; it is no longer after this."""
        if self.running.pop(item_id, None) is None:
            return False
        self._load.running -= 1
        return True

    def _done(self, item_id: int, done: asyncio.Future[Any], meter: _Meter, began_s: float) -> None:
        if not self._take(item_id):
            if not done.cancelled():
                done.exception()  # given up: its result is not read
            return
        if done.cancelled():
            self._fail(item_id, Internal("cancelled"), meter, began_s)
        else:
            try:
                self._succeed(item_id, done.result().SerializeToString(), meter, began_s)
            except Exception as error:  # the handler's, or what it gave is no message
                self._fail(item_id, error, meter, began_s)

    async def _traced(self, name: str, handler: Handler, request: Any) -> Any:
        with self._serving.tracer.span(f"{self._service}/{name}"):
            result = handler(request)
            return result if hasattr(result, "SerializeToString") else await result

    def _succeed(self, item_id: int, payload: bytes, meter: _Meter, began_s: float) -> None:
        if len(payload) > ITEM_BYTES_MAX:
            self._fail(item_id, Internal("the reply is too large for a stream"), meter, began_s)
            return
        self._reply(item_id, payload, _OK, "", meter, began_s)

    def _fail(self, item_id: int, error: BaseException, meter: _Meter, began_s: float) -> None:
        code, text, _ = to_status(error)
        log_failure(f"{self._service} on stream", code, error)
        meter.failed(code)
        self._reply(item_id, b"", code.value[0], text or INTERNAL_TEXT, meter, began_s)

    def _reply(
        self, item_id: int, payload: bytes, status: int, text: str, meter: _Meter | None, began_s: float
    ) -> None:
        self._replies.append((item_id, payload, status, text, meter, began_s))
        self._notify()

    async def next_frame(self) -> stream_pb2.Frame | None:
        """What is ready to be written, waiting for it if nothing is; None when all is said."""
        while not self._replies or self._link is not None:
            if self._goodbye:
                self._goodbye = False
                goodbye = stream_pb2.Frame()
                goodbye.items.add(id=GOODBYE_ID, status=grpc.StatusCode.UNAVAILABLE.value[0], error="shutting down")
                return goodbye
            if self._client_done and not self.running:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._pack()

    def _pack(self) -> stream_pb2.Frame:
        frame = stream_pb2.Frame()
        add = frame.items.add
        mono_s = MonoS(time.monotonic())
        frame_bytes = items = 0
        while self._replies and items < FRAME_ITEMS_MAX and frame_bytes < FRAME_BYTES_MAX:
            item_id, payload, status, text, meter, began_s = self._replies.popleft()
            if status:
                add(id=item_id, status=status, error=text)
            else:
                add(id=item_id, payload=payload)
                if meter is not None:
                    meter.ok.value += 1
            if meter is not None:
                meter.seconds.record(mono_s - began_s)
            items += 1
            frame_bytes += len(payload)
        self._written.set()
        return frame

    async def say_goodbye(self) -> None:
        """Notifies the client when the process shuts down."""
        await self._serving.stopping.wait()
        self._goodbye = True
        self._wake.set()

    def _sweep(self) -> None:
        mono_s = MonoS(time.monotonic())
        for item_id in [item_id for item_id, (_, deadline_s, _) in self.running.items() if deadline_s <= mono_s]:
            self._give_up(item_id, "expired")
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep) if self.running else None

    def _give_up(self, item_id: int, why: str) -> None:
        found = self.running.pop(item_id, None)
        if found is not None:
            self._load.running -= 1
            self._serving.metrics.counter(DROPPED, why).value += 1
            work, _, awaited = found
            work.cancel()
            # A Task that is cancelled before its first step never comes to awaiting its coroutine.
            if inspect.iscoroutine(awaited) and inspect.getcoroutinestate(awaited) == inspect.CORO_CREATED:
                awaited.close()
            self._wake.set()

    def abandon(self) -> None:
        """The stream is gone: no caller waits for the requests in progress."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for item_id in list(self.running):
            self._give_up(item_id, "stream ended")
        if self._link is not None:
            self._link.close()
