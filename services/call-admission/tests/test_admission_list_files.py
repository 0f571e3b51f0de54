"""Files of number lists, character by character: which line is an entry, and which is wrong and why."""

import pytest

from callwarden.call_admission.lists.core import list_file
from callwarden.call_admission.lists.core.list_file import LINE_CHARS_MAX, ListLineError, patterns_of_range, read
from callwarden.call_admission.model.lists import BadPattern, ListEntry


def entries(text: str, column: str = "", *, prefixes: bool = False) -> list[tuple[str, str]]:
    found = list(read([text.encode()], column=column, prefixes=prefixes))
    assert not [item for item in found if isinstance(item, ListLineError)], found
    return [(item.pattern, item.note) for item in found if isinstance(item, ListEntry)]


def error(text: str | bytes, column: str = "") -> tuple[int, str]:
    """The only error that the file has."""
    data = text.encode() if isinstance(text, str) else text
    (found,) = [item for item in read([data], column=column) if isinstance(item, ListLineError)]
    return found.line, found.reason


# ------------------------------------------------------------------ which column


@pytest.mark.parametrize(
    ("text", "column", "wanted"),
    [
        ("number\n4930123\n", "", [("4930123", "")]),
        ("4930123\n", "", [("4930123", "")]),
        ("4930123,x\n", "1", [("4930123", "")]),
        ("4930123\n", "1", [("4930123", "")]),
        ('"number"\n"4930123"\n', "number", [("4930123", "")]),
        ('number,x\n="4930123",a\n', "", [("4930123", "")]),
        ("x,881\n", "2", [("881", "")]),
        ("number,x\n4930123,a\n,\n4930124,b\n", "", [("4930123", ""), ("4930124", "")]),
        # Without names: the first column that has a number, and not a year or a country code.
        ("2024,49301\n", "", [("49301", "")]),
        ("030123456,4930124\n", "", [("4930124", "")]),
        # One end of a range alone is none.
        ("start,prefix\n1,4990\n", "", [("4990*", "")]),
        ("end,prefix\n1,4990\n", "", [("4990*", "")]),
        ("range end,range start\n49301999,49301000\n", "", [("49301*", "")]),
    ],
)
def test_the_column_of_numbers_is_found(text: str, column: str, wanted: list[tuple[str, str]]) -> None:
    assert entries(text, column) == wanted


@pytest.mark.parametrize(
    ("text", "column", "note"),
    [
        ("note,b\nhello,4930123\n", "2", "hello"),
        ("name,country\n4930123,DE\n", "1", "DE"),
        ("name,country\n4930123,DE\n", "name", "DE"),
        ("note,4930123\n", "2", ""),
        ("number,note\n4930123,a\x07b\n", "", "a b"),
        ("number,note\n4930123," + "n" * 200 + "\n", "", "n" * 128),
        ("number,country,operator\n4930123,DE\n", "", "DE"),
    ],
)
def test_other_columns_of_known_names_become_the_note(text: str, column: str, note: str) -> None:
    assert entries(text, column) == [("4930123", note)]


def test_digits_of_a_file_are_prefixes_where_that_is_said() -> None:
    assert entries("number\n4990\n", prefixes=True) == [("4990*", "")]
    assert entries("4990\n4991*\n", prefixes=True) == [("4990*", ""), ("4991*", "")]
    assert entries("a,number\nx,4990\n", prefixes=True) == [("4990*", "")]


@pytest.mark.parametrize(
    ("text", "column", "line", "why"),
    [
        ("a\n4930123\n", "b", 1, "no column 'b'"),
        ("a,4930123\n", "²", 1, "no column"),
        ("a,4930123\n", "0", 1, "there is no column 0: the first line has 2"),
        ("a,4930123\n", "3", 1, "there is no column 3: the first line has 2"),
        ("x,03012\n", "2", 1, "country code"),
        ("country,number\nCuba\n", "", 2, "has only 1 fields"),
        ("range start,range end\n49301000\n", "", 2, "has only 1 fields"),
        ("range end,range start\n49301999\n", "", 2, "has only 1 fields"),
        ("number,x\n4930123,a\n\n\n030,b\n", "", 5, "country code"),
        ("\n030\n", "", 2, "country code"),
        ("4930123\n030", "", 2, "country code"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, column: str, line: int, why: str) -> None:
    at, reason = error(text, column)
    assert (at, why in reason) == (line, True), reason


# ------------------------------------------------------------------ bounds


def test_a_line_may_be_so_long() -> None:
    line = "4930123 #".ljust(LINE_CHARS_MAX, "x")
    assert [pattern for pattern, _ in entries(f"4930124\n{line}\n{line}")] == ["4930124", "4930123", "4930123"]
    for text, at in ((f"4930124\n{line}x\n4930125\n", 2), (f"4930124\n{line}x", 2), (f"{line}x", 1)):
        assert error(text) == (at, f"is longer than {LINE_CHARS_MAX} characters")


@pytest.mark.parametrize(("data", "line"), [(b"\n\xff", 2), (b"4930123 # \xc3", 1), (b"4930123\n4930124 # \xc3", 2)])
def test_bytes_that_are_no_text_are_named_by_their_line(data: bytes, line: int) -> None:
    assert error(data) == (line, "is not UTF-8")


def test_wildcards_and_their_kinds_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_file, "WILDCARDS_MAX", 2)
    assert len(entries("4930\n49?1\n4931\n49?2\n4932\n4933\n")) == 6
    assert error("49?1\n49?2\n49?3\n") == (3, 'a list has at most 2 entries with "?"')
    monkeypatch.setattr(list_file, "WILDCARDS_MAX", 100)
    monkeypatch.setattr(list_file, "SHAPES_MAX", 2)
    assert len(entries("49?1\n49?2\n49?*\n")) == 3
    assert error("49?1\n49?2\n49?*\n4?1\n")[0] == 4


def test_a_list_may_have_just_so_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_file, "ENTRIES_MAX", 3)
    assert len(entries("4930\n4931\n4932\n")) == 3


# ------------------------------------------------------------------ ranges


@pytest.mark.parametrize(
    ("first", "last", "patterns"),
    [
        ("49301000", "49301999", ["49301*"]),
        ("49301998", "49302001", ["49301998", "49301999", "49302000", "49302001"]),
        ("4930", "4930", ["4930"]),
        ("49300", "49329", ["4930*", "4931*", "4932*"]),
        ("49308", "49312", ["49308", "49309", "49310", "49311", "49312"]),
    ],
)
def test_a_range_is_the_fewest_entries(first: str, last: str, patterns: list[str]) -> None:
    assert patterns_of_range(first, last) == patterns


def test_the_longest_range_is_some_hundred_entries() -> None:
    assert len(patterns_of_range("100000000000001", "999999999999998")) == 7 + 2 * 9 * 14


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        ("49*", "4999", "from a number to a number"),
        ("4900", "49*", "from a number to a number"),
        ("4930", "49301", "no range"),
        ("49301", "4930", "no range"),
        ("4931", "4930", "no range"),
        ("x", "4930", "is no number"),
    ],
)
def test_what_is_no_range_says_why(first: str, last: str, why: str) -> None:
    with pytest.raises(BadPattern, match=why):
        patterns_of_range(first, last)
