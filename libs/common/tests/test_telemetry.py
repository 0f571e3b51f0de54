"""Spans and metrics at a real collector's endpoint (its service in this process), and no cost without one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from callwarden.api.rateguard.v1 import rateguard_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2_grpc
from callwarden.common import trace
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.rpc.client import channel, unary
from callwarden.common.rpc.stream import StreamClient
from callwarden.common.telemetry import Telemetry

from .example_server import Serve

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = SAMPLED[:-1] + "0"
SERVICE = "callwarden.api.rateguard.v1.RateGuardService"


class Collector:
    """What an OpenTelemetry collector receives."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.resources: list[dict[str, str]] = []
        self.endpoint = ""

    def _resource(self, resource: Any) -> None:
        self.resources.append({item.key: item.value.string_value for item in resource.attributes})

    async def export_spans(self, request: Any, context: Any) -> Any:
        for resource_spans in request.resource_spans:
            self._resource(resource_spans.resource)
            for scope in resource_spans.scope_spans:
                self.spans |= {span.name: span for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()

    async def export_metrics(self, request: Any, context: Any) -> Any:
        for resource_metrics in request.resource_metrics:
            self._resource(resource_metrics.resource)
            for scope in resource_metrics.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    collecting = Collector()
    traces = trace_service_pb2_grpc.TraceServiceServicer()
    traces.Export = collecting.export_spans  # type: ignore[method-assign]
    metrics = metrics_service_pb2_grpc.MetricsServiceServicer()
    metrics.Export = collecting.export_metrics  # type: ignore[method-assign]
    server = grpc.aio.server()
    add_traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_traces(traces, server)
    add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_metrics(metrics, server)
    collecting.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield collecting
    await server.stop(0)


def telemetry_to(collector: Collector, metrics: Metrics | None = None) -> Telemetry:
    return Telemetry("auth", "auth-0", collector.endpoint, metrics or Metrics())


async def test_a_span_is_a_child_of_the_call_and_what_is_inside_is_its_child(collector: Collector) -> None:
    telemetry = telemetry_to(collector)
    with trace.scope(traceparent=SAMPLED, call_id="call@host"), telemetry.tracer.span("outer", lines=3) as span:
        span.set("verdict", "admit")
        inside = trace.traceparent()
        with telemetry.tracer.span("inner"):
            assert trace.call_id() == "call@host"
    await telemetry.stop()
    outer, inner = collector.spans["outer"], collector.spans["inner"]
    assert {outer.trace_id.hex(), inner.trace_id.hex()} == {SAMPLED[3:35]}
    assert outer.parent_span_id.hex() == SAMPLED[36:52]
    assert inner.parent_span_id == outer.span_id
    assert inside == f"00-{SAMPLED[3:35]}-{outer.span_id.hex()}-01"
    attributes = {item.key: item.value for item in outer.attributes}
    assert attributes["call.id"].string_value == "call@host"
    assert attributes["lines"].int_value == 3
    assert attributes["verdict"].string_value == "admit"
    assert {"service.name": "auth", "service.instance.id": "auth-0"}.items() <= collector.resources[0].items()


async def test_an_error_marks_the_span_without_its_text(collector: Collector) -> None:
    telemetry = telemetry_to(collector)
    with trace.scope(traceparent=SAMPLED), pytest.raises(ValueError), telemetry.tracer.span("failing"):
        raise ValueError("hunter2")
    await telemetry.stop()
    assert collector.spans["failing"].status.message == "ValueError"
    assert b"hunter2" not in collector.spans["failing"].SerializeToString()


async def test_what_is_not_sampled_is_not_recorded(collector: Collector) -> None:
    telemetry = telemetry_to(collector)
    for traceparent in (NOT_SAMPLED, "", "nonsense1"):
        with trace.scope(traceparent=traceparent), telemetry.tracer.span("quiet"):
            assert trace.traceparent() == traceparent
    await telemetry.stop()
    assert collector.spans == {}


@pytest.mark.parametrize("way", ["unary", "stream", "stream at once"])
async def test_a_call_is_followed_through_a_hop(serve: Serve, collector: Collector, way: str) -> None:
    telemetry = telemetry_to(collector)
    inside: list[str] = []

    def note(request: Any) -> pb.CountReply:
        inside.append(trace.traceparent())
        return pb.CountReply()

    async def note_later(request: Any) -> pb.CountReply:
        await asyncio.sleep(0)
        return note(request)

    served = await serve({"Count": note if way == "stream at once" else note_later}, tracer=telemetry.tracer)
    async with channel(served.target) as opened, StreamClient(opened, SERVICE) as stream:
        with trace.scope(traceparent=SAMPLED, call_id="call@host"), telemetry.tracer.span("caller"):
            if way == "unary":
                stub: Any = rateguard_pb2_grpc.RateGuardServiceStub(opened)
                await unary(stub.Count, pb.CountRequest())
            else:
                await stream.call("Count", pb.CountRequest(), pb.CountReply, timeout_s=30)
    await telemetry.stop()
    hop = collector.spans[f"/{SERVICE}/Count"]
    assert hop.trace_id.hex() == SAMPLED[3:35]
    assert hop.parent_span_id == collector.spans["caller"].span_id
    assert inside == [f"00-{SAMPLED[3:35]}-{hop.span_id.hex()}-01"]


async def test_metrics_arrive_with_their_numbers(collector: Collector) -> None:
    metrics = Metrics()
    metrics.counter(Metric("callwarden_test_telemetry_calls_total", "counter", "{calls}", "Calls.")).value = 42
    metrics.histogram(Metric("callwarden_test_telemetry_seconds", "histogram", "s", "Time.")).record(0.003)
    telemetry = telemetry_to(collector, metrics)
    telemetry.start()
    await asyncio.sleep(0)
    await telemetry.stop()
    total = collector.metrics["callwarden_test_telemetry_calls_total"].sum
    assert (total.data_points[0].as_double or total.data_points[0].as_int) == 42
    assert total.is_monotonic
    histogram = collector.metrics["callwarden_test_telemetry_seconds"].histogram.data_points[0]
    assert (histogram.count, histogram.sum) == (1, 0.003)
    assert not histogram.HasField("min"), "we don't keep it, so we don't claim it"


async def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callwarden.common.telemetry.FLUSH_TIMEOUT_S", 0.2)
    telemetry = Telemetry("auth", "auth-0", "http://127.0.0.1:1", Metrics())
    telemetry.start()
    with trace.scope(traceparent=SAMPLED), telemetry.tracer.span("lost"):
        pass
    await telemetry.stop()


def test_without_an_endpoint_nothing_is_recorded() -> None:
    telemetry = Telemetry("auth", "auth-0", "", Metrics())
    assert not telemetry.tracer.enabled
    with trace.scope(traceparent=SAMPLED), telemetry.tracer.span("quiet") as span:
        span.set("any", 1)
        assert trace.traceparent() == SAMPLED


async def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    code = (
        "import sys; from callwarden.common.metrics import Metrics; from callwarden.common.telemetry import Telemetry;"
        "import callwarden.common.runtime; Telemetry('a', 'b', '', Metrics());"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'sqlalchemy'))])"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await child.communicate()
    assert output.decode().strip() == "[]"
