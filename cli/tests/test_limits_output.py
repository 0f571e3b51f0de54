"""What `callwarden limits` and `callwarden explain --account` show: at a glance what is near, over, refused, told."""

import json
from datetime import UTC, datetime

import pytest

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.rating.v1 import rating_pb2
from callwarden.cli import explanation, output, values
from callwarden.cli.commands import limits
from callwarden.cli.failure import CliMisuse
from callwarden.cli.main import run
from callwarden.kernel.clock import UnixS
from cli.tests.on_screen import STRANGE, shown

NOW_S = UnixS(datetime(2026, 11, 24, 20, 0, tzinfo=UTC).timestamp())  # 21:00 in Berlin
MIDNIGHT_S = datetime(2026, 11, 24, 23, 0, tzinfo=UTC).timestamp()  # there
ALICE = pb.Account(name="alice", realm="example.org", type="enduser", currency="EUR", time_zone="Europe/Berlin")


def line(text: str, word: str) -> str:
    return next(found for found in text.splitlines() if word in found)


def limits_of(*uses: pb.LimitUse) -> str:
    return shown(limits.render(pb.ShowLimitsReply(account=ALICE, limits=uses, policy_revision=3), NOW_S), width=200)


def test_a_limit_shows_use_rest_reset_in_the_accounts_zone_and_who_set_it() -> None:
    text = limits_of(
        pb.LimitUse(
            rule="daily_spend",
            mode="enforce",
            counter="spend",
            unit="micros",
            used=20_500_000,
            limit=25_000_000,
            remaining=4_500_000,
            window="day 2026-11-24 Europe/Berlin",
            resets_at_s=MIDNIGHT_S,
            source="account",
        )
    )
    shown_line = line(text, "daily_spend")
    for part in ("20.50 of 25.00 spend", " 4.50", "82 %", "day to 00:00 (3 h)", "account"):
        assert part in shown_line
    assert "alice@example.org" in text
    assert all(part in text.splitlines()[1] for part in ("EUR", "Europe/Berlin", "policy revision 3"))


def test_limits_fit_a_terminal_of_100_columns() -> None:
    use = pb.LimitUse(
        rule="monthly_spend", counter="spend", unit="micros", used=120_500_000, limit=2_500_000_000, source="account",
        remaining=2_379_500_000, window="month 2026-11 Europe/Berlin", resets_at_s=NOW_S + 6 * 86_400,
    )  # fmt: skip
    text = shown(limits.render(pb.ShowLimitsReply(account=ALICE, limits=[use]), NOW_S), width=100)
    assert "month to 2026-11-30 (6 d)  account" in line(text, "monthly_spend")


@pytest.mark.parametrize(
    ("used", "limit", "mode", "style"),
    [
        (0, 5, "enforce", ""),
        (3, 5, "enforce", ""),
        (4, 5, "enforce", "yellow"),
        (5, 5, "enforce", "bold red"),
        (6, 5, "report", "bold red"),
        (6, 5, "off", output.DIM),
        (0, 0, "enforce", "bold red"),
        (9, None, "enforce", ""),
    ],
)
def test_what_is_near_its_limit_or_over_it_is_coloured(used: int, limit: int | None, mode: str, style: str) -> None:
    use = pb.LimitUse(rule="lines", mode=mode, counter="calls", unit="calls", used=used, limit=limit)
    assert limits._style(use) == style


def test_a_rule_that_only_reports_or_is_off_says_so() -> None:
    text = limits_of(
        pb.LimitUse(rule="velocity", mode="report", counter="calls", unit="calls", used=1, limit=2),
        pb.LimitUse(rule="lines", mode="off", counter="calls", unit="calls", used=1),
    )
    assert "velocity (report only)" in text
    assert "lines (off)" in text
    assert "no limit" in line(text, "lines (off)")


def test_talk_time_is_shown_as_time() -> None:
    use = pb.LimitUse(rule="talk_time", counter="talk", unit="s", used=3_600, limit=7_200, remaining=3_600)
    assert "1:00:00" in line(limits_of(use), "talk_time")


SIMULATED = pb.SimulateCallReply(
    admitted=pb.Admitted(granted_s=60, max_duration_s=7_200, routes=[rating_pb2.Route(trunk="berlin")]),
    decision=pb.Decision(
        policy_revision=3,
        rules=[pb.RuleVerdict(rule="lines", mode="enforce", verdict="pass", counter="calls", value=1, limit=5)],
    ),
    held_micros=60_000,
    currency="EUR",
    prefix="49",
    price=rating_pb2.Price(
        currency="EUR",
        windows=[rating_pb2.Window(groups=[rating_pb2.RateGroup(rate_micros=60_000, unit_s=60, increment_s=1)])],
    ),
)


def test_a_simulated_call_tells_what_it_would_get_cost_and_take() -> None:
    text = shown(limits.render_simulation("alice", "+4930123", SIMULATED))
    assert text.startswith("A call from alice to +4930123 would be admitted.")
    for part in ("1:00 of talk", "2:00:00 of talk", "0.06 EUR a minute by prefix 49", "berlin", "calls 1, limit 5"):
        assert part in text


def test_a_simulated_call_to_a_number_of_ours_names_its_owner() -> None:
    reply = pb.SimulateCallReply(admitted=pb.Admitted(granted_s=60), number_owner="bob@example.org")
    text = shown(limits.render_simulation("alice", "+4930777", reply))
    assert "of bob@example.org: local" in text


def test_a_simulated_refusal_ends_with_its_reason() -> None:
    reply = pb.SimulateCallReply(
        refused=pb.Refused(reason="lines"),
        decision=pb.Decision(
            rules=[pb.RuleVerdict(rule="lines", verdict="refuse", counter="calls", value=5, limit=5)],
            refused=pb.Refused(reason="lines", rule="lines", text="All 5 lines are in use.", retry_after_s=90),
        ),
    )
    text = shown(limits.render_simulation("alice", "+4930123", reply))
    assert "would be refused." in text
    assert text.splitlines()[-1].strip() == "→ lines: All 5 lines are in use, retry after 2 min"


def test_a_list_of_decisions_tells_refusals_reports_warnings_and_cuts_apart() -> None:
    reports = pb.RuleVerdict(rule="premium", mode="report", verdict="refuse", text="A premium-rate number.")
    warns = pb.RuleVerdict(rule="velocity", mode="enforce", verdict="pass", text="Many calls in a minute.")
    refused = pb.Refused(reason="lines", rule="lines", text="All lines are in use.")
    found = [
        pb.DecisionLine(call_id="c1", decision=pb.Decision(at_s=1, outcome="admit", rules=[reports, warns])),
        pb.DecisionLine(call_id="c2", decision=pb.Decision(at_s=2, outcome="refuse", refused=refused)),
        pb.DecisionLine(call_id="c3", decision=pb.Decision(at_s=3, outcome="cut")),
    ]
    text = shown(explanation.render_list(found))
    assert "c1" in line(text, "admitted")
    assert [found.split()[2:] for found in text.splitlines() if found[:4] == "1970"] == [
        ["admitted", "c1"],
        ["would", "refuse", "c1"],
        ["warned", "c1"],
        ["refused", "c2"],
        ["last", "slice", "c3"],
    ]
    for said in (
        "premium: A premium-rate number.",
        "velocity: Many calls in a minute.",
        "lines: All lines are in use.",
    ):
        assert line(text, said)


def test_an_explanation_says_of_an_admitted_call_what_would_have_refused_or_warned() -> None:
    reply = pb.ExplainReply(
        decisions=[
            pb.Decision(
                at_s=1,
                outcome="admit",
                rules=[
                    pb.RuleVerdict(rule="premium", mode="report", verdict="refuse", text="A premium-rate number."),
                    pb.RuleVerdict(rule="velocity", mode="enforce", verdict="pass", text="Many calls in a minute."),
                ],
            )
        ]
    )
    text = shown(explanation.render("c1", reply))
    assert "→ would have been refused by premium" in text
    assert "! " in line(text, "Many calls in a minute.")


def test_a_stranger_does_not_command_the_terminal() -> None:
    rule = pb.RuleVerdict(rule=STRANGE, counter=STRANGE, window=STRANGE, text=STRANGE, mode="report", verdict="refuse")
    decision = pb.Decision(outcome="admit", source_address=STRANGE, rules=[rule])
    simulated = pb.SimulateCallReply(refused=pb.Refused(), decision=decision, currency=STRANGE, prefix=STRANGE)
    use = pb.LimitUse(rule=STRANGE, counter=STRANGE, mode=STRANGE, window=STRANGE, source=STRANGE, resets_at_s=1)
    text = (
        shown(explanation.render_list([pb.DecisionLine(call_id=STRANGE, decision=decision)]))
        + shown(limits.render_simulation(STRANGE, STRANGE, simulated))
        + limits_of(use)
    )
    assert "\\x1b[31m" in text
    assert not [sign for sign in text if sign != "\n" and not sign.isprintable()]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("08:00", "2026-11-24T07:00"),
        ("2026-07-01 08:00", "2026-07-01T06:00"),
        ("2026-07-01T08:00:30", "2026-07-01T06:00:30"),
        ("2026-07-01T08:00Z", "2026-07-01T08:00"),
    ],
)
def test_a_moment_is_read_by_the_accounts_clock(text: str, utc: str) -> None:
    at_s = values.moment(text, "Europe/Berlin", NOW_S, name="--at")
    assert at_s == datetime.fromisoformat(utc).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["", "8", "24:61", "tomorrow", "2026-13-01 08:00"])
def test_what_is_no_moment_is_a_misuse(text: str) -> None:
    with pytest.raises(CliMisuse, match="--at"):
        values.moment(text, "Europe/Berlin", NOW_S, name="--at")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_600, "60 min"), (10_800, "3 h"), (864_000, "10 d")],
)
def test_a_span_is_told_in_the_unit_that_matters(seconds: int, text: str) -> None:
    assert output.span(seconds) == text


@pytest.mark.parametrize(
    "command",
    [
        "explain",
        "explain c1 --account alice",
        "explain c1 --refused",
        "explain --account alice --refused --reported",
        "explain --account alice --since yesterday",
    ],
)
def test_what_can_not_be_meant_is_said_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("callwarden: ")
    assert "Traceback" not in said


def test_json_of_a_limit_says_null_where_there_is_none() -> None:
    plain = json.loads(json.dumps(output.plain(pb.LimitUse(rule="lines", used=1))))
    assert (plain["used"], plain["limit"], plain["remaining"]) == (1, None, None)
