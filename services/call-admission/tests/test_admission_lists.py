"""Number lists as values: what an entry is, which entry wins, and what a file means."""

import csv
import io
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.call_admission.lists.core import list_file
from callwarden.call_admission.lists.core.list_file import ListLineError, patterns_of_range, read
from callwarden.call_admission.model.lists import (
    DYNAMIC,
    LISTED_MAX,
    SHAPES_MAX,
    SMART,
    BadPattern,
    Hit,
    ListBuilder,
    Listed,
    ListEntry,
    ListHead,
    Listings,
    ListKind,
    Lists,
    ListSide,
    NumberList,
    TooManyShapes,
    digits_of,
    parse_pattern,
)
from callwarden.kernel.clock import UnixS

ALICE = UUID(int=1)
BOB = UUID(int=2)
REALM = "example.org"
OWN = frozenset({DYNAMIC, SMART})


def listed(
    number: str, *, side: ListSide = ListSide.CALLED, account: UUID | None = None, until_s: float = 100.0
) -> Listed:
    return Listed(DYNAMIC, REALM, side, number, account, "failing", "60 failed calls", 0.0, until_s)


def compiled(
    *patterns: str,
    name: str = "one",
    kind: ListKind = ListKind.BLOCK,
    side: ListSide = ListSide.CALLED,
    trunks: tuple[str, ...] = (),
) -> NumberList:
    builder = ListBuilder(ListHead(name, 1, kind, side, trunks=trunks))
    builder.add(patterns)
    return builder.build()


def lists_of(*lists: NumberList) -> Lists:
    return Lists.of(lists, Listings())


def verdict(lists: Lists, called: str, calling: str = "", *, account: UUID = ALICE, unix_s: float = 0.0) -> Hit | None:
    return lists.verdict(lists.fixed, OWN, REALM, account, called, calling, UnixS(unix_s))


# ------------------------------------------------------------------ entries


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("+49 30 123456", "4930123456"),
        ("0049 (30) 12-34/56", "4930123456"),
        ("4990*", "4990*"),
        ("+49 90?555*", "4990?555*"),
        ("881", "881"),
        ("1*", "1*"),
    ],
)
def test_an_entry_has_one_spelling(text: str, pattern: str) -> None:
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no number"),
        ("030 123456", "isn't international"),
        ("*", "begin with a digit"),
        ("49*30", "stands at the end"),
        ("4.93012E+11", "spreadsheet"),
        ("alice", "is no number"),
        ("4", "too short"),
        ("4930123456789012", "longer than 15"),
        ("٤٩٣٠١٢٣", "is no number"),
    ],
)
def test_what_is_no_entry_says_why(text: str, why: str) -> None:
    with pytest.raises(BadPattern, match=why):
        parse_pattern(text)


def test_digits_alone_are_a_prefix_where_that_is_said() -> None:
    assert parse_pattern("4990", prefixes=True) == "4990*"
    assert parse_pattern("4990?", prefixes=True) == "4990?*"


@given(st.text(max_size=40))
def test_any_text_is_an_entry_or_a_bad_pattern(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except BadPattern as error:
        assert error.reason
    else:
        assert parse_pattern(pattern) == pattern


def test_a_name_is_no_number() -> None:
    assert digits_of("alice") == digits_of("030 1234") == digits_of("") == ""
    assert digits_of("+49 30 1234") == "49301234"


# ------------------------------------------------------------------ matching

# Few different digits, so that entries and numbers meet.
_body = st.text("12", min_size=2, max_size=6).map(lambda text: "4" + text)
_wild = st.tuples(_body, st.sets(st.integers(1, 6), max_size=2)).map(
    lambda both: "".join("?" if at in both[1] else char for at, char in enumerate(both[0]))
)
_patterns = st.tuples(_wild, st.booleans()).map(lambda both: both[0] + "*" * both[1])
_numbers = st.text("12", min_size=1, max_size=9).map(lambda text: "4" + text)


def fits(pattern: str, digits: str) -> bool:
    body = pattern.removesuffix("*")
    if len(digits) < len(body) or (len(digits) > len(body) and body == pattern):
        return False
    return all(want in ("?", digit) for want, digit in zip(body, digits, strict=False))


def rank(pattern: str) -> int:
    body = pattern.removesuffix("*")
    return 99 if body == pattern and "?" not in body else sum(char != "?" for char in body)


@settings(max_examples=300)
@given(st.lists(_patterns, max_size=30), st.lists(_numbers, min_size=1, max_size=20), st.booleans())
def test_a_compiled_list_finds_what_looking_at_every_entry_finds(
    patterns: list[str], numbers: list[str], in_order: bool
) -> None:
    try:
        one = compiled(*(sorted(set(patterns)) if in_order else patterns))
    except TooManyShapes:
        return
    for digits in numbers:
        fitting = [pattern for pattern in patterns if fits(pattern, digits)]
        found = one.match(digits)
        if not fitting:
            assert found is None
        else:
            assert found is not None
            assert found.pattern in fitting
            assert rank(found.pattern) == max(map(rank, fitting))


def test_a_list_takes_only_so_many_kinds_of_wildcards() -> None:
    shapes = [f"49{'1' * at}?" for at in range(SHAPES_MAX - 20)] + [f"49{'1' * at}?*" for at in range(20)]
    compiled(*shapes[:SHAPES_MAX])
    with pytest.raises(TooManyShapes):
        compiled(*[f"49{'1' * at}?" for at in range(13)], *[f"49{'1' * at}??*" for at in range(13)],
                 *[f"49{'1' * at}?1?" for at in range(10)])  # fmt: skip


def test_of_several_lists_the_entry_that_names_most_decides() -> None:
    lists = lists_of(compiled("4930*"), compiled("49301234", name="friends", kind=ListKind.ALLOW))
    assert verdict(lists, "49301234") is None
    hit = verdict(lists, "49309999")
    assert hit is not None
    assert (hit.list, hit.pattern) == ("one", "4930*")


def test_of_two_entries_that_fit_alike_the_one_that_allows_decides() -> None:
    lists = lists_of(compiled("4930*"), compiled("4930*", name="friends", kind=ListKind.ALLOW))
    assert verdict(lists, "49301234") is None


@pytest.mark.parametrize(
    ("side", "called", "calling"),
    [(ListSide.CALLED, True, False), (ListSide.CALLING, False, True), (ListSide.BOTH, True, True)],
)
def test_a_list_is_about_its_side_of_a_call(side: ListSide, called: bool, calling: bool) -> None:
    lists = lists_of(compiled("4930*", side=side))
    assert (verdict(lists, "49301234", "331") is not None) is called
    assert (verdict(lists, "331", "49301234") is not None) is calling


def test_only_named_lists_hold() -> None:
    lists = lists_of(compiled("4930*"), compiled("33*", name="two", trunks=("paris",)))
    assert lists.find(["two", "nothing"], "49301234", ListSide.CALLED) is None
    assert lists.of_trunk == {"paris": ("two",)}


def test_a_called_number_is_listed_for_its_realm_until_its_time_is_over() -> None:
    lists = lists_of()
    assert lists.listings.put(listed("49301234"))
    hit = verdict(lists, "49301234", unix_s=99.0)
    assert hit is not None
    assert (hit.list, hit.evidence, hit.until_s) == (DYNAMIC, "60 failed calls", 100.0)
    assert verdict(lists, "49301234", unix_s=100.0) is None
    assert lists.verdict((), OWN, "other.org", ALICE, "49301234", "", UnixS(0.0)) is None
    assert lists.verdict((), frozenset({SMART}), REALM, ALICE, "49301234", "", UnixS(0.0)) is None


def test_a_calling_number_is_listed_for_its_account() -> None:
    lists = lists_of()
    lists.listings.put(listed("49301234", side=ListSide.CALLING, account=ALICE))
    assert verdict(lists, "331", "49301234") is not None
    assert verdict(lists, "331", "49301234", account=BOB) is None
    assert verdict(lists, "49301234") is None


def test_an_allow_list_spares_its_numbers_from_lists_that_make_themselves() -> None:
    lists = lists_of(compiled("4930*", kind=ListKind.ALLOW))
    lists.listings.put(listed("49301234"))
    assert verdict(lists, "49301234") is None


def test_listings_are_bounded_and_what_is_lifted_makes_room() -> None:
    listings = Listings()
    for number in range(LISTED_MAX):
        assert listings.put(listed(f"49{number:09}"))
    assert not listings.put(listed("4911"))
    assert listings.put(listed("49000000000", until_s=200.0))
    listings.remove(listed("49000000000"))
    assert listings.put(listed("4911"))
    assert len(listings) == LISTED_MAX


# ------------------------------------------------------------------ files


def entries(text: str | bytes, *, column: str = "", prefixes: bool = False, part_bytes: int = 7) -> list[str]:
    """The entries of a file that comes in small parts; fails where it has errors."""
    data = text.encode() if isinstance(text, str) else text
    found = list(read(split(data, part_bytes), column=column, prefixes=prefixes))
    assert not [item for item in found if isinstance(item, ListLineError)], found
    return [item.pattern for item in found if isinstance(item, ListEntry)]


def errors(text: str | bytes, *, column: str = "") -> list[tuple[int, str]]:
    data = text.encode() if isinstance(text, str) else text
    return [(item.line, item.reason) for item in read([data], column=column) if isinstance(item, ListLineError)]


def split(data: bytes, part_bytes: int) -> Sequence[bytes]:
    return [data[at : at + part_bytes] for at in range(0, len(data), part_bytes)]


def test_a_number_a_line_with_notes_and_empty_lines() -> None:
    text = "\ufeff# numbers of last week\r\n+49 30 123456  # wangiri\r\n\r\n4990*\r\n4990?555*"
    assert entries(text) == ["4930123456", "4990*", "4990?555*"]
    assert list(read([b"4930123456 # wangiri"])) == [ListEntry("4930123456", "wangiri")]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_column_of_numbers_is_found_by_its_name(mark: str) -> None:
    lines = ['Country;"Test Number";Operator', "Cuba;+53 5 2812345;ETECSA", '"Latvia";"+371 8 1234567";"A B"']
    text = "\r\n".join(line.replace(";", mark) for line in lines)
    assert list(read(split(text.encode(), 5))) == [
        ListEntry("5352812345", "Cuba, ETECSA"),
        ListEntry("37181234567", "Latvia, A B"),
    ]


@pytest.mark.parametrize(
    ("text", "column", "found"),
    [
        ("a,b\n1,4930123\n", "b", ["4930123"]),
        ("a,b\n1,4930123\n", "2", ["4930123"]),
        ("x,4930123\ny,4930124\n", "2", ["4930123", "4930124"]),
        ("x,4930123\ny,4930124\n", "", ["4930123", "4930124"]),
        ("prefix,country\n4990,Germany\n", "", ["4990*"]),
        ("prefix\n4990\n", "", ["4990*"]),
        ("Range Start,Range End\n49301000,49301999\n", "", ["49301*"]),
        ('number\n="4930123"\n', "number", ["4930123"]),
    ],
)
def test_columns(text: str, column: str, found: list[str]) -> None:
    assert entries(text, column=column) == found


def test_every_bad_line_is_named_with_its_reason() -> None:
    found = errors("number,note\n4930123,a\n030123,b\n4.9E+11,c\n4930124\n")
    assert [line for line, _ in found] == [3, 4]
    assert "country code" in found[0][1]
    assert "spreadsheet" in found[1][1]


@pytest.mark.parametrize(
    ("data", "line", "why"),
    [
        (b"4930123\n\xff\xfe\n", 2, "not UTF-8"),
        ("4930123\n".encode("utf-16"), 1, "not UTF-8"),
        (b"4930123\n" + b"4" * 5_000 + b"\n4930124\n", 2, "longer than"),
        (b"4" * 5_000, 1, "longer than"),
        (b'number,note\n"4930123,x\n', 2, "is not CSV"),
        (b"who,what\nAlice,x\n", 1, "no column of numbers"),
    ],
)
def test_a_file_that_cannot_be_read_gives_one_error(data: bytes, line: int, why: str) -> None:
    ((at, reason),) = errors(data)
    assert (at, why in reason) == (line, True), reason


def test_a_first_line_with_a_bad_number_is_an_error_and_no_heading() -> None:
    ((line, reason),) = errors("x,030123456\ny,4930123\n", column="2")
    assert (line, "country code" in reason) == (1, True)


def test_a_list_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_file, "ENTRIES_MAX", 3)
    assert errors("4930\n4931\n4932\n4933\n4934\n") == [(4, "a list has at most 3 entries")]


@given(st.binary(max_size=300), st.integers(1, 40), st.sampled_from(["", "2", "number"]))
def test_any_bytes_are_read_and_parts_make_no_difference_to_good_files(
    data: bytes, part_bytes: int, column: str
) -> None:
    whole = list(read([data], column=column))
    parts = list(read(split(data, part_bytes), column=column))
    if not any(isinstance(item, ListLineError) for item in whole):
        assert parts == whole
    for item in parts:
        assert isinstance(item, ListLineError) or parse_pattern(item.pattern) == item.pattern


@given(st.lists(st.tuples(st.integers(10**6, 10**12), st.text(max_size=10)), min_size=1, max_size=20))
def test_what_a_spreadsheet_writes_is_read(rows: list[tuple[int, str]]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["number", "remark"])
    # A line break within quotes is no line of a list.
    clean = [(number, "".join(char if char.isprintable() else " " for char in text)) for number, text in rows]
    writer.writerows((f"+{number}", text) for number, text in clean)
    assert entries(out.getvalue().encode("utf-8", "replace")) == [str(number) for number, _ in clean]


@given(st.integers(10_000, 99_999), st.integers(10_000, 99_999), st.integers(10_000, 99_999))
def test_a_range_has_exactly_the_numbers_from_first_to_last(one: int, two: int, number: int) -> None:
    low, high = sorted((one, two))
    patterns = patterns_of_range(str(low), str(high))
    assert any(fits(pattern, str(number)) for pattern in patterns) is (low <= number <= high)
