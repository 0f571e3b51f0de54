"""Calendar days and hours in a time zone. Money is counted by the day on which its call began."""

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from callwarden.kernel.hours import parse as parse_hours

ZONES_MAX = 1_024  # The tz database has about 600 names.


class UnknownZone(ValueError):
    """There is no such time zone; `name` is what was given, shortened."""

    def __init__(self, name: str) -> None:
        self.name = name[:64]
        super().__init__(f"unknown time zone {self.name!r}")


@lru_cache(ZONES_MAX)
def zone(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZone(name) from error


def day_of(at_s: float, zone_name: str) -> date:
    """The calendar day in the zone at the moment `at_s` (seconds since 1970 UTC). Raises UnknownZone."""
    return _day_of(int(at_s // QUARTER_S), zone_name)


# Midnight is at a whole quarter of an hour of UTC in every zone since 1972 (Liberia was the last), so all calls of a
# quarter have the same day: 0.4 instead of 2 µs.
QUARTER_S = 900


@lru_cache(4 * ZONES_MAX)
def _day_of(quarter: int, zone_name: str) -> date:
    return datetime.fromtimestamp(quarter * QUARTER_S, zone(zone_name)).date()


def end_of_day(day: date, zone_name: str) -> float:
    """When the next day begins there, seconds since 1970 UTC. Raises UnknownZone."""
    return datetime.combine(day + timedelta(days=1), time(), zone(zone_name)).timestamp()


def end_of_month(day: date, zone_name: str) -> float:
    """When the month after that day's begins there, seconds since 1970 UTC. Raises UnknownZone."""
    first = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return datetime.combine(first, time(), zone(zone_name)).timestamp()


def hour_of(at_s: float, zone_name: str) -> int:
    """The hour that clocks in the zone show at the moment, 0 to 23. Raises UnknownZone."""
    return _hour_of(int(at_s // QUARTER_S), zone_name)  # Zones differ from UTC by whole quarters of an hour.


@lru_cache(4 * ZONES_MAX)
def _hour_of(quarter: int, zone_name: str) -> int:
    return datetime.fromtimestamp(quarter * QUARTER_S, zone(zone_name)).hour


def is_within(hours: str, at_s: float, zone_name: str) -> bool:
    """Whether the moment lies in these hours of a week ("Mon-Fri 08:00-20:00"; empty: always). Raises UnknownZone."""
    return _is_within(hours, int(at_s // 60), zone_name)


@lru_cache(4 * ZONES_MAX)
def _is_within(hours: str, minute: int, zone_name: str) -> bool:
    peak = parse_hours(hours, zone(zone_name))  # Policy has read it before: it can't be wrong. None: it is empty.
    return peak is None or peak.switches(minute * 60, minute * 60 + 1)[0][1]  # Hours switch at whole minutes.
