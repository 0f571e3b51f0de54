"""Call records as they leave the system, places in lists of them, and what a correction adds to the ledger."""

import csv
import io
import json
from dataclasses import replace
from uuid import UUID

import pytest

from callwarden.call_admission.records.core.corrections import (
    AccountFunds,
    Corrected,
    LedgerLine,
    Reversal,
    id_of,
    reversal,
)
from callwarden.call_admission.records.core.records import CallRecord, RecordPlace, check_format, header, write
from callwarden.kernel.errors import Conflict, Invalid
from callwarden.kernel.money import AMOUNT_MICROS_MAX

RECORD = CallRecord(
    hold_id="h1", call_id="c1", account_id="a1", account="alice", realm="example.org", destination="493012345678",
    dialled="030", caller_number="=4930", source_address="192.0.2.7", edge="edge-0", started_at_s=1_767_614_400.0,
    answered_at_s=1_767_614_405.25, ended_at_s=1_767_614_435.5, duration_s=31, billed_s=31, price_micros=31_000,
    corrected_micros=-20_000, cost_micros=15_500, margin_micros=-4_500, currency="EUR", prefix="49", trunk="carrier",
    carrier_account_id="k1", reason="caller-büß", sip_status=200, limits_hit="credit", policy_revision=7, trace_id="t1",
)  # fmt: skip


def written(record: CallRecord) -> dict[str, str]:
    (row,) = csv.DictReader(io.StringIO(header("csv") + write([record], "csv")))
    return row


def test_a_record_is_written_for_people_in_csv() -> None:
    assert written(RECORD) == {
        "hold_id": "h1", "call_id": "c1", "account_id": "a1", "account": "alice", "realm": "example.org",
        "destination": "493012345678", "dialled": "030", "caller_number": "'=4930", "source_address": "192.0.2.7",
        "edge": "edge-0", "started_at": "2026-01-05T12:00:00.000+00:00",
        "answered_at": "2026-01-05T12:00:05.250+00:00", "ended_at": "2026-01-05T12:00:35.500+00:00",
        "duration_s": "31", "billed_s": "31", "price": "0.031", "corrected": "-0.02", "cost": "0.0155",
        "margin": "-0.0045", "currency": "EUR", "prefix": "49", "trunk": "carrier", "carrier_account_id": "k1",
        "reason": "caller-büß", "sip_status": "200", "limits_hit": "credit", "policy_revision": "7", "trace_id": "t1",
    }  # fmt: skip


def test_what_is_unknown_or_never_was_stays_empty_and_nothing_is_an_amount() -> None:
    unanswered = written(replace(RECORD, answered_at_s=0.0, cost_micros=None, margin_micros=None, price_micros=0))
    assert [unanswered[name] for name in ("answered_at", "cost", "margin", "price")] == ["", "", "", "0.00"]


def test_a_record_is_written_as_it_is_in_json_lines() -> None:
    text = write([RECORD, replace(RECORD, cost_micros=None)], "jsonl")
    first, second = text.splitlines()
    assert json.loads(first)["started_at_s"] == 1_767_614_400.0
    assert json.loads(first)["caller_number"] == "=4930"
    assert "caller-büß" in first
    assert json.loads(second)["cost_micros"] is None
    assert header("jsonl") == ""
    assert text.endswith("}\n")


def test_a_format_is_one_of_two() -> None:
    assert [check_format(each) for each in ("csv", "jsonl")] == ["csv", "jsonl"]
    with pytest.raises(Invalid) as raised:
        check_format("xml")
    assert raised.value.field == "format"


def test_a_place_in_a_list_is_said_and_understood() -> None:
    place = RecordPlace(99_999_999_999_999_999, UUID(int=5))
    assert RecordPlace.parse(str(place)) == place


@pytest.mark.parametrize(
    "text",
    ["", "5", "5.abc", f"5.{UUID(int=5)}x", f"-5.{UUID(int=5)}", f"٣.{UUID(int=5)}", f"1{'0' * 17}.{UUID(int=5)}"],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        RecordPlace.parse(text)
    assert raised.value.field == "after"


# ------------------------------------------------------------------ corrections

CHARGE = LedgerLine(UUID(int=1), 0, -50_000)
FUNDS = AccountFunds("alice", "EUR", prepaid=True, balance_micros=100_000, held_micros=30_000, overdraft_micros=5_000)


def test_the_first_correction_stands_beside_the_charge() -> None:
    assert reversal([CHARGE], "k", -20_000, FUNDS) == Reversal(id_of("k"), 1, 30_000)
    assert reversal([], "k", 7, FUNDS) == Reversal(id_of("k"), 1, 7)


def test_a_later_correction_makes_the_sum_right() -> None:
    entries = [CHARGE, LedgerLine(id_of("a"), 1, 30_000), LedgerLine(id_of("b"), 2, -10_000)]
    assert reversal(entries, "c", -50_000, FUNDS) == Reversal(id_of("c"), 3, -20_000)


def test_a_key_that_was_used_tells_what_it_did_then_or_that_it_was_for_something_else() -> None:
    entries = [CHARGE, LedgerLine(id_of("a"), 1, 30_000), LedgerLine(id_of("b"), 2, -10_000)]
    assert reversal(entries, "a", -20_000, FUNDS) == Corrected(id_of("a"), "alice", 30_000, "EUR", 100_000, True)
    assert reversal(entries, "b", -30_000, FUNDS) == Corrected(id_of("b"), "alice", -10_000, "EUR", 100_000, True)
    with pytest.raises(Conflict) as raised:
        reversal(entries, "a", -30_000, FUNDS)
    assert raised.value.field == "key"


def test_a_prepaid_account_bears_what_it_has_and_no_micro_more() -> None:
    # 100,000 and the overdraft, less what running calls hold.
    assert reversal([CHARGE], "k", -125_000, FUNDS) == Reversal(id_of("k"), 1, -75_000)
    with pytest.raises(Conflict, match=r"0\.075 EUR .* takes 0\.075001 EUR"):
        reversal([CHARGE], "k", -125_001, FUNDS)
    postpaid = replace(FUNDS, prepaid=False)
    assert reversal([CHARGE], "k", -125_001, postpaid) == Reversal(id_of("k"), 1, -75_001)


def test_what_is_given_back_is_taken_by_an_account_in_the_red_too() -> None:
    red = replace(FUNDS, balance_micros=-90_000)
    assert reversal([CHARGE], "k", 0, red) == Reversal(id_of("k"), 1, 50_000)
    assert reversal([CHARGE], "k", -50_000, red) == Reversal(id_of("k"), 1, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_balance_stays_within_what_an_amount_can_be(sign: int) -> None:
    at_it = replace(FUNDS, prepaid=False, balance_micros=sign * (AMOUNT_MICROS_MAX - 1))
    assert reversal([], "k", sign, at_it) == Reversal(id_of("k"), 1, sign)
    with pytest.raises(Conflict, match="beyond"):
        reversal([], "k", 2 * sign, at_it)
