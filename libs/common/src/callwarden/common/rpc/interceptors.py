"""What happens around every RPC: callers are known and allowed, errors become statuses, deadlines exist, trace and
Call-ID are passed on.

No text of an exception leaves the process: a CallwardenError speaks for itself, everything else is logged here and
answered with a fixed INTERNAL, for unary and streaming handlers both (grpc.aio would send `str(exception)`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio

from callwarden.common import trace
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.rpc.direct import DirectListener
from callwarden.common.rpc.gate import Gate, Roles
from callwarden.common.rpc.status import to_status
from callwarden.common.telemetry import Tracer
from callwarden.kernel.errors import CallwardenError, ErrorKind, TimedOut

log = get_logger(__name__)

DEADLINE_DEFAULT_S: Final = 5.0  # For a caller that set none; a call set-up that waits longer has been given up.

# Marks a status as written by one of our servers, so that the caller can trust the text; names the field, if any.
ERROR_KEY: Final = "callwarden-error"

RPCS = Metric("callwarden_rpc_requests_total", "counter", "{requests}", "RPCs served.", labels=("method", "code"))
RPC_SECONDS = Metric("callwarden_rpc_duration_seconds", "histogram", "s", "Time to serve an RPC.", labels=("method",))


@dataclass(frozen=True)
class Serving:
    """What a handler below may need of the server it runs in."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    tracer: Tracer = field(default_factory=lambda: Tracer(None))
    metrics: Metrics = field(default_factory=Metrics)
    direct: DirectListener = field(default_factory=DirectListener)
    """Where streams may continue outside gRPC; offered once the server has started it."""
    gate: Gate = field(default_factory=Gate)
    """Whom it lets in."""


# Set for each RPC: the server it came to, the full name of the method, and what its caller is.
SERVING: ContextVar[tuple[Serving, str, Roles] | None] = ContextVar("callwarden_serving", default=None)


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """The one interceptor of every server. Wraps each method once and remembers the wrapped one."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # answered UNIMPLEMENTED by grpc
            wrapped = self._wrapped[method] = self._wrap(method, handler)  # bounded: only registered methods
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(self._streaming(method, inner), **codecs)
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        make_unary = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make_unary(self._unary(method, inner), **codecs)

    def _unary(self, method: str, inner: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        counts = _Counts(self._serving.metrics, method)
        tracer, gate = self._serving.tracer, self._serving.gate

        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started_s = time.monotonic()
            remaining_s: float | None = context.time_remaining()
            budget_s = DEADLINE_DEFAULT_S if remaining_s is None else remaining_s
            trace.set_scope(_scope_of(context, started_s + budget_s))
            code = grpc.StatusCode.OK
            try:
                SERVING.set((self._serving, method, gate.admit(method, context)))
                with tracer.span(method):
                    # grpc cancels the handler when the caller's deadline passes; ours is for callers without one.
                    async with asyncio.timeout(budget_s if remaining_s is None else None):
                        return await inner(request, context)
            except grpc.aio.AbortError:
                code = context.code()
                raise
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                code, text, field_name = to_status(error)
                log_failure(method, code, error)
                await context.abort(code, text, ((ERROR_KEY, field_name),))
            finally:
                counts.served(code, time.monotonic() - started_s)

        return handle

    def _streaming(self, method: str, inner: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        counts, gate = _Counts(self._serving.metrics, method), self._serving.gate

        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            trace.set_scope(_scope_of(context, None))  # a stream lives as long as it lives: no deadline
            code = grpc.StatusCode.OK
            try:
                SERVING.set((self._serving, method, gate.admit(method, context)))
                replies = inner(request, context)
                if hasattr(replies, "__aiter__"):
                    async for reply in replies:
                        yield reply
                else:  # a coroutine that writes by itself
                    await replies
            except grpc.aio.AbortError:
                code = context.code()
                raise
            except (asyncio.CancelledError, GeneratorExit):
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                code, text, field_name = to_status(error)
                log_failure(method, code, error)
                await context.abort(code, text, ((ERROR_KEY, field_name),))
            finally:
                counts.served(code)  # the life of a stream is not the duration of its requests

        return handle


class _Counts:
    """Counter and histogram of one method; counters made when a code is first seen."""

    def __init__(self, metrics: Metrics, method: str) -> None:
        self._metrics = metrics
        self._method = method
        self._seconds = metrics.histogram(RPC_SECONDS, method)

    def served(self, code: Any, duration_s: float | None = None) -> None:
        name = code.name if isinstance(code, grpc.StatusCode) else str(code)
        self._metrics.counter(RPCS, self._method, name).value += 1
        if duration_s is not None:
            self._seconds.record(duration_s)


def _scope_of(context: grpc.aio.ServicerContext[Any, Any], deadline_s: float | None) -> trace.Scope:
    traceparent = call_id = ""
    for key, value in context.invocation_metadata() or ():
        if key == trace.TRACEPARENT_KEY:
            traceparent = str(value)
        elif key == trace.CALL_ID_KEY:
            call_id = str(value)[: trace.CALL_ID_BYTES_MAX]
    return trace.Scope(traceparent, call_id, deadline_s)


def log_failure(method: str, code: grpc.StatusCode, error: BaseException) -> None:
    """The caller gets a short text; the details are logged here."""
    if isinstance(error, CallwardenError) and error.kind is not ErrorKind.INTERNAL:
        log.debug("rpc.refused", method=method, code=code.name, message=error.message, field=error.field)
    else:
        log.error("rpc.failed", error=error, method=method)


class ClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds trace and Call-ID to every unary call, and a deadline: the asked one, never longer than our own caller's.

    Raises TimedOut at once if our own caller has given up already and no longer waits for the answer.
    """

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        timeout_s = bounded_timeout_s(client_call_details.timeout)
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), *trace.headers())
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            timeout_s,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


def bounded_timeout_s(timeout_s: float | None) -> float:
    """The timeout to give to a request we make: as asked (default 5 s), at most what our own caller has left."""
    wanted_s = DEADLINE_DEFAULT_S if timeout_s is None else timeout_s
    remaining_s = trace.deadline_remaining_s()
    if remaining_s is None or remaining_s >= wanted_s:
        return wanted_s
    if remaining_s <= 0:
        raise TimedOut("deadline exceeded")
    return remaining_s
