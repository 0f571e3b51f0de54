"""Every command's table at every width: ids, amounts and moments stay whole, what is left out is named."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.message import Message
from rich.text import Text

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.admission.v1 import lists_pb2
from callwarden.api.rateguard.v1 import rateguard_pb2
from callwarden.api.rating.v1 import rating_pb2
from callwarden.cli import layout, output
from callwarden.cli.commands import account, ban, calls, ledger, limits, lists, policy, rates, trunk
from callwarden.cli.policies import RunningRevision
from callwarden.kernel.clock import UnixS

CALL_ID = "3c26a7b0e1d94f6a8e21c57bd0934f6a@pbx-frankfurt-03.customer.example"
UUID = "5f0c6a3e-9a4b-4f3e-8f0e-3b1f4f8f7a11"
NAME = "a-customer-with-quite-a-long-name"
NOW_S = UnixS(time.time())
MONEY = 123_456_789_012
SHOWN_MONEY = "123456.789012"
NUMBER = "442079460101"
DATE = "2001-09-09 0"  # 1e9 s after 1970: another day than today, in any time zone
PROSE = "a reason that goes on and on, for much longer than any terminal has columns, and then a little further"

ACCOUNT = pb.Account(
    id=UUID,
    name=NAME,
    realm="callwarden.local",
    type="traffic-sender",
    status="active",
    currency="EUR",
    time_zone="Europe/Berlin",
    balance_micros=MONEY,
    held_micros=MONEY,
    spent_today_micros=MONEY,
    numbers=[NUMBER, "442079460109"],
    limits=pb.Limits(max_lines=5, daily_micros=MONEY),
)
CALL = pb.Call(
    call_id=CALL_ID,
    account=NAME,
    destination=NUMBER,
    state="settled",
    started_at_s=1e9,
    answered_at_s=1e9,
    duration_s=3_723,
    price_micros=MONEY,
    currency="EUR",
    reason=PROSE,
)
ENTRY = pb.LedgerEntry(
    id=UUID, at_s=1e9, kind="reversal", amount_micros=-MONEY, currency="EUR", reference=CALL_ID, note=PROSE
)
BAN = rateguard_pb2.BanEntry(
    address="2001:db8:1234:5678:9abc:def0:1234:5678", reason=PROSE, evidence=PROSE, by="operator", since_s=1e9
)
LISTED = lists_pb2.ListedNumber(
    number=NUMBER, side="called", realm="callwarden.local", list="smart", reason=PROSE, evidence=PROSE, since_s=1e9
)
LIST = lists_pb2.NumberList(
    name=NAME, kind="block", side="called", entries=10, version=3, updated_at_s=1e9, source=PROSE, loaded=True
)
TRUNK = pb.Trunk(
    name=NAME, direction="traffic-sender", address="[2001:db8::7]:5060", account=UUID, block_prefixes=["4990"] * 20
)
LIMIT = pb.LimitUse(
    rule="monthly_spend",
    counter="spend",
    unit="micros",
    used=MONEY,
    limit=MONEY,
    remaining=MONEY,
    window="month 2026-11 Europe/Berlin",
    resets_at_s=NOW_S + 6 * 86_400,
    source="account",
)
DECISION = pb.Decision(
    at_s=1e9,
    service="call-admission",
    outcome="refuse",
    account=NAME,
    source_address="192.0.2.7",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    rules=[
        pb.RuleVerdict(rule="daily_spend", verdict="refuse", counter="spend", value=MONEY, limit=MONEY, text=PROSE),
        pb.RuleVerdict(rule="lines", verdict="skip", text="no limit"),
    ],
    refused=pb.Refused(reason="daily-spend", text=PROSE, sip_status=486, retry_after_s=90),
)
QUOTE = rating_pb2.Quote(
    prefix="4420",
    description="United Kingdom, London and all around it",
    deck="retail",
    price=rating_pb2.Price(
        currency="EUR",
        windows=[
            rating_pb2.Window(
                name="peak", connect_fee_micros=MONEY, groups=[rating_pb2.RateGroup(rate_micros=MONEY, unit_s=60)]
            )
        ],
    ),
)


def a_call_simulated() -> None:
    reply = pb.SimulateCallReply(
        admitted=pb.Admitted(granted_s=60), decision=DECISION, held_micros=MONEY, currency="EUR", price=QUOTE.price
    )
    output.show(limits.render_simulation(NAME, f"+{NUMBER}", reply))


def explained() -> None:
    from callwarden.cli import explanation

    output.show(explanation.render(CALL_ID, pb.ExplainReply(decisions=[DECISION], call=CALL)))


def decisions() -> None:
    from callwarden.cli import explanation

    output.show(explanation.render_list([pb.DecisionLine(call_id=CALL_ID, decision=DECISION)]))


# What each command prints, and what of it must be whole on one line at any width.
VIEWS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "account list": (
        lambda: output.show(account._table([ACCOUNT])),
        [NAME, f"{SHOWN_MONEY} EUR", f"+{NUMBER} +442079460109"],
    ),
    "account show": (lambda: output.show(account.details(ACCOUNT)), [NAME, UUID, f"{SHOWN_MONEY} EUR", f"+{NUMBER}"]),
    "ban list": (lambda: ban._show([BAN]), [BAN.address, DATE]),
    "call list": (lambda: calls.show([CALL]), [CALL_ID, NAME, f"{SHOWN_MONEY} EUR", f"+{NUMBER}", DATE]),
    "explain": (explained, [CALL_ID, NAME, SHOWN_MONEY, f"{SHOWN_MONEY} EUR", DATE, DECISION.trace_id, "SIP 486"]),
    "explain --account": (decisions, [CALL_ID, DATE, "192.0.2.7"]),
    "ledger list": (lambda: output.show(ledger._table([ENTRY])), [UUID, CALL_ID, f"-{SHOWN_MONEY} EUR", DATE]),
    "limits show": (
        lambda: output.show(limits.render(pb.ShowLimitsReply(account=ACCOUNT, limits=[LIMIT]), NOW_S)),
        [f"{SHOWN_MONEY} of {SHOWN_MONEY} spend", f"{NAME}@callwarden.local"],
    ),
    "limits simulate": (a_call_simulated, [f"{SHOWN_MONEY} EUR", NAME, f"+{NUMBER}"]),
    "list list": (lambda: output.show(lists._table([LIST])), [NAME, DATE]),
    "list listed": (lambda: lists._show_listed([LISTED]), [f"+{NUMBER}", DATE]),
    "policy status": (
        lambda: policy._show_status(3, [RunningRevision("call-admission", f"call-admission-{UUID}", 3, 1e9)]),
        [UUID, DATE],
    ),
    "rates simulate": (
        lambda: output.show(rates._priced(rating_pb2.Simulation(quote=QUOTE, cost_micros=MONEY), 90)),
        [f"{SHOWN_MONEY} EUR"],
    ),
    "trunk list": (lambda: trunk._show([TRUNK]), [NAME, "[2001:db8::7]:5060", UUID]),
}


@pytest.mark.parametrize("columns", ["60", "80", "200", "1", ""], ids=lambda columns: columns or "piped")
@pytest.mark.parametrize("command", VIEWS)
def test_ids_amounts_and_moments_stay_whole(
    command: str, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    view, whole = VIEWS[command]
    view()
    lines = capsys.readouterr().out.splitlines()
    for value in whole:
        assert any(value in line for line in lines), (value, "\n".join(lines))


@pytest.mark.parametrize("command", VIEWS)
def test_nothing_is_cut_or_left_out_where_no_terminal_ends_the_lines(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    VIEWS[command][0]()
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "left out" not in shown


@pytest.mark.parametrize("command", ["call list", "ban list", "ledger list", "list listed"])
def test_a_wide_terminal_is_not_exceeded_for_the_sake_of_prose(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    VIEWS[command][0]()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def table(**how: Any) -> output.Rows:
    rows = output.Rows("id", "amount", "why", "by", **how)
    rows.add("0123456789", "12.50 EUR", "x" * 30, "operator")
    return rows


def text_of(renderable: output.Rows | output.Aligned, width: int) -> list[str]:
    return [line.plain for line in renderable.lines(width)]


def test_a_table_that_fits_has_one_line_a_row() -> None:
    head, rule, row = text_of(table(right=("amount",)), 80)
    assert head == "id             amount  why                             by"
    assert set(rule) == {"─"}
    assert row == f"0123456789  12.50 EUR  {'x' * 30}  operator"


def test_prose_is_cut_first_then_columns_go_below_then_they_are_left_out_and_named() -> None:
    how: dict[str, Any] = {"prose": ("why",), "below": ("by",), "optional": ("why",)}
    cut = text_of(table(**how), 60)
    assert cut[-1].endswith("…  operator")
    assert len(cut[-1]) == 60
    below = text_of(table(**how), 48)
    assert below[-1] == "  by operator"
    without = text_of(table(**how), 30)
    assert without[2:4] == ["0123456789  12.50 EUR", "  by operator"]
    assert " ".join(without[4:]) == "left out for want of width: why (all with `| less -S` or --output json)"


def test_what_may_not_be_left_out_makes_the_line_longer_than_the_terminal() -> None:
    assert text_of(table(), 10)[-1] == f"0123456789  12.50 EUR  {'x' * 30}  operator"


def test_an_empty_column_is_left_out_without_a_word() -> None:
    rows = output.Rows("id", "note that nobody wrote", "amount")
    rows.add("0123456789", "", "12.50 EUR")
    assert text_of(rows, 25)[-1] == "0123456789  12.50 EUR"


def test_wide_characters_keep_columns_aligned() -> None:
    rows = output.Rows("name", "id")
    rows.add("電話", "1")
    rows.add("tel.", "2")
    assert [line.plain for line in rows.lines(80)][-2:] == ["電話  1", "tel.  2"]


def test_a_paragraph_breaks_between_words_and_never_within_an_amount_or_a_moment() -> None:
    lines = layout.wrapped(Text("held 12.50 EUR since 2026-11-25 08:00:00 for 90 s (SIP 486)"), 12)
    assert [line.plain for line in lines] == [
        "held",
        "12.50 EUR",
        "since",
        "2026-11-25 08:00:00",
        "for 90 s",
        "(SIP 486)",
    ]


def test_a_paragraph_continues_below_itself_or_below_its_label() -> None:
    rows = output.Aligned([("label", "one two three four five six seven eight nine ten")])
    assert text_of(rows, 40) == ["label  one two three four five six seven", "       eight nine ten"]
    assert text_of(rows, 20) == ["label  one two", "    three four five", "    six seven eight", "    nine ten"]


def test_one_record_per_field_of_every_message_that_is_shown() -> None:
    """An amount has two names in JSON; the shorter one must not be another field's."""
    from callwarden.cli import records

    for module in (pb, lists_pb2, rateguard_pb2, rating_pb2):
        for name in module.DESCRIPTOR.message_types_by_name:
            kind: type[Message] = getattr(module, name)
            with suppress(RecursionError):
                columns = records.csv_columns(kind)
                assert len(columns) == len(set(columns)), name
