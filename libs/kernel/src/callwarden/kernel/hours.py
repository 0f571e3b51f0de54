"""Peak hours: when a week's dear hours begin and end, in a time zone with its changes of summer time.

In: reading "Mon-Fri 08:00-20:00, Sat 10:00-14:00", the moments at which peak switches on and off, and which of several
such hours apply at a moment. Out: which zone, and what applies then: a higher price (rating), more lines (policy).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import groupby
from operator import itemgetter
from typing import Final

TEXT_CHARS_MAX: Final = 256
RANGES_MAX: Final = 16
# Two days of 24 ranges have 96 switches at most: the price of a day and an hour stays below tariff.WINDOWS_MAX.
PLAN_RANGES_MAX: Final = 24

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ITEM = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?(?P<from>\d{2}:\d{2})-(?P<to>\d{2}:\d{2})", re.ASCII
)
_DAY_MINUTES: Final = 24 * 60


class BadPeakHours(ValueError):
    """The text isn't a list of peak hours; `reason` says where and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class PeakRange:
    """From and to a minute of the days in `days` (0 is Monday); `to_minute` may lie on the next day (above 1440)."""

    days: frozenset[int]
    from_minute: int
    to_minute: int


@dataclass(frozen=True, slots=True)
class PeakHours:
    """A week of ranges on the clocks of `zone`; they may overlap."""

    ranges: tuple[PeakRange, ...]
    zone: tzinfo

    def switches(self, from_s: int, until_s: int) -> tuple[tuple[int, bool], ...]:
        """(moment, whether it is peak from then on): first the state at `from_s`, then every change before `until_s`.

        Moments are whole seconds since 1970 UTC, in order; the states alternate.
        """
        spans = self._spans(from_s, until_s)
        states = [(from_s, any(begin_s <= from_s < end_s for begin_s, end_s in spans))]
        for begin_s, end_s in spans:
            for moment_s, is_peak in ((begin_s, True), (end_s, False)):
                if from_s < moment_s < until_s and states[-1][1] is not is_peak:
                    states.append((moment_s, is_peak))
        return tuple(states)

    def _spans(self, from_s: int, until_s: int) -> list[tuple[int, int]]:
        """The spans of peak that touch the time asked for, in order, apart from each other."""
        # A day before: its range may reach over midnight. A day after: the zone may be ahead.
        day = datetime.fromtimestamp(from_s, self.zone).date() - timedelta(days=1)
        last = datetime.fromtimestamp(until_s, self.zone).date() + timedelta(days=1)
        found: list[tuple[int, int]] = []
        while day <= last:
            for item in self.ranges:
                if day.weekday() in item.days:
                    begin_s = _moment(day, item.from_minute, self.zone)
                    end_s = _moment(day, item.to_minute, self.zone)
                    if begin_s < end_s:  # Not where the whole range falls into an hour that the clock skips.
                        found.append((begin_s, end_s))
            day += timedelta(days=1)
        spans: list[tuple[int, int]] = []
        for begin_s, end_s in sorted(found):
            if spans and begin_s <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end_s))
            else:
                spans.append((begin_s, end_s))
        return spans


@dataclass(frozen=True, slots=True)
class HoursPlan:
    """Several hours of a week, the first of which goes before the others where they overlap. At least one."""

    parts: tuple[PeakHours, ...]

    def switches(self, from_s: int, until_s: int) -> tuple[tuple[int, int], ...]:
        """(moment, which part applies from then on): first what applies at `from_s`, then every change before
        `until_s`. Parts are counted from 0; `len(parts)`: none of them applies.
        """
        changes = sorted(
            (moment_s, number, applies)
            for number, part in enumerate(self.parts)
            for moment_s, applies in part.switches(from_s, until_s)
        )
        found: list[tuple[int, int]] = []
        applying: set[int] = set()
        for moment_s, at_once in groupby(changes, itemgetter(0)):
            for _, number, applies in at_once:
                (applying.add if applies else applying.discard)(number)
            first = min(applying, default=len(self.parts))
            if not found or found[-1][1] != first:
                found.append((moment_s, first))
        return tuple(found)


def parse_plan(texts: Sequence[str], zone: tzinfo) -> HoursPlan:
    """The plan of these hours in order of precedence. Raises BadPeakHours, also where one is empty or none is given."""
    parts = tuple(part for text in texts if (part := parse(text, zone)) is not None)
    if not parts or len(parts) < len(texts):
        raise BadPeakHours("hours must not be empty")
    if sum(len(part.ranges) for part in parts) > PLAN_RANGES_MAX:
        raise BadPeakHours(f"more than {PLAN_RANGES_MAX} ranges in all")
    return HoursPlan(parts)


def parse(text: str, zone: tzinfo) -> PeakHours | None:
    """The peak hours that `text` means, None for an empty one. Raises BadPeakHours.

    Ranges stand apart by commas; "Mon-Fri 08:00-20:00", "Sun 00:00-24:00". Days may run over the week's end (Sat-Mon),
    hours over midnight (22:00-06:00, until the next morning). A range without days has those of the range before it.
    """
    if not text.strip():
        return None
    if len(text) > TEXT_CHARS_MAX:
        raise BadPeakHours(f"longer than {TEXT_CHARS_MAX} characters")
    items = text.split(",")
    if len(items) > RANGES_MAX:
        raise BadPeakHours(f"more than {RANGES_MAX} ranges")
    ranges: list[PeakRange] = []
    for item in items:
        ranges.append(_range(item.strip(), ranges[-1].days if ranges else None))
    return PeakHours(tuple(ranges), zone)


def _range(text: str, days_before: frozenset[int] | None) -> PeakRange:
    match = _ITEM.fullmatch(text.lower())
    if match is None:
        raise BadPeakHours(f"{text[:40]!r} is not like 'Mon-Fri 08:00-20:00'")
    if match["first"] is not None:
        days = _days(match["first"], match["last"] or match["first"])
    elif days_before is not None:
        days = days_before
    else:
        raise BadPeakHours(f"{text[:40]!r} does not say on which days")
    begin, end = _minute(match["from"]), _minute(match["to"])
    if begin in (_DAY_MINUTES, end):
        raise BadPeakHours(f"{text[:40]!r} is no span of time (a whole day is 00:00-24:00)")
    return PeakRange(days, begin, end if end > begin else end + _DAY_MINUTES)


def _days(first: str, last: str) -> frozenset[int]:
    for name in (first, last):
        if name not in _DAYS:
            raise BadPeakHours(f"{name!r} is no day (Mon, Tue, Wed, Thu, Fri, Sat, Sun)")
    start, end = _DAYS.index(first), _DAYS.index(last)
    return frozenset(day % 7 for day in range(start, (end if end >= start else end + 7) + 1))


def _minute(text: str) -> int:
    hours, minutes = int(text[:2]), int(text[3:])
    if minutes > 59 or hours * 60 + minutes > _DAY_MINUTES:
        raise BadPeakHours(f"{text!r} is no time of the day")
    return hours * 60 + minutes


def _moment(day: date, minute: int, zone: tzinfo) -> int:
    """When the clocks of the zone show that minute of the day.

    A time that comes twice (clocks put back) is meant the first time. One that never comes (put forward) is when the
    clock jumps over it, not an hour off as PEP 495's arithmetic alone would have it.
    """
    naive = datetime.combine(day, time()) + timedelta(minutes=minute)
    first_s, second_s = (int(naive.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if first_s <= second_s:
        return first_s
    # Skipped: fold 1 reads it by the offset after, fold 0 by the one before; the jump lies between them.
    before = datetime.fromtimestamp(second_s, UTC).astimezone(zone).utcoffset()
    low, high = second_s, first_s
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, UTC).astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
