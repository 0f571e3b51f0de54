"""Calendar days and months: what the calls that began in them have cost, hold, talked and may talk."""

import msgspec

from callwarden.call_admission.model.calls import Hold


class CalendarSpan(msgspec.Struct, array_like=True, gc=False):
    """A calendar day or month: `key` is the day's ordinal, or year × 12 + month - 1."""

    key: int
    spent_micros: int = 0
    held_micros: int = 0
    talk_s: int = 0
    granted_s: int = 0
    """Of calls that are running."""
    calls: int = 0
    running: int = 0


def keys_of(hold: Hold) -> tuple[int, int]:
    """Day and month in which a call counts, for all owners: the paying account's, when it began."""
    day = hold.spend_day
    return day.toordinal(), day.year * 12 + day.month - 1


def day_spend(day: int) -> str:
    return f"day_spend.{day}"


def month_spend(month: int) -> str:
    return f"month_spend.{month}"


def day_talk(day: int) -> str:
    return f"day_talk.{day}"


def month_talk(month: int) -> str:
    return f"month_talk.{month}"


def span_of(spans: list[CalendarSpan], key: int) -> CalendarSpan:
    for span in reversed(spans):
        if span.key == key:
            return span
    return CalendarSpan(key)


def span_key(span: CalendarSpan) -> int:
    return span.key


def merged_spans(one: list[CalendarSpan], other: list[CalendarSpan]) -> list[CalendarSpan]:
    by_key: dict[int, CalendarSpan] = {}
    for span in (*one, *other):
        known = by_key.get(span.key)
        if known is None:
            known = by_key[span.key] = CalendarSpan(span.key)
        known.spent_micros += span.spent_micros
        known.held_micros += span.held_micros
        known.talk_s += span.talk_s
        known.granted_s += span.granted_s
        known.calls += span.calls
        known.running += span.running
    return [by_key[key] for key in sorted(by_key)]
