"""How many calls at the same time, how quickly, how long: of accounts, addresses, realms, resellers and the system."""

from dataclasses import replace

import pytest
from admission_line import (
    CARRIER_ID,
    NOW_S,
    ROUTE,
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
    reseller,
    result,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import decide
from callwarden.call_admission.admission.core.rules import RULES
from callwarden.call_admission.admission.core.rules.rule import ACCOUNT as OWN
from callwarden.call_admission.admission.core.snapshot import CounterView, SourceTrunk
from callwarden.call_admission.model.scopes import CARRIER
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Reason

PEAK = {"max": 4, "maxOffPeak": 2, "peakHours": "Mon-Fri 08:00-20:00", "timeZone": "Europe/Berlin"}


def uses(line: Line, name: str) -> tuple[int, int | None]:
    (found,) = [use for rule in RULES if rule.name == name for use in rule.uses(line.snapshot(), line.policy)]
    return found.used, found.limit


# ------------------------------------------------------------------ lines


@pytest.mark.setting("maxlinesoffpeak")
@pytest.mark.parametrize(
    ("moment", "limit"),
    [
        ("2026-01-05 07:59:59", 2),  # Monday
        ("2026-01-05 08:00", 4),
        ("2026-01-05 19:59:59", 4),
        ("2026-01-05 20:00", 2),
        ("2026-01-10 12:00", 2),  # Saturday
        ("2026-03-27 08:00", 4),  # the last peak day before clocks go forward, and the first after
        ("2026-03-30 07:59:59", 2),
        ("2026-03-30 08:00", 4),
        ("2026-10-26 07:59:59", 2),
        ("2026-10-26 08:00", 4),
    ],
)
def test_lines_change_at_the_second_at_which_peak_hours_do(moment: str, limit: int) -> None:
    of = snapshot(unix_s=at(moment, "Europe/Berlin"), lines=limit)
    assert refusal(decide(of, request(), policy(lines=PEAK))).limit == limit
    admission(decide(replace(of, lines=limit - 1), request(), policy(lines=PEAK)))


@pytest.mark.setting("maxlinesoffpeak")
@pytest.mark.parametrize(
    ("own", "own_off_peak", "limit"), [(None, None, 2), (3, None, 3), (3, 1, 1), (None, 7, 7), (3, 0, 0)]
)
def test_an_accounts_own_lines_go_before_policys_off_peak_too(
    own: int | None, own_off_peak: int | None, limit: int
) -> None:
    of = account(max_lines=own, max_lines_off_peak=own_off_peak)
    night = snapshot(of, unix_s=at("2026-01-05 23:00", "Europe/Berlin"), lines=limit)
    assert refusal(decide(night, request(), policy(lines=PEAK))).limit == limit


@pytest.mark.setting("maxlinesoffpeak")
def test_peak_hours_without_a_zone_are_those_of_the_account() -> None:
    lines = policy(lines=PEAK | {"timeZone": ""})
    morning_s = at("2026-01-05 08:00", "Europe/Berlin")  # two at night in New York
    assert refusal(decide(snapshot(account(), unix_s=morning_s, lines=9), request(), lines)).limit == 4
    new_york = account(time_zone="America/New_York")
    assert refusal(decide(snapshot(new_york, unix_s=morning_s, lines=9), request(), lines)).limit == 2


# ------------------------------------------------------------------ a second


@pytest.mark.parametrize("own", [None, 2])
def test_calls_of_a_second_slide(own: int | None) -> None:
    line = Line(postpaid(max_per_second=own), policy(lines={"max": 99, "maxPerSecond": 5 if own else 2}))
    granted(line.call())
    line.unix_s += 0.5
    line.end(granted(line.call()), 0)
    refuse = refused(line.call())  # one that is over counts, too
    assert (refuse.reason, refuse.value, refuse.limit, refuse.retry_after_s) == (Reason.RATE, 2, 2, 1)
    line.unix_s += 0.52  # the first is more than a second ago
    granted(line.call())
    refused(line.call())


def test_calls_of_a_second_that_a_clock_has_stepped_back_from_hold_nobody_up_for_long() -> None:
    line = Line(postpaid(), policy(lines={"max": 99, "maxPerSecond": 1}))
    granted(line.call())
    line.unix_s -= 3_600
    granted(line.call())


# ------------------------------------------------------------------ ceilings


@pytest.mark.setting("licensecfg")
@pytest.mark.parametrize(
    ("spec", "rule"), [({"maxCalls": 2}, "system_calls"), ({"perRealm": {"maxCalls": 2}}, "realm_calls")]
)
def test_calls_at_once_of_the_system_and_a_realm_stop_at_their_ceiling(spec: dict[str, object], rule: str) -> None:
    line = Line(postpaid(), policy(system=spec))
    first = granted(line.call())
    granted(line.call())
    refuse = refused(line.call())
    assert (refuse.reason, refuse.rule, refuse.value, refuse.limit) == (Reason.CEILING, rule, 2, 2)
    assert uses(line, rule) == (2, 2)
    line.end(first, 1)
    granted(line.call())


@pytest.mark.setting("licensecfg")
@pytest.mark.parametrize(
    ("spec", "rule"),
    [({"maxCallsPerSecond": 2}, "system_rate"), ({"perRealm": {"maxCallsPerSecond": 2}}, "realm_rate")],
)
def test_calls_of_a_second_of_the_system_and_a_realm_stop_at_their_ceiling(spec: dict[str, object], rule: str) -> None:
    line = Line(postpaid(), policy(system=spec))
    granted(line.call())
    granted(line.call())
    refuse = refused(line.call())
    assert (refuse.reason, refuse.rule, refuse.retry_after_s) == (Reason.RATE, rule, 1)
    line.unix_s += 1.02
    granted(line.call())


def test_a_resellers_lines_hold_over_all_its_accounts() -> None:
    line = Line(postpaid(), policy(), reseller=reseller(max_lines=2, max_lines_off_peak=1))
    granted(line.call())
    granted(line.call())
    refuse = refused(line.call())
    assert (refuse.reason, refuse.rule, refuse.limit) == (Reason.RESELLER_QUOTA, "reseller_lines", 2)
    assert uses(line, "reseller_lines") == (2, 2)


def test_a_resellers_lines_have_an_off_peak_number_too() -> None:
    line = Line(
        postpaid(), policy(lines={"peakHours": "Mon 08:00-09:00"}), reseller=reseller(max_lines=2, max_lines_off_peak=1)
    )
    granted(line.call())
    assert refused(line.call()).limit == 1


def test_the_accounts_of_a_disabled_reseller_do_not_call() -> None:
    line = Line(postpaid(parent=reseller().id), policy(), reseller=reseller(active=False))
    assert refused(line.call()).reason is Reason.ACCOUNT_DISABLED
    line.reseller = reseller()
    hold = granted(line.call())
    line.reseller = reseller(active=False)
    assert refused(line.extend(hold)).reason is Reason.ACCOUNT_DISABLED


# ------------------------------------------------------------------ addresses


@pytest.mark.setting("maxcallperip")
@pytest.mark.setting("maxcallperperiod")
def test_calls_of_an_address_slide_over_the_period() -> None:
    line = Line(postpaid(), policy(callsPerAddress={"maxCalls": 2, "period": 0.5}))
    line.end(granted(line.call()), 0)
    line.unix_s += 3_600
    line.end(granted(line.call()), 0)
    refuse = refused(line.call())
    assert (refuse.reason, refuse.value, refuse.limit, refuse.window) == (Reason.ADDRESS_QUOTA, 2, 2, "12 h")
    line.unix_s += 11 * 3_600 - 1
    refused(line.call())
    line.unix_s += 500  # a bucket's width longer at most
    granted(line.call())


@pytest.mark.setting("maxcallperip")
def test_hardened_allows_500_calls_of_an_address_in_a_day() -> None:
    line = Line(
        postpaid(max_lines=1_000), policy(profile="Hardened", billing={"blockNotBilled": 0, "blockNotProfitable": 0})
    )
    for _ in range(500):
        line.end(granted(line.call()), 0)
    assert (refused(line.call()).limit, refused(line.call()).window) == (500, "24 h")


@pytest.mark.setting("maxdurationperip")
def test_talk_of_an_address_counts_running_calls_too() -> None:
    line = Line(postpaid(), policy(callsPerAddress={"maxDuration": "90s"}))
    first = granted(line.call())
    granted(line.call())  # 60 s granted: there are 30 left, and no call is cut
    refuse = refused(line.call())
    assert (refuse.reason, refuse.counter, refuse.value, refuse.limit) == (Reason.ADDRESS_QUOTA, "talk", 120, 90)
    line.end(first, 29)
    granted(line.call())  # 89 s


@pytest.mark.setting("maxcostperip")
def test_cost_of_an_address_is_bounded_to_the_micro() -> None:
    line = Line(postpaid(), policy(callsPerAddress={"maxCost": "0.09"}))
    hold = granted(line.call())
    hold = granted(line.extend(hold))
    assert (hold.granted_s, hold.final) == (90, True)
    refuse = refused(line.call())
    assert (refuse.reason, refuse.value, refuse.limit) == (Reason.ADDRESS_QUOTA, 90_000, 90_000)
    assert "0.09 EUR" in refuse.text


@pytest.mark.setting("maxcallperuserid")
@pytest.mark.parametrize(("only", "admitted"), [(None, False), ("alice", False), ("bob", True), (-1, False)])
def test_limits_of_an_address_may_hold_for_one_account_only(only: str | int | None, admitted: bool) -> None:
    line = Line(postpaid(), policy(callsPerAddress={"maxCalls": 0, "account": only}))
    assert (refusal if not admitted else admission)(line.ask())


@pytest.mark.setting("maxcallperip")
def test_minus_one_is_no_limit() -> None:
    line = Line(postpaid(), policy(callsPerAddress={"maxCalls": -1, "maxDuration": -1, "maxCost": -1}))
    granted(line.call())


# ------------------------------------------------------------------ talk time


@pytest.mark.setting("maxslperday")
@pytest.mark.parametrize(("talked", "admitted"), [(59, True), (60, False), (61, False)])
def test_a_days_talk_ends_at_its_limit(talked: int, admitted: bool) -> None:
    line = Line(postpaid(talk_day_s=60), policy())
    hold = granted(line.call())
    line.end(granted(line.extend(hold)), talked)
    if admitted:
        granted(line.call())
        return
    refuse = refused(line.call())
    assert (refuse.reason, refuse.value, refuse.limit) == (Reason.TALK_TIME, talked, 60)
    line.unix_s += 86_400
    granted(line.call())


@pytest.mark.setting("maxslperday")
def test_a_running_call_is_not_cut_by_the_days_talk() -> None:
    line = Line(postpaid(talk_day_s=60), policy())
    hold = granted(line.call())
    for _ in range(5):
        hold = granted(line.extend(hold))
    assert (hold.granted_s, hold.final) == (360, False)


@pytest.mark.setting("maxslpermonth")
def test_a_months_talk_begins_anew_with_the_month() -> None:
    line = Line(postpaid(talk_month_s=60, talk_day_s=3_600), policy(), at("2026-01-30 12:00"))
    line.end(granted(line.call()), 60)
    line.unix_s += 86_400
    refuse = refused(line.call())
    assert (refuse.window, refuse.value) == ("month 2026-01 Europe/Berlin", 60)
    line.unix_s = at("2026-02-01 00:00", "Europe/Berlin")
    granted(line.call())


@pytest.mark.setting("calcmaxsl")
@pytest.mark.parametrize(("enforce", "admitted"), [(-1, False), (0, True), (1, False)])
def test_policy_can_switch_limits_of_talk_time_off(enforce: int, admitted: bool) -> None:
    line = Line(postpaid(talk_day_s=0), policy(duration={"enforce": enforce}))
    assert (admission if admitted else refusal)(line.ask())


@pytest.mark.setting("maxslperday")
@pytest.mark.setting("maxslpermonth")
@pytest.mark.parametrize("limit", ["talk_day_s", "talk_month_s"])
def test_a_carrier_over_its_talk_time_is_not_routed_to(limit: str) -> None:
    day = snapshot().day
    full = Usage(
        days=[CalendarSpan(day.toordinal(), talk_s=60)], months=[CalendarSpan(day.year * 12 + day.month - 1, talk_s=60)]
    )  # fmt: skip
    carrier = account(id=CARRIER_ID, name="transit", type=AccountType.CARRIER, **{limit: 60})
    over = replace(ROUTE, trunk="a", carrier_account_id=str(CARRIER_ID))
    other = replace(ROUTE, trunk="b")
    carriers = {str(CARRIER_ID): CounterView(CARRIER, CARRIER_ID, full, account=carrier)}
    decided = decide(snapshot(quote=quote(priced(60), over, other), carriers=carriers), request(), policy())
    assert decided.routes == (other,)
    alone = decide(snapshot(quote=quote(priced(60), over), carriers=carriers), request(), policy())
    assert (refusal(alone).reason, refusal(alone).value, refusal(alone).limit) == (Reason.TALK_TIME, 60, 60)
    carriers[str(CARRIER_ID)].account = replace(carrier, talk_day_s=61, talk_month_s=61)
    assert (
        len(decide(snapshot(quote=quote(priced(60), over, other), carriers=carriers), request(), policy()).routes) == 2
    )


# ------------------------------------------------------------------ the call itself


@pytest.mark.setting("absolute-timeout")
def test_no_call_is_extended_beyond_its_longest_time() -> None:
    line = Line(postpaid(), policy(session={"absoluteTimeout": "2m", "callTimeout": "1h"}))
    hold = granted(line.extend(granted(line.call())))
    assert (hold.granted_s, hold.final) == (120, True)
    assert refused(line.extend(hold)).reason is Reason.DURATION


@pytest.mark.setting("onlylocalaccess")
def test_a_trunk_for_local_calls_reaches_no_carrier() -> None:
    line = Line(postpaid(), policy(), trunk=SourceTrunk("pbx", only_local=True))
    assert refusal(line.ask()).reason is Reason.ONLY_LOCAL
    assert admission(line.ask("bob", local=True))
    line.trunk = SourceTrunk("pbx")
    assert admission(line.ask())
    assert result(line.ask(), "only_local").skipped


def test_a_limit_tells_who_has_set_it() -> None:
    own, theirs = Line(account(max_lines=3), policy()), Line(account(), policy())
    for line, source in ((own, OWN), (theirs, "policy")):
        (use,) = [use for rule in RULES if rule.name == "lines" for use in rule.uses(line.snapshot(), line.policy)]
        assert use.source == source


def test_an_account_that_counts_nothing_uses_nothing() -> None:
    used = {use.used for rule in RULES for use in rule.uses(snapshot(None, counted(), unix_s=NOW_S), policy())}
    assert used == {0}
