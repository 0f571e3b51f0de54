"""Usage over several rows: what the shards of one owner count as one, and corrections that may lie in any of them."""

from collections.abc import Sequence
from datetime import date

from callwarden.call_admission.model.habits import Country, VelocityCounts, merged_baselines, merged_velocity
from callwarden.call_admission.model.leases import merged_leases
from callwarden.call_admission.model.spans import merged_spans
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.windows import merged_windows


def merged(usages: Sequence[Usage]) -> Usage:
    """What several shards count for one owner, as one."""
    total = Usage()
    for usage in usages:
        total.held_micros += usage.held_micros
        total.spent_micros += usage.spent_micros
        total.days = merged_spans(total.days, usage.days)
        total.months = merged_spans(total.months, usage.months)
        total.peak_day_micros = max(total.peak_day_micros, usage.peak_day_micros)
        total.leases = merged_leases(total.leases, usage.leases)
        total.second = merged_windows(total.second, usage.second)
        total.period = merged_windows(total.period, usage.period)
        for name, group in usage.groups.items():
            total.groups[name] = merged_velocity(total.groups.get(name, VelocityCounts()), group)
        for country, seen in usage.countries.items():
            known = total.countries.get(country)
            total.countries[country] = (
                Country(seen.first, seen.last, seen.weight)
                if known is None
                else Country(min(known.first, seen.first), max(known.last, seen.last), known.weight + seen.weight)
            )
        total.baseline = merged_baselines(total.baseline, usage.baseline)
        if usage.month_base_micros is not None and usage.month_grown >= total.month_grown:
            total.month_base_micros = usage.month_base_micros
            total.month_grown_micros = max(usage.month_grown_micros, total.month_grown_micros)
            total.month_grown = usage.month_grown
        for rule, level in usage.notices.items():
            if total.is_notice_due(rule, level, usage.notice_day):
                total.record_notice(rule, level, usage.notice_day)
    return total


def correct(usages: Sequence[Usage], day: date, micros: int) -> None:
    """A call that began on that day has cost so much more (or less) than it was settled at: counted by those of them
    that count that day and month, and never below nothing. What was charged in all stays: a correction is no charge."""
    for key, spans_of in (
        (day.toordinal(), [usage.days for usage in usages]),
        (day.year * 12 + day.month - 1, [usage.months for usage in usages]),
    ):
        left = micros
        for span in (span for spans in spans_of for span in spans if span.key == key):
            moved = max(left, -span.spent_micros)
            span.spent_micros += moved
            left -= moved


def correct_in_all(usages: Sequence[Usage], micros: int) -> None:
    """A call has cost so much more (or less): of what counts against a reseller's credit, and never below nothing."""
    left = micros
    for usage in usages:
        moved = max(left, -usage.spent_micros)
        usage.spent_micros += moved
        left -= moved


def correct_period(usage: Usage, began_s: float, micros: int) -> None:
    """A call that began then has cost so much more (or less): nothing, if it counts no more, and never below
    nothing."""
    if usage.period is not None:
        counted = usage.period.at(began_s)
        if counted is not None:
            counted.micros = max(counted.micros + micros, 0)
