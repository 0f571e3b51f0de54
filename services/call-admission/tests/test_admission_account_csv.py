"""Accounts as lines of CSV: what is written is read back, and each wrong line is named with its column."""

import csv
import io
from typing import Any

import pytest
from admission_admin import account

from callwarden.call_admission.accounts.core import account_csv
from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.kernel.account import NewAccount
from callwarden.kernel.csv_rows import LineError

FULL: dict[str, Any] = {
    "name": "nora", "realm": "south.example", "type": "traffic-sender", "status": "disabled", "currency": "JPY",
    "time_zone": "Asia/Tokyo", "prepaid": False, "deck": "retail", "parent": "north",
    "numbers": ("+49 30 1234", "+49 30 5678"), "max_lines": 0, "max_lines_off_peak": 2, "max_per_second": 3,
    "daily_micros": 5_000_000, "monthly_micros": 10_500_000, "monthly_increment_micros": 1_000_000,
    "monthly_ceiling_micros": 20_000_000, "talk_day_s": 5_400, "talk_month_s": 360_000, "country": "DE",
    "email": "nora@example.org", "email_verified": True, "phone": "+49 30 99", "phone_verified": True, "shards": 4,
    "lists": ("irsf", "friends"),
}  # fmt: skip


def cells_of(of: NewAccount) -> dict[str, str]:
    """What is written of it, by column."""
    (row,) = csv.DictReader(io.StringIO(account_csv.header() + account_csv.write([of])))
    return row


def read(text: str) -> list[Line | LineError]:
    return list(account_csv.read(text, realm="example.org", currency="EUR"))


def the_account(text: str) -> NewAccount:
    (line,) = read(text)
    assert isinstance(line, Line), line
    return line.account


def wrong(text: str) -> list[tuple[int, str]]:
    return [(error.line, error.field) for error in read(text) if isinstance(error, LineError)]


def test_everything_of_an_account_is_written_as_people_write_it() -> None:
    cells = cells_of(account(**FULL))
    assert cells == {
        "name": "nora", "realm": "south.example", "type": "traffic-sender", "status": "disabled", "currency": "JPY",
        "time_zone": "Asia/Tokyo", "prepaid": "no", "deck": "retail", "parent": "north",
        "numbers": "49301234 49305678", "lines": "0", "lines_off_peak": "2", "per_second": "3", "daily": "5.00",
        "monthly": "10.50", "monthly_increment": "1.00", "monthly_ceiling": "20.00", "talk_day": "5400",
        "talk_month": "360000", "country": "DE", "email": "nora@example.org", "email_verified": "yes",
        "phone": "493099", "phone_verified": "yes", "shards": "4", "lists": "irsf friends",
    }  # fmt: skip
    assert tuple(cells) == account_csv.COLUMNS


def test_what_is_not_set_stays_empty() -> None:
    cells = cells_of(account(max_lines=None, numbers=()))
    assert {name: cell for name, cell in cells.items() if cell} == {
        "name": "alice", "realm": "example.org", "type": "enduser", "status": "active", "currency": "EUR",
        "time_zone": "Europe/Berlin", "prepaid": "yes", "deck": "retail",
    }  # fmt: skip


@pytest.mark.parametrize("of", [account(**FULL), account(), account(max_lines=None, deck="", numbers=())])
def test_what_was_written_is_read_back(of: NewAccount) -> None:
    assert read(account_csv.header() + account_csv.write([of])) == [Line(2, of)]


def test_a_line_with_a_name_alone_takes_its_realm_and_currency_from_the_import() -> None:
    (found,) = account_csv.read("name\nalice\n", realm="south.example", currency="JPY")
    assert found == Line(
        2, account(realm="south.example", currency="JPY", time_zone="UTC", deck="", max_lines=None, numbers=())
    )


@pytest.mark.parametrize(
    ("column", "cell", "attribute", "value"),
    [
        ("lines", "999999", "max_lines", 999_999),
        ("lines", " 7 ", "max_lines", 7),
        ("daily", "12.5", "daily_micros", 12_500_000),
        ("talk_day", "90m", "talk_day_s", 5_400),
        ("talk_day", "3600", "talk_day_s", 3_600),
        ("prepaid", "TRUE", "prepaid", True),
        ("prepaid", "yes", "prepaid", True),
        ("prepaid", "1", "prepaid", True),
        ("prepaid", "no", "prepaid", False),
        ("prepaid", "false", "prepaid", False),
        ("prepaid", "0", "prepaid", False),
        ("numbers", "+49301234 0049305678", "numbers", ("49301234", "49305678")),
        ("lists", "irsf friends", "lists", ("irsf", "friends")),
        ("status", "disabled", "active", False),
        ("realm", "Other.Example", "realm", "other.example"),
        ("currency", "JPY", "currency", "JPY"),
    ],
)  # fmt: skip
def test_a_cell_means_what_it_says(column: str, cell: str, attribute: str, value: object) -> None:
    assert getattr(the_account(f"name,{column}\nalice,{cell}\n"), attribute) == value


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("lines", "many"), ("lines", "-1"), ("lines", "٣"), ("lines", "1234567890"), ("lines", "123456789"),
        ("daily", "1.2.3"), ("daily", "-1"), ("talk_day", "soon"), ("talk_day", "-5"), ("prepaid", "perhaps"),
        ("numbers", "12a"), ("status", "asleep"), ("lines", "9" * 5_000), ("email_verified", "yes"),
        ("monthly_ceiling", "5"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_its_line_and_column(column: str, cell: str) -> None:
    assert wrong(f"name,{column}\nbob,\nalice,{cell}\n") == [(3, column)]
    assert len(read(f"name,{column}\nbob,\nalice,{cell}\n")) == 2, "the other line is taken"


@pytest.mark.parametrize("column", ["lines", "talk_day", "daily"])
def test_a_number_below_zero_is_said_to_be_negative(column: str) -> None:
    (error,) = read(f"name,{column}\nalice,-5\n")
    assert isinstance(error, LineError)
    assert "must not be negative" in error.reason


@pytest.mark.parametrize(("text", "line", "field"), [("lines\n5\n", 1, "name"), ("name,colour\na,b\n", 1, "colour")])
def test_a_first_line_without_names_or_with_an_unknown_one_is_refused(text: str, line: int, field: str) -> None:
    assert wrong(text) == [(line, field)]


def test_names_and_numbers_stand_in_a_file_once() -> None:
    found = read(
        "name,realm,numbers\nalice,,49301\nalice,,49302\nalice,other.org,49303\nbob,,49304 49301\ncarol,,49305\n"
    )
    assert [
        (each.number, each.account.name) if isinstance(each, Line) else (each.line, each.field, each.reason)
        for each in found
    ] == [
        (2, "alice"), (3, "name", "alice is on line 2 already"), (4, "alice"),
        (5, "numbers", "+49301 is on line 2 already"), (6, "carol"),
    ]  # fmt: skip


def test_a_file_without_an_account_says_so() -> None:
    assert [error.reason for error in read("name\n") if isinstance(error, LineError)] == ["there are no accounts"]
