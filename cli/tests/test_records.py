"""What programs read: JSON and CSV with amounts, moments, and what strangers wrote."""

import csv
import json
from typing import Any

import pytest
from google.protobuf.message import Message

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.cli import output, records
from callwarden.cli.output import Output
from cli.tests.on_screen import STRANGE


def printed(as_: Output, *messages: Message, capsys: pytest.CaptureFixture[str]) -> str:
    output.emit_messages(as_, type(messages[0]), messages, lambda: None, none="")
    return capsys.readouterr().out


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


CALL = pb.Call(
    call_id="a@x",
    started_at_s=1_764_357_000.5,
    duration_s=90,
    price_micros=250_000,
    currency="EUR",
    destination="442079460101",
)


def test_a_moment_is_rfc_3339_and_an_amount_is_a_decimal_text_beside_its_micros(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (call,) = json.loads(printed(Output.JSON, CALL, capsys=capsys))
    assert (call["started_at"], call["answered_at"]) == ("2025-11-28T19:10:00.500Z", None)
    assert (call["price"], call["price_micros"], call["duration_s"]) == ("0.25", 250_000, 90)
    assert "started_at_s" not in call


def test_csv_has_the_same_fields_a_column_each(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = rows_of(printed(Output.CSV, CALL, capsys=capsys))
    assert (row["started_at"], row["answered_at"]) == ("2025-11-28T19:10:00.500Z", "")
    assert (row["price"], row["duration_s"], row["destination"]) == ("0.25", "90", "442079460101")
    assert "price_micros" not in row


def test_csv_has_columns_for_the_fields_of_a_message_within(capsys: pytest.CaptureFixture[str]) -> None:
    account = pb.Account(name="alice", prepaid=True, numbers=["441", "442"], limits=pb.Limits(daily_micros=5_000_000))
    (row,) = rows_of(printed(Output.CSV, account, capsys=capsys))
    assert (row["limits.daily"], row["limits.monthly"], row["limits.max_lines"]) == ("5.00", "", "")
    assert (row["numbers"], row["prepaid"], row["profile.email"]) == ("441 442", "true", "")


def test_the_header_is_the_same_for_no_rows_and_for_any(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_messages(Output.CSV, pb.Call, [], lambda: None, none="no calls")
    empty = capsys.readouterr().out
    assert empty.count("\n") == 1
    assert printed(Output.CSV, CALL, capsys=capsys).startswith(empty)


def test_a_list_within_can_be_a_row_each(capsys: pytest.CaptureFixture[str]) -> None:
    decision = pb.Decision(account="alice", rules=[pb.RuleVerdict(rule="lines"), pb.RuleVerdict(rule="credit")])
    rows = records.exploded(records.plain(decision), "rules")
    text = records.csv_text(rows, records.csv_columns(pb.Decision, each="rules"))
    assert [(row["account"], row["rules.rule"]) for row in rows_of(text)] == [("alice", "lines"), ("alice", "credit")]
    assert len(records.exploded(records.plain(pb.Decision()), "rules")) == 1


@pytest.mark.parametrize("at_s", [float("inf"), float("nan"), 1e15, -1e15])
def test_a_moment_that_no_calendar_has_is_none(at_s: float) -> None:
    assert records.moment(at_s) is None


HOSTILE = ['=HYPERLINK("http://evil")', "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "＝1+1", "\t=1", STRANGE]


@pytest.mark.cases
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["call_id", "account", "reason"])
def test_a_strangers_text_is_neither_a_formula_nor_a_control(
    text: str, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fields: dict[str, Any] = {field: text}
    call = pb.Call(**fields)
    shown = printed(Output.CSV, call, capsys=capsys)
    assert all(sign == "\n" or sign.isprintable() for sign in shown)
    (row,) = rows_of(shown)
    assert not row[field].startswith(("=", "+", "-", "@", "＝"))
    shown = printed(Output.JSON, call, capsys=capsys)
    assert all(sign == "\n" or sign.isprintable() for sign in shown)
    assert json.loads(shown)[0][field] == text


@pytest.mark.parametrize("number", ["+442079460101", "-5.00", "+49301 +49302", "0", "-0.000001"])
def test_numbers_are_written_as_they_are(number: str) -> None:
    assert records.csv_text([{"n": number}]) == f"n\n{number}\n"
