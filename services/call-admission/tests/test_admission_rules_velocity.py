"""How quickly an account calls groups of destinations, what is new to it, and what is out of line with its history."""

from typing import Any

import pytest
from admission_line import (
    NOW_S,
    Line,
    account,
    admission,
    at,
    counted,
    granted,
    policy,
    postpaid,
    priced,
    quote,
    refusal,
    refused,
    request,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import Admit, decide
from callwarden.call_admission.admission.core.rules import RULES
from callwarden.call_admission.admission.core.rules.velocity import marks
from callwarden.call_admission.model.habits import WEIGHT, AccountBaseline, Country
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.verdict import Mode, Reason

CUBA, PARIS, BERLIN = "5371234567", "33142345678", "493012345678"
DAY_S = 86_400


def with_rule(**rule: Any) -> Line:
    return Line(postpaid(max_lines=100), policy(fraud={"velocity": [{"name": "irsf", "period": "5m"} | rule]}))


# ------------------------------------------------------------------ velocity


@pytest.mark.parametrize(
    ("limit", "counter", "window"),
    [
        ({"perSecond": 2}, "per_second", "irsf 1 s"),
        ({"perMinute": 2}, "per_minute", "irsf 60 s"),
        ({"total": 2}, "total", "irsf 300 s"),
        ({"atOnce": 2}, "at_once", "irsf now"),
        ({"inSequence": 2}, "in_sequence", "irsf 300 s"),
    ],
)
def test_the_call_above_a_critical_level_is_refused(limit: dict[str, int], counter: str, window: str) -> None:
    line = with_rule(prefixes=["53"], critical=limit)
    granted(line.call(CUBA))
    granted(line.call(CUBA))
    granted(line.call(BERLIN)) if counter != "in_sequence" else None
    refuse = refused(line.call(CUBA))
    assert (refuse.reason, refuse.counter, refuse.value, refuse.limit, refuse.window) == (
        Reason.VELOCITY, counter, 2, 2, window,
    )  # fmt: skip
    assert refuse.text.startswith("Velocity rule irsf allows 2 ")
    granted(line.call(BERLIN))  # another group


@pytest.mark.parametrize(
    ("limit", "wait_s"), [({"perSecond": 1}, 1.02), ({"perMinute": 1}, 61.0), ({"total": 1}, 304.0)]
)
def test_a_group_may_be_called_again_when_its_window_has_passed(limit: dict[str, int], wait_s: float) -> None:
    line = with_rule(critical=limit)
    granted(line.call(CUBA))
    line.unix_s += wait_s * 0.9
    refused(line.call(CUBA))
    line.unix_s += wait_s * 0.1
    granted(line.call(CUBA))


def test_calls_at_once_are_those_that_have_not_ended() -> None:
    line = with_rule(critical={"atOnce": 1})
    hold = granted(line.call(CUBA))
    refused(line.call(CUBA))
    line.end(hold, 1)
    granted(line.call(CUBA))


def test_another_destination_between_breaks_a_sequence() -> None:
    line = with_rule(critical={"inSequence": 2})
    for number in (CUBA, CUBA, PARIS, CUBA, CUBA):
        granted(line.call(number))
    assert refused(line.call(CUBA)).counter == "in_sequence"
    granted(line.call(PARIS))


def test_the_longest_talk_time_of_a_group_bounds_its_calls_only() -> None:
    line = with_rule(prefixes=["53"], critical={"duration": "90s"})
    hold = granted(line.call(CUBA))
    assert hold.max_duration_s == 90
    hold = granted(line.extend(hold))
    assert (hold.granted_s, hold.final) == (90, True)
    assert granted(line.call(BERLIN)).max_duration_s == 7_200


def test_spend_of_a_group_within_its_period_cuts_running_calls() -> None:
    line = with_rule(prefixes=["53"], critical={"spend": "0.09"})
    hold = granted(line.call(CUBA))
    assert (granted(line.extend(hold)).granted_s, line.holds[hold.id].final) == (90, True)
    refuse = refused(line.call(CUBA))
    assert (refuse.reason, refuse.counter, refuse.value, refuse.limit) == (Reason.VELOCITY, "spend", 90_000, 90_000)
    granted(line.call(BERLIN))
    line.end(line.holds[hold.id], 90)
    line.unix_s += 304
    granted(line.call(CUBA))


@pytest.mark.parametrize(
    ("warning", "counter"),
    [
        ({"perMinute": 1}, "per_minute"),
        ({"atOnce": 1}, "at_once"),
        ({"spend": "0.06"}, "spend"),
        ({"total": 1}, "total"),
    ],
)
def test_above_a_warning_level_calls_go_on_and_that_is_told(warning: dict[str, object], counter: str) -> None:
    line = with_rule(warning=warning)
    assert line.ask(CUBA).warnings == ()
    granted(line.call(CUBA))
    decided = line.ask(CUBA)
    assert isinstance(decided.verdict, Admit)
    (told,) = decided.warnings
    assert (told.reason, told.rule, told.counter) == (Reason.VELOCITY, "velocity", counter)
    assert "irsf" in told.text


def test_a_rule_holds_in_its_hours_in_the_accounts_zone() -> None:
    line = with_rule(hours="Mon-Fri 22:00-24:00", critical={"perMinute": 1})
    line.unix_s = at("2026-01-05 21:59:50", "Europe/Berlin")
    granted(line.call(CUBA))
    granted(line.call(CUBA))
    line.unix_s = at("2026-01-05 22:00", "Europe/Berlin")
    granted(line.call(CUBA))  # what came before wasn't counted
    refused(line.call(CUBA))


def test_a_call_is_marked_with_the_rules_that_cover_it() -> None:
    of = policy(fraud={"velocity": [
        {"name": "cuba", "prefixes": ["53"], "critical": {"total": 9}},
        {"name": "all", "critical": {"total": 9}},
        {"name": "nights", "hours": "Mon-Sun 22:00-24:00", "critical": {"total": 9}},
    ]})  # fmt: skip
    assert marks(request(CUBA), of, account(), NOW_S) == ("cuba", "all")
    assert marks(request(BERLIN), of, account(), NOW_S) == ("all",)
    assert marks(request("bob", local=True), of, account(), NOW_S) == ()


def test_what_is_used_of_each_level_is_shown() -> None:
    line = with_rule(critical={"perMinute": 5, "atOnce": 3, "spend": "1", "duration": "60s"}, warning={"total": 1})
    granted(line.call(CUBA))
    uses = [use for rule in RULES if rule.name == "velocity" for use in rule.uses(line.snapshot(), line.policy)]
    assert [(use.counter, use.used, use.limit) for use in uses] == [
        ("per_minute", 1, 5), ("at_once", 1, 3), ("spend", 60_000, 1_000_000), ("duration", 0, 60),
    ]  # fmt: skip


# ------------------------------------------------------------------ new destinations


def new_countries(most: int, remember: str = "90d", **of: object) -> Line:
    spec = {"enabled": True, "maxPerDay": most, "remember": remember}
    return Line(postpaid(max_lines=100, **of), policy(fraud={"newDestination": spec}))


def test_so_many_countries_may_be_new_in_a_day() -> None:
    line = new_countries(2)
    granted(line.call(PARIS))
    granted(line.call(BERLIN))
    refuse = refused(line.call(CUBA))
    assert (refuse.reason, refuse.value, refuse.limit) == (Reason.NEW_DESTINATION, 2, 2)
    assert refuse.text == "CU is new to the account, which may call 2 new countries in a day."
    granted(line.call(PARIS))  # known now
    line.unix_s += DAY_S
    granted(line.call(CUBA))


def test_a_country_not_called_for_long_is_new_again() -> None:
    line = new_countries(1, "10d")
    granted(line.call(PARIS))
    line.unix_s += 10 * DAY_S
    granted(line.call(CUBA))  # new; uses the day's one
    granted(line.call(PARIS))  # on its last day
    line.unix_s += 11 * DAY_S
    granted(line.call(BERLIN))
    assert refused(line.call(PARIS)).reason is Reason.NEW_DESTINATION


def test_the_accounts_own_country_is_never_new() -> None:
    line = new_countries(0, country="DE")
    granted(line.call(BERLIN))
    refused(line.call(PARIS))
    assert isinstance(line.ask("bob", local=True).verdict, Admit)


# ------------------------------------------------------------------ what is usual

MODES = {"fraud": {"baseline": {"enabled": True, "learn": "7d", "spendFactor": 5}}}


def history(since_days: int = 30, hours: list[int] | None = None, spent_today: int = 0, usual: int = 0) -> Usage:
    day = snapshot().day.toordinal()
    return Usage(
        days=[CalendarSpan(day, spent_today)],
        countries={"DE": Country(day - since_days, day)},
        baseline=AccountBaseline(day - since_days, day, hours or [WEIGHT] * 24, usual * 10 * WEIGHT, 10 * WEIGHT),
    )


def flagged(usage: Usage, number: str = BERLIN) -> str:
    """The counter that is out of line, or ""."""
    decided = decide(snapshot(None, counted(usage=usage)), request(number), policy(**MODES))
    assert isinstance(decided.verdict, Admit)  # reported by default
    if not decided.warnings:
        return ""
    (told,) = decided.warnings
    assert (told.rule, told.reason) == ("baseline", Reason.BASELINE)
    assert decided.reported == ["baseline"]
    return told.counter


@pytest.mark.parametrize(("since_days", "counter"), [(6, ""), (7, "country")])
def test_nothing_is_out_of_line_before_enough_is_learnt(since_days: int, counter: str) -> None:
    assert flagged(history(since_days), CUBA) == counter


def test_a_country_that_was_not_called_is_out_of_line() -> None:
    assert flagged(history(), BERLIN) == ""
    assert flagged(history(), CUBA) == "country"


@pytest.mark.parametrize(("here", "counter"), [(9, "hour"), (10, ""), (11, "")])
def test_an_hour_with_less_than_a_hundredth_of_the_calls_is_out_of_line(here: int, counter: str) -> None:
    hours = [0] * 24
    hours[3], hours[13] = 1_000 - here, here  # the call comes at 13:00 in Berlin
    assert flagged(history(hours=hours)) == counter


def test_the_hours_beside_are_usual_too() -> None:
    for hour in (12, 13, 14):
        hours = [0] * 24
        hours[hour] = WEIGHT
        assert flagged(history(hours=hours)) == ""


@pytest.mark.parametrize(("spent", "counter"), [(5_000, ""), (5_001, "spent")])
def test_a_spend_above_the_multiple_of_the_usual_is_out_of_line(spent: int, counter: str) -> None:
    assert flagged(history(spent_today=spent, usual=1_000)) == counter


def test_an_enforced_baseline_refuses() -> None:
    enforced = policy(**MODES, modes={"baseline": "Enforce"})
    decided = decide(snapshot(None, counted(usage=history())), request(CUBA), enforced)
    assert (refusal(decided).reason, refusal(decided).window) == (Reason.BASELINE, "CU")
    assert decided.warnings == ()


def test_an_account_is_learnt_from_its_own_calls() -> None:
    line = Line(postpaid(max_lines=100), policy(**MODES))
    for _ in range(8):
        line.spend(1_000_000)
        line.unix_s += DAY_S
    assert line.ask().warnings == ()
    (told,) = line.ask(CUBA).warnings
    assert told.counter == "country"
    assert line.spend(6_000_000) == 6_000_000
    (told,) = line.ask().warnings
    assert told.counter == "spent"
    assert 4_990_000 < told.limit < 5_010_000  # weights fade in whole thousandths of a call
    (found,) = [result for result in line.ask().rules if result.rule == "baseline"]
    assert found.mode is Mode.REPORT
    assert admission(line.ask(quoted=quote(priced(1)))).granted_s
