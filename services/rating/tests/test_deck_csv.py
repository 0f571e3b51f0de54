"""A deck is read from CSV as it is meant, and every wrong line is named."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel.csv_rows import LineError, decode
from callwarden.kernel.tariff import RATE_MICROS_MAX, RateGroup
from callwarden.rating.core import deck_csv
from callwarden.rating.core.deck import AS_THE_ROW, DeckRow, Tariff, WindowCharges
from callwarden.rating.core.deck_csv import read

HEADER = "prefix,description,rate\n"
EXAMPLE = Path(__file__).resolve().parents[3] / "deploy" / "examples" / "rates.csv"


def rows(text: str, *, has_peak: bool = False) -> list[DeckRow]:
    found = list(read(text, has_peak=has_peak))
    assert not [item for item in found if isinstance(item, LineError)]
    return [item for item in found if isinstance(item, DeckRow)]


def errors(text: str, *, has_peak: bool = False) -> list[tuple[int, str]]:
    """Line and field of each error."""
    return [(item.line, item.field) for item in read(text, has_peak=has_peak) if isinstance(item, LineError)]


def test_what_is_not_written_has_its_default() -> None:
    assert rows("prefix,rate\n49,0.06\n") == [DeckRow("49", "", Tariff(60_000))]
    assert rows("prefix,rate,unit_s,free_s,minimum\n49,0.06,,,\n") == [DeckRow("49", "", Tariff(60_000))]


def test_every_column_goes_where_it_belongs() -> None:
    text = (
        "off_peak_connect_fee,off_peak_rate,minimum,free_s,next_increment_s,first_increment_s,unit_s,connect_fee,rate,"
        "description,prefix\n0.09,0.08,0.07,6,5,4,3,0.02,0.01,Somewhere,881\n"
    )
    tariff = Tariff(10_000, 3, 20_000, 4, 5, 6, 70_000, 80_000, 90_000)
    assert rows(text, has_peak=True) == [DeckRow("881", "Somewhere", tariff)]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_spreadsheets_write_their_own_separator(mark: str) -> None:
    text = f"prefix{mark}description{mark}rate\r\n+49{mark}Germany{mark}0.06\r\n"
    assert rows(text) == [DeckRow("49", "Germany", Tariff(60_000))]


def test_empty_lines_comments_and_a_mark_at_the_beginning_do_not_count() -> None:
    text = decode(b"\xef\xbb\xbf# a list, of prices\n\nprefix,description,rate\n# Europe\n49,Germany,0.06\n\n,,\n")
    assert isinstance(text, str)
    assert [row.prefix for row in rows(text)] == ["49"]


def test_quotes_hold_separators_and_line_breaks_do_not_shift_line_numbers() -> None:
    assert rows(HEADER + '44,"Guernsey, Jersey",0.1\n')[0].description == "Guernsey, Jersey"
    assert errors(HEADER + '44,"two\nlines",0.1\nx,,1\n') == [(3, "description"), (4, "prefix")]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (",Nowhere,1", "prefix"),
        ("abc,,1", "prefix"),
        ("049,,1", "prefix"),
        ("1234567890123456,,1", "prefix"),
        ("٤٩,,1", "prefix"),
        ("++49,,1", "prefix"),
        ("49,,", "rate"),
        ("49,,-0.01", "rate"),
        ("49,,1e3", "rate"),
        ("49,,0.0000001", "rate"),
        ("49,,1000000.000001", "rate"),
        ('49,,"0,06"', "rate"),
        ("49,,NaN", "rate"),
        ("49,\x1b[31mred,1", "description"),
        ("49," + "x" * 129 + ",1", "description"),
        ("49,1", ""),
        ("49,,1,2", ""),
    ],
)
def test_a_wrong_cell_is_named_and_the_others_are_still_looked_at(line: str, field: str) -> None:
    assert errors(f"{HEADER}44,,1\n{line}\n33,,1\n34,,x\n") == [(3, field), (5, "rate")]


@pytest.mark.parametrize("column", ["unit_s", "first_increment_s", "next_increment_s", "free_s"])
@pytest.mark.parametrize("cell", ["-1", "1.5", "86401", "999999", "x", "²"])
def test_seconds_are_whole_and_bounded(column: str, cell: str) -> None:
    assert errors(f"prefix,rate,{column}\n49,1,{cell}\n") == [(2, column)]


def test_only_free_seconds_may_be_none() -> None:
    assert errors("prefix,rate,unit_s\n49,1,0\n") == [(2, "unit_s")]
    assert rows("prefix,rate,free_s\n49,1,0\n")[0].tariff.free_s == 0


@pytest.mark.parametrize("column", ["off_peak_rate", "off_peak_connect_fee"])
def test_an_off_peak_price_that_would_never_be_charged_is_an_error(column: str) -> None:
    text = f"prefix,rate,{column}\n49,1,0.5\n33,1,\n"
    assert errors(text) == [(2, column)]
    assert len(rows(text, has_peak=True)) == 2


def test_a_prefix_that_stands_twice_says_where() -> None:
    found = list(read(HEADER + "49,,1\n44,,1\n+49,,2\n", has_peak=False))
    assert found[2] == LineError(4, "prefix", "is already on line 2")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", ""),
        ("\n\n", ""),
        ("49,0.06\n", "49"),
        ("prefix,description\n49,x\n", "rate"),
        ("rate\n1\n", "prefix"),
        ("prefix,rate,rate\n49,1,1\n", "rate"),
        ("prefix,rate,price\n49,1,1\n", "price"),
    ],
)
def test_without_a_good_first_line_nothing_is_read(text: str, field: str) -> None:
    found = list(read(text, has_peak=False))
    assert len(found) == 1
    assert isinstance(found[0], LineError)
    assert found[0].field == field


def test_a_first_line_alone_is_no_deck() -> None:
    assert errors(HEADER) == [(1, "")]


def test_more_rows_than_a_deck_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck_csv, "ROWS_MAX", 2)
    assert errors(HEADER + "49,,1\n44,,1\n33,,1\n34,,1\n") == [(4, "")]


def test_the_refusal_of_too_many_rows_speaks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck_csv, "ROWS_MAX", 1)
    (error,) = [item for item in read(HEADER + "49,,1\n44,,1\n", has_peak=False) if isinstance(item, LineError)]
    assert "1 rows" in error.reason


def test_the_largest_and_smallest_values_are_accepted() -> None:
    text = "x" * deck_csv.DESCRIPTION_CHARS_MAX
    assert rows(HEADER + f"49,{text},1000000\n") == [DeckRow("49", text, Tariff(RATE_MICROS_MAX))]
    assert errors(HEADER + f"49,{text}x,1\n44,,1000000.000001\n") == [(2, "description"), (3, "rate")]
    columns = "prefix,rate,unit_s,first_increment_s,next_increment_s,free_s\n"
    assert rows(columns + "49,1,1,1,1,0\n") == [DeckRow("49", "", Tariff(1_000_000, 1, 0, 1, 1, 0))]
    assert rows(columns + "49,1,86400,86400,86400,86400\n") == [
        DeckRow("49", "", Tariff(1_000_000, 86_400, 0, 86_400, 86_400, 86_400))
    ]


def test_seconds_have_at_most_five_digits() -> None:
    assert errors("prefix,rate,unit_s\n49,1,000060\n44,1,00060\n") == [(2, "unit_s")]


def test_an_endless_line_and_an_open_quote_end_the_reading() -> None:
    assert errors(HEADER + "49," + "x" * 5_000 + ",1\n44,,1\n") == [(2, "")]
    assert errors(HEADER + '49,"' + "x\n" * 100_000)[0][1] == ""


def test_what_is_not_utf_8_says_on_which_line() -> None:
    assert decode(b"prefix,rate\n49,1\n44,\xff\n") == LineError(3, "", "is not UTF-8")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
@settings(deadline=None)
def test_any_text_is_read_to_its_end(text: str) -> None:
    for body in (text, HEADER + text):
        for item in read(body, has_peak=True):
            assert isinstance(item, DeckRow | LineError)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_text_or_a_line_that_is_not(content: bytes) -> None:
    assert isinstance(decode(content), str | LineError)


def test_a_long_list_is_read_in_its_order() -> None:
    prefixes = random.Random(1).sample(range(10**6, 10**7), 20_000)
    text = HEADER + "".join(f"{prefix},x,0.1\n" for prefix in prefixes)
    assert [row.prefix for row in rows(text)] == [str(prefix) for prefix in prefixes]


def test_the_example_with_windows_is_a_good_deck() -> None:
    text = (EXAMPLE.parent / "rates-windows.csv").read_text()
    found = [item for item in read(text, has_peak=False, windows=("day", "saturday")) if isinstance(item, DeckRow)]
    assert [row.prefix for row in found] == ["49", "4915", "882"]
    assert [row.tariff.cuts_at_maximum for row in found] == [False, False, True]
    assert all(row.tariff.windows for row in found[:2])


def test_the_example_is_a_good_deck() -> None:
    found = {row.prefix: row for row in rows(EXAMPLE.read_text())}
    assert len(found) > 40
    assert found["49"].tariff.rate_micros < found["4917"].tariff.rate_micros < found["49900"].tariff.rate_micros
    assert {"1", "44", "447", "881", "882", "212", "49900"} <= set(found)


# ------------------------------------------------------------------ steps, maximum, windows


def tariff(columns: str, cells: str, *, has_peak: bool = False, windows: tuple[str, ...] = ()) -> Tariff | str:
    """Of one row; or the field that is wrong."""
    (found,) = read(f"prefix,rate,{columns}\n49,0.10,{cells}\n", has_peak=has_peak, windows=windows)
    return found.tariff if isinstance(found, DeckRow) else found.field


def test_steps_have_the_rows_unit_and_following_increment_unless_they_say_their_own() -> None:
    found = tariff("unit_s,next_increment_s,steps", "30,6,60:0.05 600:0.02:10 900:0:1:60")
    assert isinstance(found, Tariff)
    assert found.steps == (RateGroup(60, 50_000, 30, 6), RateGroup(600, 20_000, 30, 10), RateGroup(900, 0, 60, 1))


@pytest.mark.parametrize(
    ("first_s", "next_s", "steps", "expected"),
    [
        (60, 1, "120:0.05", [(0, 60), (60, 1), (120, 1)]),
        (60, 1, "60:0.05:10", [(0, 60), (60, 10)]),
        (60, 6, "30:0.05", [(0, 60), (30, 6)]),
        (6, 6, "1:0.05", [(0, 6), (1, 6)]),
    ],
)
def test_steps_replace_the_increments_from_their_start_on(
    first_s: int, next_s: int, steps: str, expected: list[tuple[int, int]]
) -> None:
    found = tariff("first_increment_s,next_increment_s,steps", f"{first_s},{next_s},{steps}")
    assert isinstance(found, Tariff)
    assert [(group.start_s, group.increment_s) for group in found.window("").groups] == expected


@pytest.mark.parametrize(
    "cell",
    [
        "60", "60:", ":0.05", "60:0.05:0", "60:0.05:1:0", "60:0.05:1:1:1", "60:-1", "60:1e3", "60:1.0000001",
        "60:0.1 x", "0:0.05", "86401:0.05", "60:1000001", "120:0.05 60:0.02", "60:0.05 60:0.02", "٦٠:0.05",
        " ".join(f"{start}:0.01" for start in range(1, 8)),
    ],
)  # fmt: skip
def test_steps_that_cannot_be_charged_are_an_error(cell: str) -> None:
    assert tariff("steps", cell) == "steps"


def test_the_most_steps_still_make_a_price() -> None:
    found = tariff("first_increment_s,steps", "30," + " ".join(f"{start}:0.01" for start in range(60, 66)))
    assert isinstance(found, Tariff)
    assert len(found.window("").groups) == 8


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (",", (None, False)),
        ("1.5,", (1_500_000, False)),
        ("1.5,FREE", (1_500_000, False)),
        ("1.5,cut", (1_500_000, True)),
        ("0,free", (0, False)),
        ("0,cut", "at_maximum"),
        (",cut", "at_maximum"),
        ("1.5,stop", "at_maximum"),
        ("-1,", "maximum"),
    ],
)
def test_a_maximum_is_free_beyond_or_cuts(cells: str, expected: tuple[int | None, bool] | str) -> None:
    found = tariff("maximum,at_maximum", cells)
    assert (found if isinstance(found, str) else (found.maximum_micros, found.cuts_at_maximum)) == expected


def test_a_maximum_is_not_below_the_minimum() -> None:
    assert tariff("minimum,maximum", "0.2,0.1") == "maximum"
    assert isinstance(tariff("minimum,maximum", "0.2,0.2"), Tariff)


def test_each_window_has_its_own_columns() -> None:
    fields = ("rate", "connect_fee", "unit_s", "first_increment_s", "next_increment_s", "steps")
    columns = ",".join([*(f"{field}.sat" for field in fields), "rate.night", "steps.night"])
    found = tariff(columns, "0.05,0.01,30,60,6,120:0.02,,", windows=("sat", "night"))
    assert isinstance(found, Tariff)
    saturday = WindowCharges(50_000, 10_000, 30, 60, 6, (RateGroup(120, 20_000, 30, 6),))
    assert found.windows == (saturday, AS_THE_ROW)
    assert found.window("sat", saturday).groups == (
        RateGroup(0, 50_000, 30, 60),
        RateGroup(60, 50_000, 30, 6),
        RateGroup(120, 20_000, 30, 6),
    )
    assert tariff(columns, ",,,,,,,", windows=("sat", "night")) == Tariff(100_000)


def test_a_column_of_a_window_that_the_deck_does_not_have_is_an_error() -> None:
    assert tariff("rate.sun", "0.05", windows=("sat",)) == "rate.sun"
    assert tariff("free_s.sat", "1", windows=("sat",)) == "free_s.sat"


@pytest.mark.parametrize(
    ("column", "cell"), [("rate.sat", "x"), ("unit_s.sat", "0"), ("steps.sat", "60"), ("connect_fee.sat", "-1")]
)
def test_a_wrong_cell_of_a_window_is_named(column: str, cell: str) -> None:
    assert tariff(column, cell, windows=("sat",)) == column


def test_another_rate_does_not_silently_inherit_steps() -> None:
    assert tariff("steps,rate.sat", "60:0.05,0.02", windows=("sat",)) == "steps.sat"
    assert tariff("steps,off_peak_rate", "60:0.05,0.02", has_peak=True) == "off_peak_steps"
    found = tariff(
        "steps,rate.sat,steps.sat,off_peak_rate,off_peak_steps",
        "60:0.05,0.02,none,0.03,60:0.01",
        has_peak=True,
        windows=("sat",),
    )
    assert isinstance(found, Tariff)
    assert found.windows[0].steps == ()
    assert found.off_peak_steps == (RateGroup(60, 10_000, 60, 1),)
    assert tariff("off_peak_steps", "60:0.01") == "off_peak_steps"  # without peak hours
