"""Text from strangers on terminals, in JSON and in CSV."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.kernel.printable import csv_cell, csv_value, printable, printable_json

OBEYED = [
    chr(code)
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and chr(code) != "\n"
]


def test_every_control_and_format_character_is_shown_and_none_is_left() -> None:
    shown = printable("".join(OBEYED), keep_line_breaks=True)
    assert not set(shown) & set(OBEYED)
    assert len(OBEYED) > 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\U000e0041", "\\U000e0041"),
        ("one\ntwo", "one\\x0atwo"),
        ("Zoë 電話 ±1\u00a0€", "Zoë 電話 ±1\u00a0€"),
    ],
)
def test_what_is_obeyed_is_escaped_and_what_is_read_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert printable("one\ntwo\r", keep_line_breaks=True) == "one\ntwo\\x0d"


@given(st.dictionaries(st.text(), st.text() | st.sampled_from(OBEYED)))
def test_json_keeps_its_value(value: dict[str, str]) -> None:
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not set(text) & set(OBEYED)


@pytest.mark.parametrize("number", ["+4930123456", "-5.00", "+49301 +49302", "12.5", ""])
def test_a_number_gets_no_apostrophe(number: str) -> None:
    assert csv_cell(number) == number


@pytest.mark.parametrize("formula", ["=1", "+1+1", "-cmd", "@x", "+49 30 a", "＝1", "+", "-1e"])
def test_a_formula_begins_with_an_apostrophe_that_goes_again(formula: str) -> None:
    assert csv_cell(formula) == f"'{formula}"
    assert csv_value(csv_cell(formula)) == formula


@given(
    st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P", "S"])).filter(lambda text: text[:1] != "'")
)
def test_a_cell_is_read_back_as_it_was(text: str) -> None:
    assert csv_value(csv_cell(text)) == text
