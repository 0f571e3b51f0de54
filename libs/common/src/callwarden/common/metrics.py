"""Metrics: definitions that form one catalogue, and instruments that cost what a plain integer costs.

A metric is defined once, as a constant of the module that knows it; defining it enters it into CATALOGUE, from which
the documentation is generated, and a second definition of the same name is refused. What is counted is held by plain
attributes that are read at each scrape (Prometheus) or every `EXPORT_INTERVAL_S` (OTLP): an OpenTelemetry
`add()` costs 1 to 3 µs here, `counter.value += 1` 0.04. How the numbers leave the process is in `telemetry`.

    ADMITTED = Metric("callwarden_admission_admitted_total", "counter", "{calls}", "Calls admitted.", labels=("class",))
    ...
    admitted = runtime.metrics.counter(ADMITTED, "subscriber")      # once, at start
    admitted.value += 1                                             # on the way of a call
    runtime.metrics.observe(DIALOGS, lambda: len(self._dialogs))    # or: read what is counted anyway
"""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

from callwarden.common.logs import get_logger

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Labels: TypeAlias = tuple[str, ...]
# What an observing function returns: one number, or one per label values.
Observed: TypeAlias = "float | Mapping[Labels, float]"

log = get_logger(__name__)

_T = TypeVar("_T")

SERIES_MAX: Final = 1_000  # per metric: each costs the store 2 to 3 KB; more means that a label contains user input.
OVERFLOW: Final = "other"  # where the label values beyond SERIES_MAX are counted together

# Seconds, from a cache hit to a time-out; 1-2.5-5 as everybody's dashboards expect.
DURATION_BUCKETS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

_NAME = re.compile(r"callwarden_[a-z][a-z0-9_]*")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")


class MetricMisuse(ValueError):
    """A metric is defined or used against its definition; a mistake of ours, found when the process starts."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue. `unit` is UCUM: "s", "By", "1", "{calls}". Defining it registers it."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None or not all(_LABEL.fullmatch(label) for label in self.labels):
            raise MetricMisuse(f"{self.name}: names are callwarden_snake_case, labels snake_case")
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise MetricMisuse(f"{self.name}: counters, and only counters, end in _total")
        if self.kind == "histogram" and not self.buckets:
            object.__setattr__(self, "buckets", DURATION_BUCKETS_S)
        if list(self.buckets) != sorted(set(self.buckets)) or (self.buckets and self.kind != "histogram"):
            raise MetricMisuse(f"{self.name}: buckets rise, and only histograms have them")
        # A module that is loaded twice (importlib.reload, a script and its import) defines the same thing again.
        if CATALOGUE.setdefault(self.name, self) != self:
            raise MetricMisuse(f"{self.name} is defined twice, differently")


CATALOGUE: Final[dict[str, Metric]] = {}
"""Every metric that the imported modules define, by name."""


class Counter:
    """A number that only grows: `counter.value += 1`. Also a gauge, which may fall: `gauge.value = 3`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


Gauge = Counter


class Histogram:
    """A distribution in fixed buckets: one bisect and two additions per `record` (0.25 µs)."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one is above every bound
        self.sum = 0.0

    def record(self, value: float) -> None:
        """Count `value`, in the unit of the metric."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at one moment. Histograms have `counts` (not cumulative, last above every bound) and `value` as
    sum.
    """

    labels: Labels
    value: float
    counts: tuple[int, ...] = ()


class Metrics:
    """The instruments of one process. Made once by the runtime, handed to who counts."""

    def __init__(self) -> None:
        self._counters: dict[Metric, dict[Labels, Counter]] = {}
        self._histograms: dict[Metric, dict[Labels, Histogram]] = {}
        self._observers: dict[Metric, list[Callable[[], Observed]]] = {}

    def counter(self, metric: Metric, *labels: str) -> Counter:
        """The counter of these label values; the same one each time. Keep it instead of asking again when hot."""
        self._check(metric, "counter", labels)
        return _series(self._counters.setdefault(metric, {}), labels, Counter)

    def gauge(self, metric: Metric, *labels: str) -> Gauge:
        """The gauge of these label values; the same one each time."""
        self._check(metric, "gauge", labels)
        return _series(self._counters.setdefault(metric, {}), labels, Gauge)

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram of these label values; the same one each time."""
        self._check(metric, "histogram", labels)
        return _series(self._histograms.setdefault(metric, {}), labels, lambda: Histogram(metric.buckets))

    def observe(self, metric: Metric, read: Callable[[], Observed]) -> Callable[[], None]:
        """Have `read` called whenever the metrics are collected (each few seconds): for what is counted anyway.

        It returns a number, or numbers by label values in the order of the definition. Several readers add up. What is
        returned here ends it, for readers that live shorter than the process.
        """
        if metric.kind == "histogram":
            raise MetricMisuse(f"{metric.name}: a histogram can't be observed")
        readers = self._observers.setdefault(metric, [])
        readers.append(read)
        return lambda: readers.remove(read)

    def collect(self) -> Iterator[tuple[Metric, list[Sample]]]:
        """Everything as it is now, by name. A reader that fails is left out rather than taking the rest with it."""
        metrics = {*self._counters, *self._histograms, *self._observers}
        for metric in sorted(metrics, key=lambda metric: metric.name):
            if metric.kind == "histogram":
                yield (
                    metric,
                    [Sample(labels, h.sum, tuple(h.counts)) for labels, h in self._histograms[metric].items()],
                )
                continue
            values = {labels: counter.value for labels, counter in self._counters.get(metric, {}).items()}
            for read in self._observers.get(metric, []):
                for labels, value in _observed(read).items():
                    fits = labels in values or len(values) < SERIES_MAX
                    kept = labels if fits else (OVERFLOW,) * len(metric.labels)
                    values[kept] = values.get(kept, 0) + value
            yield metric, [Sample(labels, value) for labels, value in values.items() if not math.isnan(value)]

    @staticmethod
    def _check(metric: Metric, kind: Kind, labels: Labels) -> None:
        if metric.kind != kind or len(labels) != len(metric.labels):
            raise MetricMisuse(f"{metric.name} is a {metric.kind} with labels {metric.labels}, not {kind} {labels}")


def _series(series: dict[Labels, _T], labels: Labels, make: Callable[[], _T]) -> _T:
    found = series.get(labels)
    if found is None:
        if len(series) >= SERIES_MAX:
            labels = (OVERFLOW,) * len(labels)
        found = series.setdefault(labels, make())
    return found


def _observed(read: Callable[[], Observed]) -> Mapping[Labels, float]:
    try:
        found = read()
    except Exception as error:  # a reader of some service must not take the scrape of the whole process with it
        log.warning("metrics.reader_failed", error=error)
        return {}
    return found if isinstance(found, Mapping) else {(): found}
