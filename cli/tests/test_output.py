"""What people and programs read: money, times, JSON of every field, the chain of a decision."""

import time

import pytest

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.rating.v1 import rating_pb2
from callwarden.cli import explanation, output, values
from callwarden.cli.failure import CliMisuse, of_child
from callwarden.local.process import ChildFailed
from cli.tests.on_screen import STRANGE, shown


def test_json_has_every_field_and_numbers_are_numbers() -> None:
    account = pb.Account(name="alice", balance_micros=12_345_678_901, prepaid=True)
    account.limits.max_lines = 5
    plain = output.plain(account)
    assert (plain["balance_micros"], plain["balance"]) == (12_345_678_901, "12345.678901")
    amounts = {"daily", "monthly", "monthly_increment", "monthly_ceiling"}
    fields = {field.name for field in pb.Limits.DESCRIPTOR.fields}
    assert plain["limits"] == dict.fromkeys(fields | amounts) | {"max_lines": 5}
    assert plain["numbers"] == []
    assert (plain["held_micros"], plain["held"]) == (0, "0.00")
    assert set(plain) == {field.name for field in pb.Account.DESCRIPTOR.fields} | {"balance", "held", "spent_today"}


def test_json_of_a_choice_shows_what_was_chosen() -> None:
    assert output.plain(rating_pb2.SimulateReply(refused="no-rate")) == {"refused": "no-rate", "text": ""}
    chosen = output.plain(rating_pb2.SimulateReply(simulation=rating_pb2.Simulation(cost_micros=7)))
    assert list(chosen) == ["simulation", "text"]
    assert chosen["simulation"]["cost_micros"] == 7
    assert chosen["simulation"]["quote"] is None


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (62, "1:02"), (3_723, "1:02:03")])
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_a_moment_has_its_date_only_where_it_is_not_today() -> None:
    assert output.clock(0) == ""
    assert len(output.clock(time.time())) == len("12:00:00")
    assert output.clock(86_400 * 365).startswith("197")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1h30m", 5_400), ("2d", 172_800)])
def test_durations_are_written_as_people_do(text: str, seconds: int) -> None:
    assert values.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-3", "³"])
def test_what_is_no_duration_is_a_misuse(text: str) -> None:
    with pytest.raises(CliMisuse):
        values.seconds(text)


def test_a_password_made_is_long_and_never_the_same() -> None:
    made = {values.new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(len(password) == 20 and password.isalnum() for password in made)


def test_an_explanation_shows_every_rule_with_its_numbers_and_marks_the_one_that_refused() -> None:
    decision = pb.Decision(
        at_s=1.0,
        service="call-admission",
        outcome="refuse",
        policy_revision=3,
        account="office",
        rules=[
            pb.RuleVerdict(rule="premium", mode="report", verdict="refuse", text="a premium-rate number"),
            pb.RuleVerdict(rule="lines", mode="enforce", verdict="refuse", counter="calls", value=6, limit=5),
            pb.RuleVerdict(rule="credit", mode="enforce", verdict="skip", text="postpaid"),
            pb.RuleVerdict(
                rule="daily-spend", mode="enforce", verdict="pass", counter="spend", value=1_200_000, limit=25_000_000
            ),
        ],
        refused=pb.Refused(reason="lines", rule="lines", text="All lines are in use.", sip_status=486),
    )
    lines = shown(explanation.render("abc@x", pb.ExplainReply(decisions=[decision]))).splitlines()

    def line(word: str) -> str:
        return next(text for text in lines if word in text)

    assert "Refused by call-admission" in line("call-admission")
    assert "! " in line("premium")
    assert "report only" in line("premium")
    assert "✗" in line("calls 6, limit 5")
    assert line("postpaid").strip() == "·  not applicable (postpaid): credit"
    assert "✓" in line("daily-spend")
    assert "1.20, limit 25.00" in line("daily-spend")
    assert line("→").strip() == "→ lines: All lines are in use (SIP 486)"


def test_seconds_are_shown_as_a_clock_shows_them_without_their_unit() -> None:
    bound = pb.RuleVerdict(rule="duration", mode="enforce", verdict="pass", counter="seconds", limit=7_200)
    text = shown(explanation.render("abc@x", pb.ExplainReply(decisions=[pb.Decision(outcome="admit", rules=[bound])])))
    assert "duration  0:00, limit 2:00:00" in text
    assert "seconds" not in text


def test_rules_that_do_not_apply_share_a_line_for_each_reason_unless_all_are_wanted() -> None:
    names = [f"rule_{number}" for number in range(20)]
    decision = pb.Decision(
        outcome="admit",
        rules=[
            pb.RuleVerdict(
                rule=name, mode="enforce", verdict="skip", text="no limit" if number % 2 else "off by policy"
            )
            for number, name in enumerate(names)
        ],
    )
    decision.rules.insert(5, pb.RuleVerdict(rule="lines", mode="enforce", verdict="pass", counter="calls", limit=3))
    decision.rules.append(pb.RuleVerdict(rule="baseline", mode="report", verdict="skip", text="off by policy"))
    reply = pb.ExplainReply(decisions=[decision])
    text = shown(explanation.render("abc@x", reply))
    assert text.count("no limit") == text.count("off by policy") == 1
    assert text.index("calls 0, limit 3") < text.index("off by policy") < text.index("no limit")
    assert "baseline (report only)" in " ".join(text.split())
    assert all(name in text for name in names)
    assert text.count("·") == 2
    every = shown(explanation.render("abc@x", reply, every=True))
    assert every.count("·") == 21
    assert every.index("rule_4") < every.index("lines") < every.index("rule_5")


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (pb.Decision(outcome="cut", cut_by="credit"), "→ cut by credit: the rest is less than a whole slice"),
        (
            pb.Decision(outcome="cut", refused=pb.Refused(reason="daily-spend", rule="daily_spend", text="Spent.")),
            "→ cut by daily_spend",
        ),
        (pb.Decision(outcome="admit", cut_by="credit"), "→ cut by credit: the rest is less than a whole slice"),
    ],
)
def test_an_explanation_names_the_rule_that_cuts_a_call(decision: pb.Decision, said: str) -> None:
    lines = shown(explanation.render("abc@x", pb.ExplainReply(decisions=[decision]))).splitlines()
    assert said in [text.strip() for text in lines]


def test_an_explanation_tells_the_oldest_decision_first_and_ends_with_the_record() -> None:
    reply = pb.ExplainReply(
        decisions=[
            pb.Decision(at_s=20.0, service="edge-proxy", outcome="cut"),
            pb.Decision(at_s=10.0, service="call-admission", outcome="admit"),
        ],
        call=pb.Call(
            state="settled",
            answered_at_s=11.0,
            ended_at_s=16.0,
            duration_s=5,
            billed_s=5,
            price_micros=50_000,
            currency="EUR",
            reason="cut-credit",
            trunk="berlin",
        ),
    )
    text = shown(explanation.render("abc@x", reply))
    assert text.index("Admitted by call-admission") < text.index("Cut by edge-proxy") < text.index("cut-credit")
    assert "talked 5 s, charged 5 s, 0.05 EUR" in text


def test_what_others_wrote_is_never_read_as_markup() -> None:
    """A Call-ID or a text in an answer may hold anything; brackets must neither vanish nor colour the terminal."""
    reply = pb.ExplainReply(
        decisions=[
            pb.Decision(
                at_s=1.0,
                service="[red]x",
                outcome="refuse",
                account="[bold]y[/]",
                rules=[pb.RuleVerdict(rule="r", verdict="pass", text="[/] unmatched")],
                refused=pb.Refused(reason="z", text="[link=http://evil]click"),
            )
        ]
    )
    text = shown(explanation.render("[blink]id", reply))
    for raw in ("[blink]id", "[red]x", "[bold]y[/]", "[/] unmatched", "[link=http://evil]click"):
        assert raw in text


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", "rating-0 ended"),
        ("Traceback (most recent call last):\n  File x\nImportError: no y\n", "rating-0 ended: ImportError: no y"),
        (
            '{"event": "start"}\n{"event": "failed", "error": "no bus", "level": "error"}',
            "rating-0 ended: failed: no bus",
        ),
        ("[1, 2]", "rating-0 ended: [1, 2]"),
    ],
)
def test_a_process_that_ended_is_told_by_the_last_it_said(log: str, line: str) -> None:
    assert of_child(ChildFailed("rating-0", "ended", log)) == line


def test_a_stranger_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reply = pb.ExplainReply(
        decisions=[
            pb.Decision(
                service=STRANGE,
                outcome=STRANGE,
                account=STRANGE,
                trace_id=STRANGE,
                rules=[pb.RuleVerdict(rule=STRANGE, counter=STRANGE, window=STRANGE, text=STRANGE, mode=STRANGE)],
                refused=pb.Refused(reason=STRANGE, text=STRANGE),
            )
        ],
        call=pb.Call(state=STRANGE, reason=STRANGE, trunk=STRANGE),
    )
    rows = output.Rows("a", right=("a",))
    rows.add(STRANGE)
    output.echo(STRANGE)
    for as_ in (output.Output.JSON, output.Output.CSV):
        output.emit(as_, {STRANGE: STRANGE, "list": [STRANGE], "within": {"a": STRANGE}}, lambda: None)
    text = (
        shown(explanation.render(STRANGE, reply))
        + shown(rows)
        + shown(output.facts({"a": STRANGE}))
        + capsys.readouterr().out
    )
    assert "\\x1b[31m" in text
    assert not [sign for sign in text if sign != "\n" and not sign.isprintable()]
