"""How numbers and spans leave the process: Prometheus text on request, OTLP when an endpoint is set.

What is counted is in `metrics`, what follows a call in `trace`. The OpenTelemetry SDK is imported only when there is an
endpoint: it costs 0.3 s of start-up and 20 MB, and without a collector its output is not read.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from callwarden.common import trace
from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics, Sample

if TYPE_CHECKING:
    import prometheus_client.core
    from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

log = get_logger(__name__)

EXPORT_INTERVAL_S: Final = 15.0  # The usual scrape interval of Prometheus.
FLUSH_TIMEOUT_S: Final = 5.0  # A collector that is away must not hold up a shutdown.
SPANS_QUEUED_MAX: Final = 4_096  # About 4 MB; more means that the collector does not keep up, and spans are dropped.


class Span(Protocol):
    """What a block may say about itself."""

    def set(self, name: str, value: str | int | float | bool) -> None:
        """Attach an attribute. Never a secret, a full number or a SIP body."""


class _NoSpan:
    __slots__ = ()

    def set(self, name: str, value: str | int | float | bool) -> None:
        pass


_NO_SPAN: Final[AbstractContextManager[Span]] = nullcontext(_NoSpan())


class Tracer:
    """Starts traces and spans. Disabled (no endpoint) or not sampled, a span is one comparison."""

    def __init__(self, provider: "TracerProvider | None") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("callwarden") if provider else None

    @property
    def enabled(self) -> bool:
        """Whether any span can be recorded."""
        return self._tracer is not None

    def span(self, name: str, /, **attributes: str | int | float | bool) -> AbstractContextManager[Span]:
        """A child of the current scope's trace for the block; what is called inside becomes its child."""
        if self._tracer is None:
            return _NO_SPAN
        scope = trace.current_scope()
        if not scope.traceparent.endswith("1"):  # flags 01 (or another odd one): sampled
            return _NO_SPAN
        context = trace.TraceContext.parse(scope.traceparent)
        if context is None:
            return _NO_SPAN
        return self._record(name, scope, context, attributes)

    @contextmanager
    def _record(
        self, name: str, scope: trace.Scope, context: trace.TraceContext, attributes: dict[str, Any]
    ) -> Iterator[Span]:
        from opentelemetry import trace as otel

        assert self._tracer is not None
        parent = otel.SpanContext(
            int(context.trace_id, 16), int(context.span_id, 16), is_remote=True, trace_flags=otel.TraceFlags(1)
        )
        if scope.call_id:
            attributes["call.id"] = scope.call_id
        span = self._tracer.start_span(
            name, otel.set_span_in_context(otel.NonRecordingSpan(parent)), attributes=attributes
        )
        child = str(context._replace(span_id=f"{span.get_span_context().span_id:016x}"))
        try:
            with trace.scope(traceparent=child, call_id=scope.call_id, deadline_s=scope.deadline_s):
                yield _RecordedSpan(span)
        except BaseException as error:
            # The type only: a message may hold what the logs redact.
            span.set_status(otel.Status(otel.StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()


class _RecordedSpan:
    __slots__ = ("_span",)

    def __init__(self, span: Any) -> None:  # the API's Span
        self._span = span

    def set(self, name: str, value: str | int | float | bool) -> None:
        self._span.set_attribute(name, value)


class _PrometheusCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> "Iterable[prometheus_client.core.Metric]":
        for metric, samples in self._metrics.collect():
            yield _family(metric, samples)


def _family(metric: Metric, samples: Sequence[Sample]) -> "prometheus_client.core.Metric":
    match metric.kind:
        case "counter":
            counters = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for sample in samples:
                counters.add_metric(sample.labels, sample.value)
            return counters
        case "gauge":
            gauges = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for sample in samples:
                gauges.add_metric(sample.labels, sample.value)
            return gauges
        case "histogram":
            histograms = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            for sample in samples:
                total, buckets = 0, []
                for bound, count in zip((*map(repr, metric.buckets), "+Inf"), sample.counts, strict=True):
                    total += count
                    buckets.append((bound, total))
                histograms.add_metric(sample.labels, buckets, sample.value)
            return histograms


def prometheus_page(metrics: Metrics) -> Callable[[], bytes]:
    """A function that renders everything of `metrics`, and of the process (CPU, memory, descriptors, GC), as text."""
    registry = CollectorRegistry()
    registry.register(_PrometheusCollector(metrics))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return lambda: generate_latest(registry)


def otlp_metrics(metrics: Metrics, started_ns: int, now_ns: int) -> "list[OtlpMetric]":
    """The same numbers as OTLP data points, cumulative since `started_ns`."""
    from opentelemetry.sdk.metrics import export

    found: list[OtlpMetric] = []
    cumulative = export.AggregationTemporality.CUMULATIVE
    for metric, samples in metrics.collect():
        data: export.Sum | export.Gauge | export.Histogram
        if metric.kind == "histogram":
            data = export.Histogram(
                [
                    export.HistogramDataPoint(
                        attributes=dict(zip(metric.labels, sample.labels, strict=True)),
                        start_time_unix_nano=started_ns,
                        time_unix_nano=now_ns,
                        count=sum(sample.counts),
                        sum=sample.value,
                        bucket_counts=sample.counts,
                        explicit_bounds=metric.buckets,
                        # Not kept; the exporter leaves out what is None, whatever its annotation says.
                        min=None,  # type: ignore[arg-type]
                        max=None,  # type: ignore[arg-type]
                    )
                    for sample in samples
                ],
                cumulative,
            )
        else:
            points = [
                export.NumberDataPoint(
                    attributes=dict(zip(metric.labels, sample.labels, strict=True)),
                    start_time_unix_nano=started_ns,
                    time_unix_nano=now_ns,
                    value=sample.value,
                )
                for sample in samples
            ]
            data = export.Sum(points, cumulative, True) if metric.kind == "counter" else export.Gauge(points)
        found.append(export.Metric(metric.name, metric.help, metric.unit, data))
    return found


class Telemetry:
    """The exporters of one process. `start` once the loop runs, `stop` as the last thing of a shutdown."""

    def __init__(self, service: str, instance: str, endpoint: str, metrics: Metrics) -> None:
        self.tracer = Tracer(None)
        self._metrics = metrics
        self._endpoint = endpoint
        self._task: asyncio.Task[None] | None = None
        self._provider: TracerProvider | None = None
        self._resource: Resource | None = None
        self._started_ns = time.time_ns()
        if endpoint:
            self._provider, self._resource = _provider(service, instance, endpoint)
            self.tracer = Tracer(self._provider)

    def start(self) -> None:
        """Begin exporting metrics (spans go by themselves). Nothing without an endpoint."""
        if self._endpoint:
            self._task = asyncio.create_task(self._export_metrics(), name="telemetry")

    async def stop(self) -> None:
        """Send what is left, for at most FLUSH_TIMEOUT_S."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._provider is not None:
            provider = self._provider

            def flush() -> None:
                provider.force_flush(int(FLUSH_TIMEOUT_S * 1000))
                provider.shutdown()

            await _in_thread("telemetry-flush", flush)

    async def _export_metrics(self) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        exporter = OTLPMetricExporter(
            endpoint=self._endpoint, insecure=_insecure(self._endpoint), timeout=FLUSH_TIMEOUT_S
        )

        def send() -> None:
            assert self._resource is not None
            scope = ScopeMetrics(InstrumentationScope("callwarden"), metrics, "")
            exporter.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]), FLUSH_TIMEOUT_S * 1000)

        stopping = False
        while not stopping:
            try:
                await asyncio.sleep(EXPORT_INTERVAL_S)
            except asyncio.CancelledError:
                stopping = True  # one last time, then out
            metrics = otlp_metrics(self._metrics, self._started_ns, time.time_ns())
            await _in_thread("telemetry-metrics", send)
        exporter.shutdown()


async def _in_thread(name: str, work: Callable[[], None]) -> None:
    """Run what blocks and retries by itself, for at most FLUSH_TIMEOUT_S; then leave it alone.

    A daemon thread instead of the loop's executor, which the end of the process would wait for.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop is closed: no caller waits any more
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name=name, daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_TIMEOUT_S):
            await done.wait()


def _insecure(endpoint: str) -> bool:
    return not endpoint.startswith("https://")


def _provider(service: str, instance: str, endpoint: str) -> "tuple[TracerProvider, Resource]":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {"service.name": service, "service.namespace": "callwarden", "service.instance.id": instance}
    )
    # Sampling is decided by the traceparent (Tracer.span), so what comes here is recorded.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=_insecure(endpoint))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=SPANS_QUEUED_MAX))
    return provider, resource
