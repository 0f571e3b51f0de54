"""Prices as messages, the one mapping that all services share: what rating quotes, what holds and call records keep.

In: callwarden.kernel.tariff.Price to callwarden.api.rating.v1.Price and back. Out: caches of either (the services).

A reader of before `periods` and `maximum_micros` existed:

- understands volume steps, which always were rate groups of a window;
- refuses a price with several periods (its `peak_hours` is empty there), so that no call is charged by the wrong one;
- ignores a maximum: it charges in full, never too little.
"""

from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from callwarden.api.rating.v1 import rating_pb2
from callwarden.kernel.hours import parse_plan
from callwarden.kernel.tariff import Price, RateGroup, Rounding, RoundingMethod, Weekly, WeeklyPeriod, Window

_NUMBER_OF: Final = {
    RoundingMethod.UP: rating_pb2.Rounding.UP,
    RoundingMethod.MIDDLE: rating_pb2.Rounding.MIDDLE,
    RoundingMethod.DOWN: rating_pb2.Rounding.DOWN,
}
_METHOD_OF: Final = {number: method for method, number in _NUMBER_OF.items()}
_ZONES_CACHED: Final = 1_024  # The tz database has about 600 names.


def price_message(price: Price) -> rating_pb2.Price:
    """The price as rating quotes it. Equal prices have equal bytes."""
    return rating_pb2.Price(
        currency=price.currency,
        windows=map(_window_message, price.windows),
        free_s=price.free_s,
        minimum_micros=price.minimum_micros,
        rounding=rounding_message(price.rounding),
        weekly=None if price.weekly is None else _weekly_message(price.weekly),
        maximum_micros=price.maximum_micros,
        cuts_at_maximum=price.cuts_at_maximum,
    )


def price_of(message: rating_pb2.Price) -> Price:
    """The price that a message says. ValueError (BadPrice is one) if it is none."""
    return Price(
        currency=message.currency,
        windows=tuple(map(_window, message.windows)),
        free_s=message.free_s,
        minimum_micros=message.minimum_micros,
        rounding=rounding_of(message.rounding),
        maximum_micros=message.maximum_micros if message.HasField("maximum_micros") else None,
        weekly=_weekly(message.weekly) if message.HasField("weekly") else None,
        cuts_at_maximum=message.cuts_at_maximum,
    )


def rounding_message(rounding: Rounding) -> rating_pb2.Rounding:
    return rating_pb2.Rounding(method=_NUMBER_OF[rounding.method], decimals=rounding.decimals)


def rounding_of(message: rating_pb2.Rounding) -> Rounding:
    """ValueError for a method that isn't known, BadPrice for decimals that can't be."""
    method = _METHOD_OF.get(message.method)
    if method is None:
        raise ValueError(f"unknown rounding method {message.method}")
    return Rounding(method, message.decimals)


def _window_message(window: Window) -> rating_pb2.Window:
    return rating_pb2.Window(
        from_s=window.from_s,
        connect_fee_micros=window.connect_fee_micros,
        groups=[
            rating_pb2.RateGroup(
                start_s=group.start_s,
                rate_micros=group.rate_micros,
                unit_s=group.unit_s,
                increment_s=group.increment_s,
            )
            for group in window.groups
        ],
        name=window.name,
    )


def _window(message: rating_pb2.Window) -> Window:
    return Window(
        message.from_s,
        tuple(RateGroup(group.start_s, group.rate_micros, group.unit_s, group.increment_s) for group in message.groups),
        message.connect_fee_micros,
        message.name,
    )


def _weekly_message(weekly: Weekly) -> rating_pb2.Weekly:
    message = rating_pb2.Weekly(from_s=weekly.from_s, time_zone=weekly.time_zone, off_peak=_window_message(weekly.rest))
    if len(weekly.periods) == 1:  # in the fields that readers of before understand
        (period,) = weekly.periods
        message.peak_hours = period.hours
        message.peak.CopyFrom(_window_message(period.window))
    else:
        for period in weekly.periods:
            message.periods.add(hours=period.hours, window=_window_message(period.window))
    return message


def _weekly(message: rating_pb2.Weekly) -> Weekly:
    periods = tuple(WeeklyPeriod(period.hours, _window(period.window)) for period in message.periods)
    if not periods:
        periods = (WeeklyPeriod(message.peak_hours, _window(message.peak)),)
    plan = parse_plan([period.hours for period in periods], _zone(message.time_zone))
    return Weekly(message.from_s, message.time_zone, periods, _window(message.off_peak), plan)


@lru_cache(_ZONES_CACHED)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"unknown time zone {name[:64]!r}") from error
