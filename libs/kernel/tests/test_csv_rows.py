"""Files that people send are read or their faults named, whatever stands in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.kernel.csv_rows import BadCell, LineError, Row, decode, read


def rows(text: str, *, rows_max: int = 10, line_chars_max: int = 100) -> list[Row | LineError]:
    return list(
        read(
            text,
            columns=("name", "note"),
            required=("name",),
            of="things",
            rows_max=rows_max,
            line_chars_max=line_chars_max,
        )
    )


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_rows_come_by_the_names_of_the_first_line_with_the_line_they_stand_on(mark: str) -> None:
    text = f"# things, of today\n\nNote{mark} Name\nx{mark}a\n# {mark}\n y {mark}b\n"
    assert rows(text) == [Row(4, {"note": "x", "name": "a"}), Row(6, {"note": " y ", "name": "b"})]


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("", [LineError(1, "", "the file is empty; its first line names the columns: name,note")]),
        ("name\n", [LineError(1, "", "there are no things")]),
        ("note\nx\n", [LineError(1, "name", "the column is missing in the first line")]),
        ("name,name\n", [LineError(1, "name", "is in the first line twice")]),
        ("name,colour\n", [LineError(1, "colour", "there is no such column; there are name, note")]),
        ("name,note\na\n", [LineError(2, "", "has 1 fields, the first line 2")]),
        ("name\na\nb\nc\n", [LineError(4, "", "a file has at most 2 things")]),
        (f"name\n{'a' * 100}\nb\n", [LineError(2, "", "is longer than 100 characters")]),
        ('name\n"a"b\nc\n', [LineError(2, "", "is not CSV: ',' expected after '\"'")]),
    ],
)
def test_what_is_wrong_is_named(text: str, errors: list[LineError]) -> None:
    assert [found for found in rows(text, rows_max=2) if isinstance(found, LineError)] == errors


def test_a_bad_cell_is_named_with_its_line() -> None:
    assert BadCell("note", "is odd").at(7) == LineError(7, "note", "is odd")


def test_text_that_is_not_utf_8_is_named_by_its_line() -> None:
    assert decode(b"\xef\xbb\xbfname\n") == "name\n"
    assert decode(b"name\na\n\xff\n") == LineError(3, "", "is not UTF-8")


@given(st.text(alphabet='ab",;\t\n\r# name\x00', max_size=200))
def test_any_text_gives_rows_and_errors_and_nothing_else(text: str) -> None:
    for found in rows(text):
        assert isinstance(found, LineError) or "name" in found.cells
        line = found.line
        assert 1 <= line <= text.count("\n") + 1
