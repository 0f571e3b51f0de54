"""Decks as rows of the database.

A process of before steps, windows and maximum prices existed would quote a deck that has them wrong. So such a deck's
peak hours are marked as its kind: that process can't read them, and keeps the version that it had.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from callwarden.kernel.tariff import RateGroup, Rounding, RoundingMethod
from callwarden.rating.core.deck import AS_THE_ROW, DeckHead, DeckRow, DeckWindow, Tariff, WindowCharges
from callwarden.rating.core.steps import steps_from, steps_text
from callwarden.schema.tables import deck_row

_MARK: Final = "v2:"

COLUMNS: Final = (
    deck_row.c.prefix,
    deck_row.c.description,
    deck_row.c.rate_micros,
    deck_row.c.unit_s,
    deck_row.c.connect_fee_micros,
    deck_row.c.first_increment_s,
    deck_row.c.next_increment_s,
    deck_row.c.free_s,
    deck_row.c.minimum_micros,
    deck_row.c.off_peak_rate_micros,
    deck_row.c.off_peak_connect_fee_micros,
    deck_row.c.steps,
    deck_row.c.off_peak_steps,
    deck_row.c.windows,
    deck_row.c.maximum_micros,
    deck_row.c.cuts_at_maximum,
)


def head_from(row: Any) -> DeckHead:
    return DeckHead(
        row.name,
        row.currency,
        row.version,
        row.peak_hours.removeprefix(_MARK),
        row.time_zone,
        Rounding(RoundingMethod(row.rounding_method), row.rounding_decimals),
        tuple(DeckWindow(name, hours) for name, hours in json.loads(row.windows)) if row.windows else (),
    )


def head_values(head: DeckHead, version: int, *, is_marked: bool) -> dict[str, Any]:
    """All but the name and when. `is_marked`: the deck, or a row of it, needs a process that knows steps, windows and
    maximum prices."""
    return {
        "currency": head.currency,
        "version": version,
        "peak_hours": f"{_MARK}{head.peak_hours}" if is_marked else head.peak_hours,
        "time_zone": head.time_zone,
        "rounding_method": head.rounding.method.value,
        "rounding_decimals": head.rounding.decimals,
        "windows": json.dumps([[window.name, window.hours] for window in head.windows]) if head.windows else "",
    }


def is_marked(row: DeckRow) -> bool:
    tariff = row.tariff
    return bool(tariff.steps or tariff.off_peak_steps or tariff.windows or tariff.maximum_micros is not None)


def row_from(values: Any) -> DeckRow:
    """Of `COLUMNS`. ValueError if it can't be charged."""
    prefix, description, *plain, steps, off_peak_steps, windows, maximum_micros, cuts_at_maximum = values
    tariff = Tariff(*plain)
    if steps or off_peak_steps is not None or windows or maximum_micros is not None:  # few have any
        tariff = replace(
            tariff,
            steps=steps_from(steps),
            off_peak_steps=None if off_peak_steps is None else steps_from(off_peak_steps),
            windows=_windows_from(windows) if windows else (),
            maximum_micros=maximum_micros,
            cuts_at_maximum=cuts_at_maximum,
        )
    return DeckRow(prefix, description, tariff)


def row_values(name: str, version: int, rows: Sequence[DeckRow]) -> list[dict[str, Any]]:
    return [
        {
            "deck": name,
            "version": version,
            "prefix": row.prefix,
            "description": row.description,
            "rate_micros": row.tariff.rate_micros,
            "unit_s": row.tariff.unit_s,
            "connect_fee_micros": row.tariff.connect_fee_micros,
            "first_increment_s": row.tariff.first_increment_s,
            "next_increment_s": row.tariff.next_increment_s,
            "free_s": row.tariff.free_s,
            "minimum_micros": row.tariff.minimum_micros,
            "off_peak_rate_micros": row.tariff.off_peak_rate_micros,
            "off_peak_connect_fee_micros": row.tariff.off_peak_connect_fee_micros,
            "steps": steps_text(row.tariff.steps),
            "off_peak_steps": _text_or_none(row.tariff.off_peak_steps),
            "windows": _windows_text(row.tariff.windows) if row.tariff.windows else "",
            "maximum_micros": row.tariff.maximum_micros,
            "cuts_at_maximum": row.tariff.cuts_at_maximum,
        }
        for row in rows
    ]


def _text_or_none(steps: tuple[RateGroup, ...] | None) -> str | None:
    return None if steps is None else steps_text(steps)


def _windows_text(windows: tuple[WindowCharges, ...]) -> str:
    return json.dumps(
        [
            [
                charges.rate_micros,
                charges.connect_fee_micros,
                charges.unit_s,
                charges.first_increment_s,
                charges.next_increment_s,
                _text_or_none(charges.steps),
            ]
            for charges in windows
        ]
    )


def _windows_from(text: str) -> tuple[WindowCharges, ...]:
    found = [
        WindowCharges(rate, fee, unit_s, first_s, next_s, None if steps is None else steps_from(steps))
        for rate, fee, unit_s, first_s, next_s, steps in json.loads(text)
    ]
    return tuple(AS_THE_ROW if charges == AS_THE_ROW else charges for charges in found)
