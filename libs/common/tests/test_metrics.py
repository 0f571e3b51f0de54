"""Instruments, the catalogue, and the two ways out: Prometheus text and OTLP points."""

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from callwarden.common import metrics as module
from callwarden.common.metrics import CATALOGUE, OVERFLOW, SERIES_MAX, Histogram, Metric, MetricMisuse, Metrics, Sample
from callwarden.common.telemetry import otlp_metrics, prometheus_page


@pytest.fixture(autouse=True)
def _own_catalogue() -> Iterator[None]:
    """Definitions of a test don't stay in the catalogue of the process."""
    before = dict(CATALOGUE)
    yield
    CATALOGUE.clear()
    CATALOGUE.update(before)


def counter_metric() -> Metric:
    return Metric("callwarden_test_calls_total", "counter", "{calls}", "Calls.", labels=("class", "why"))


def samples(metrics: Metrics, metric: Metric) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for found, all_ in metrics.collect() if found == metric for sample in all_}


def test_defining_a_metric_enters_it_into_the_catalogue() -> None:
    metric = counter_metric()
    assert CATALOGUE[metric.name] is metric
    assert counter_metric() == metric, "the same again is the same"
    with pytest.raises(MetricMisuse, match="twice"):
        Metric(metric.name, "counter", "{calls}", "Something else.")


@pytest.mark.parametrize(
    ("name", "kind", "labels", "buckets"),
    [
        ("calls_total", "counter", (), ()),
        ("callwarden_Calls_total", "counter", (), ()),
        ("callwarden_calls", "counter", (), ()),
        ("callwarden_calls_total", "gauge", (), ()),
        ("callwarden_x", "gauge", ("Bad-label",), ()),
        ("callwarden_x_seconds", "histogram", (), (2.0, 1.0)),
        ("callwarden_x", "gauge", (), (1.0,)),
    ],
)
def test_a_wrong_definition_is_refused(
    name: str, kind: module.Kind, labels: tuple[str, ...], buckets: tuple[float, ...]
) -> None:
    with pytest.raises(MetricMisuse):
        Metric(name, kind, "1", "Help.", labels=labels, buckets=buckets)
    assert name not in CATALOGUE


def test_an_instrument_is_the_same_each_time() -> None:
    metrics, metric = Metrics(), counter_metric()
    metrics.counter(metric, "trunk", "rate").value += 2
    metrics.counter(metric, "trunk", "rate").value += 1
    metrics.counter(metric, "phone", "rate").value += 1
    assert samples(metrics, metric) == {("trunk", "rate"): 3, ("phone", "rate"): 1}


def test_using_a_metric_against_its_definition_is_refused() -> None:
    metrics, metric = Metrics(), counter_metric()
    for use in (
        lambda: metrics.counter(metric, "one label"),
        lambda: metrics.gauge(metric, "a", "b"),
        lambda: metrics.histogram(metric, "a", "b"),
        lambda: metrics.observe(Metric("callwarden_test_x_seconds", "histogram", "s", "X."), lambda: 1),
    ):
        with pytest.raises(MetricMisuse):
            use()


def test_label_values_are_bounded() -> None:
    metrics, metric = Metrics(), counter_metric()
    for number in range(SERIES_MAX + 100):
        metrics.counter(metric, str(number), "x").value += 1
    found = samples(metrics, metric)
    assert len(found) == SERIES_MAX + 1
    assert found[OVERFLOW, OVERFLOW] == 100


def test_observed_label_values_are_bounded() -> None:
    metrics, metric = Metrics(), counter_metric()
    metrics.observe(metric, lambda: {(str(number), "x"): 1 for number in range(SERIES_MAX + 100)})
    found = samples(metrics, metric)
    assert len(found) == SERIES_MAX + 1
    assert found[OVERFLOW, OVERFLOW] == 100


def test_several_readers_add_up_and_may_end() -> None:
    metrics = Metrics()
    metric = Metric("callwarden_test_dialogs", "gauge", "{dialogs}", "Dialogs.")
    metrics.observe(metric, lambda: 2)
    end = metrics.observe(metric, lambda: 3)
    assert samples(metrics, metric) == {(): 5}
    end()
    assert samples(metrics, metric) == {(): 2}


def test_a_reader_that_fails_takes_nothing_with_it() -> None:
    metrics = Metrics()
    metric = Metric("callwarden_test_dialogs", "gauge", "{dialogs}", "Dialogs.")
    metrics.observe(metric, lambda: 1 / 0)
    metrics.observe(metric, lambda: 3)
    assert samples(metrics, metric) == {(): 3}


@given(st.lists(st.floats(-1e6, 1e6)))
def test_a_histogram_puts_each_value_below_its_bound(values: list[float]) -> None:
    bounds = (-10.0, 0.0, 1.0, 100.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.record(value)
    edges = (-math.inf, *bounds, math.inf)
    expected = [sum(low < value <= high for value in values) for low, high in itertools.pairwise(edges)]
    assert histogram.counts == expected
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(math.fsum(values), abs=1e-3)


def filled() -> tuple[Metrics, Metric, Metric, Metric]:
    metrics = Metrics()
    calls = counter_metric()
    dialogs = Metric("callwarden_test_dialogs", "gauge", "{dialogs}", "Dialogs.")
    seconds = Metric("callwarden_test_seconds", "histogram", "s", "Time.", labels=("what",), buckets=(0.1, 1.0))
    metrics.counter(calls, 'a "quoted"\nclass', "rate").value = 7
    metrics.observe(dialogs, lambda: 12)
    for value in (0.05, 0.5, 0.5, 5.0):
        metrics.histogram(seconds, "admit").record(value)
    return metrics, calls, dialogs, seconds


def test_prometheus_reads_what_we_write() -> None:
    metrics, calls, dialogs, seconds = filled()
    families = {f.name: f for f in text_string_to_metric_families(prometheus_page(metrics)().decode())}
    values = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values[calls.name, (("class", 'a "quoted"\nclass'), ("why", "rate"))] == 7
    assert values[dialogs.name, ()] == 12
    admit = ("what", "admit")
    assert values[f"{seconds.name}_bucket", (("le", "0.1"), admit)] == 1
    assert values[f"{seconds.name}_bucket", (("le", "1.0"), admit)] == 3
    assert values[f"{seconds.name}_bucket", (("le", "+Inf"), admit)] == 4
    assert values[f"{seconds.name}_sum", (admit,)] == pytest.approx(6.05)
    assert families["callwarden_test_calls"].type == "counter"
    assert "process_resident_memory_bytes" in families


def test_otlp_has_the_same_numbers() -> None:
    metrics, calls, dialogs, seconds = filled()
    found = {metric.name: metric for metric in otlp_metrics(metrics, 1, 2)}
    assert found[calls.name].unit == "{calls}"
    (point,) = found[calls.name].data.data_points
    assert (point.value, point.attributes) == (7, {"class": 'a "quoted"\nclass', "why": "rate"})  # type: ignore[union-attr]
    assert found[dialogs.name].data.data_points[0].value == 12  # type: ignore[union-attr]
    (histogram,) = found[seconds.name].data.data_points
    assert list(histogram.bucket_counts) == [1, 2, 1]  # type: ignore[union-attr]
    assert (histogram.count, histogram.start_time_unix_nano, histogram.time_unix_nano) == (4, 1, 2)  # type: ignore[union-attr]


def test_samples_are_sorted_by_name_and_skip_what_is_no_number() -> None:
    metrics = Metrics()
    later = Metric("callwarden_test_b", "gauge", "1", "B.")
    sooner = Metric("callwarden_test_a", "gauge", "1", "A.")
    metrics.gauge(later).value = math.nan
    metrics.gauge(sooner).value = 1
    assert list(metrics.collect()) == [(sooner, [Sample((), 1)]), (later, [])]
