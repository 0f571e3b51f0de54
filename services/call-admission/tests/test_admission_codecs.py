"""The model as bytes and protobuf messages, and back; fields that come from outside at their bounds."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest
from msgspec import msgpack

from callwarden.api.admission.v1 import admission_pb2
from callwarden.api.rating.v1 import rating_pb2
from callwarden.call_admission.model.calls import Decision, Hold, LimitScope, Route, RouteCost
from callwarden.call_admission.model.codecs import fields
from callwarden.call_admission.model.codecs.hold_bytes import costs_bytes, costs_from, scopes_bytes, scopes_from
from callwarden.call_admission.model.codecs.messages import (
    PRICES_CACHED,
    LruCache,
    decision_bytes,
    price_bytes,
    price_from,
    refuse_from,
    refused_message,
    route_message,
)
from callwarden.call_admission.model.codecs.usage_bytes import grants_bytes, grants_from, usage_bytes, usage_from
from callwarden.call_admission.model.days import zone
from callwarden.call_admission.model.habits import AccountBaseline, Country, VelocityCounts
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage
from callwarden.call_admission.model.windows import WindowBucket
from callwarden.kernel.errors import Invalid
from callwarden.kernel.hours import parse_plan
from callwarden.kernel.tariff import Price, RateGroup, Rounding, RoundingMethod, Weekly, WeeklyPeriod, Window, cost
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult

NOW_S = 1_767_614_400
PRICE = Price(
    "KWD",
    (
        Window(0, (RateGroup(0, 60_000, 60, 6), RateGroup(60, 30_000, 30, 1)), 500, "off-peak"),
        Window(1_767_614_400, (RateGroup(0, 90_000, 60, 1),), 0, "peak"),
    ),
    free_s=10,
    minimum_micros=700,
    rounding=Rounding(RoundingMethod.MIDDLE, 3),
)
REFUSE = Refuse(Reason.RATE, "calls_per_second", "calls", 5, 6, "1 s", "The account may begin 6 calls.", 1)


# ------------------------------------------------------------------ prices and routes


@pytest.mark.parametrize("method", list(RoundingMethod))
def test_a_price_is_the_same_after_it_was_kept(method: RoundingMethod) -> None:
    price = replace(PRICE, rounding=Rounding(method, 2))
    assert price_from(price_bytes(price)) == price


def weekly() -> Weekly:
    plan = parse_plan(["Mon-Fri 08:00-20:00"], zone("Europe/Berlin"))
    peak, off_peak = (
        Window(0, (RateGroup(0, 9, 60, 1),), 0, "peak"),
        Window(0, (RateGroup(0, 1, 60, 1),), 7, "off-peak"),
    )
    return Weekly(1_767_700_800, "Europe/Berlin", (WeeklyPeriod("Mon-Fri 08:00-20:00", peak),), off_peak, plan)


@pytest.mark.cases
def test_a_kept_price_goes_on_by_the_hours_of_the_week() -> None:
    price = replace(PRICE, weekly=weekly())
    kept = price_from(price_bytes(price))
    assert kept == price
    year_s = 366 * 86_400
    assert cost(kept, NOW_S, year_s) == cost(price, NOW_S, year_s) != cost(PRICE, NOW_S, year_s)
    assert len(price_bytes(price)) < len(price_bytes(PRICE)) + 128


def test_a_price_whose_hours_nobody_can_read_is_none() -> None:
    message = rating_pb2.Price.FromString(price_bytes(replace(PRICE, weekly=weekly())))
    for field, value in (("time_zone", "Europe/Atlantis"), ("peak_hours", ""), ("peak_hours", "at noon")):
        wrong = rating_pb2.Price.FromString(message.SerializeToString())
        setattr(wrong.weekly, field, value)
        with pytest.raises(ValueError, match=r"\w"):
            price_from(wrong.SerializeToString())


SATURDAY = "Sat 09:00-13:00"


def test_a_price_of_several_periods_is_kept_and_refused_by_a_reader_that_does_not_know_them() -> None:
    of = weekly()
    saturday = WeeklyPeriod(SATURDAY, Window(0, (RateGroup(0, 4, 60, 1), RateGroup(60, 2, 60, 1)), 3, "saturday"))
    periods = (saturday, *of.periods)
    plan = parse_plan([period.hours for period in periods], zone("Europe/Berlin"))
    price = replace(PRICE, weekly=replace(of, periods=periods, plan=plan))
    kept = price_from(price_bytes(price))
    assert kept == price
    year_s = 366 * 86_400
    assert cost(kept, NOW_S, year_s) == cost(price, NOW_S, year_s) != cost(replace(PRICE, weekly=of), NOW_S, year_s)
    message = rating_pb2.Price.FromString(price_bytes(price))
    message.weekly.ClearField("periods")  # as before this field existed
    assert message.weekly.peak_hours == ""  # which that reader refuses, too
    with pytest.raises(ValueError, match=r"\w"):
        price_from(message.SerializeToString())


def test_a_price_of_one_period_has_the_bytes_that_it_always_had() -> None:
    # Of a hold that was written before a price could have several.
    written = bytes.fromhex(
        "0a034b5744122310f4031a0810e0d403183c20061a0a083c10b0ea01181e200122086f66662d7065616b121608c0cfeeca061a081090bf05183c"
        "200122047065616b180a20bc052a0408011003325008c0f2f3ca0612134d6f6e2d4672692030383a30302d32303a30301a0d4575726f70652f42"
        "65726c696e220e1a061009183c200122047065616b2a1410071a061001183c200122086f66662d7065616b"
    )
    price = replace(PRICE, weekly=weekly())
    assert price_bytes(price) == written
    assert price_from(written) == price


def test_a_price_is_kept_as_rating_would_say_it() -> None:
    message = rating_pb2.Price.FromString(price_bytes(PRICE))
    assert (message.currency, message.free_s, message.minimum_micros) == ("KWD", 10, 700)
    assert (message.rounding.method, message.rounding.decimals) == (rating_pb2.Rounding.MIDDLE, 3)
    assert [(window.from_s, window.connect_fee_micros, window.name) for window in message.windows] == [
        (0, 500, "off-peak"), (1_767_614_400, 0, "peak")
    ]  # fmt: skip
    assert [
        (group.start_s, group.rate_micros, group.unit_s, group.increment_s) for group in message.windows[0].groups
    ] == [(0, 60_000, 60, 6), (60, 30_000, 30, 1)]


@pytest.mark.parametrize(("maximum", "cuts"), [(None, False), (700, False), (5_000, True)])
def test_a_maximum_is_kept(maximum: int | None, cuts: bool) -> None:
    price = replace(PRICE, maximum_micros=maximum, cuts_at_maximum=cuts)
    assert price_from(price_bytes(price)) == price


def test_a_maximum_of_nothing_is_kept_apart_from_none() -> None:
    price = replace(PRICE, minimum_micros=0, maximum_micros=0)
    assert price_from(price_bytes(price)) == price


def test_equal_prices_have_equal_bytes_whichever_object_was_first() -> None:
    one, other = replace(PRICE, free_s=1), replace(PRICE, free_s=1)
    assert price_bytes(one) == price_bytes(other) == price_bytes(one)
    assert price_bytes(replace(PRICE, free_s=2)) != price_bytes(one)


def test_a_route_says_where_it_leads_and_what_it_costs() -> None:
    message = route_message(Route("t", "192.0.2.1:5060", "00", 2, "k", PRICE))
    assert (message.trunk, message.address, message.add_prefix, message.strip_digits, message.carrier_account_id) == (
        "t", "192.0.2.1:5060", "00", 2, "k"
    )  # fmt: skip
    assert message.cost.SerializeToString() == price_bytes(PRICE)
    assert not route_message(Route("t", "192.0.2.1:5060")).HasField("cost")


def test_what_was_used_longest_ago_is_forgotten() -> None:
    cache: LruCache[int, str] = LruCache(2)
    for number in (1, 2):
        cache.put(number, str(number))
    assert cache.get(1) == "1"
    cache.put(3, "3")
    assert (len(cache), [cache.get(number) for number in (1, 2, 3)]) == (2, ["1", None, "3"])
    cache.clear()
    assert (len(cache), cache.get(1)) == (0, None)
    assert PRICES_CACHED > 2


# ------------------------------------------------------------------ refusals and decisions


def test_a_refusal_is_the_same_after_it_was_kept() -> None:
    message = refused_message(REFUSE, 402)
    assert message.sip_status == 402
    assert refuse_from(message) == REFUSE
    message.reason = "unheard-of"
    with pytest.raises(ValueError, match="unheard-of"):
        refuse_from(message)


def decided(*rules: RuleResult, refused: Refuse | None = None) -> admission_pb2.Decision:
    of = Decision(5.5, "cut", refused, rules, 7, "alice", "192.0.2.7", "t1", 402, "credit")
    return admission_pb2.Decision.FromString(decision_bytes(of))


def test_a_decision_says_when_what_and_why() -> None:
    message = decided(refused=REFUSE)
    assert (message.at_s, message.service, message.outcome, message.policy_revision, message.trace_id) == (
        5.5, "call-admission", "cut", 7, "t1"
    )  # fmt: skip
    assert (message.account, message.source_address, message.cut_by) == ("alice", "192.0.2.7", "credit")
    assert message.refused == refused_message(REFUSE, 402)
    assert not decided().HasField("refused")


VERDICTS = {
    "pass": (RuleResult("a", Mode.ENFORCE), ("a", "enforce", "pass", "", 0, 0, "", "")),
    "with numbers": (
        RuleResult("b", Mode.ENFORCE, None, "calls", 3, 5, "now"), ("b", "enforce", "pass", "calls", 3, 5, "now", "")
    ),
    "reported, with numbers": (
        RuleResult("b", Mode.REPORT, None, "calls", 3, 5, "now"), ("b", "report", "pass", "calls", 3, 5, "now", "")
    ),
    "no limit": (RuleResult("b", Mode.ENFORCE, None, "calls", 3), ("b", "enforce", "pass", "calls", 3, 0, "", "")),
    "skipped": (RuleResult("c", Mode.REPORT, skipped="no limit"), ("c", "report", "skip", "", 0, 0, "", "no limit")),
    "off": (
        RuleResult("d", Mode.OFF, skipped="off by policy"), ("d", "off", "skip", "", 0, 0, "", "off by policy")
    ),
    "refused": (
        RuleResult("e", Mode.ENFORCE, REFUSE, "calls", 5, 6, "1 s"),
        ("e", "enforce", "refuse", "calls", 5, 6, "1 s", REFUSE.text),
    ),
    "refused without a number": (
        RuleResult("f", Mode.REPORT, REFUSE), ("f", "report", "refuse", "", 0, 0, "", REFUSE.text)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", VERDICTS)
def test_each_rules_part_is_told(kind: str) -> None:
    result, wanted = VERDICTS[kind]
    for _ in range(2):  # the second time from what is remembered
        (told,) = decided(result).rules
        assert (
            told.rule, told.mode, told.verdict, told.counter, told.value, told.limit, told.window, told.text
        ) == wanted  # fmt: skip


def test_rules_are_told_in_their_order_however_long_they_are() -> None:
    texts = ["x" * length for length in (*range(60, 140), 300, 20_000)]
    results = [RuleResult(text, Mode.ENFORCE, skipped=text) for text in texts]
    assert [told.text for told in decided(*results).rules] == texts
    results = [RuleResult("r", Mode.ENFORCE, skipped=text) for text in texts]  # each length in bytes, not every second
    assert [told.text for told in decided(*results).rules] == texts


# ------------------------------------------------------------------ what a hold has besides its columns

SCOPES = (LimitScope("reseller", UUID(int=5), 3), LimitScope("system", UUID(int=6), 0))


def hold_of(scopes: tuple[LimitScope, ...] = (), marks: tuple[str, ...] = (), hits: tuple[str, ...] = ()) -> Hold:
    return Hold(
        UUID(int=1), UUID(int=2), 0.0, None, 1.0, 60, 60, False, 0, date(2026, 1, 5), PRICE, "", marks, scopes, (), hits
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scopes", "marks", "hits"),
    [(SCOPES, ("a", "b"), ("credit",)), (SCOPES, (), ()), ((), ("a",), ()), ((), (), ("credit",)), ((), (), ())],
)
def test_where_a_call_is_counted_is_the_same_after_it_was_kept(
    scopes: tuple[LimitScope, ...], marks: tuple[str, ...], hits: tuple[str, ...]
) -> None:
    data = scopes_bytes(hold_of(scopes, marks, hits))
    assert scopes_from(data) == (scopes, marks, hits)
    assert bool(data) is bool(scopes or marks or hits)


COSTS = (RouteCost("a", UUID(int=5), PRICE), RouteCost("b", None, PRICE), RouteCost("c", UUID(int=6), None))


def test_what_routes_cost_is_the_same_after_it_was_kept() -> None:
    assert costs_from(costs_bytes(COSTS)) == COSTS
    same = tuple(RouteCost(*cost) for cost in COSTS)
    assert costs_bytes(same) == costs_bytes(COSTS) == costs_bytes(same)
    assert costs_bytes(COSTS[:1]) != costs_bytes(COSTS)
    assert (costs_bytes(()), costs_from(b"")) == (b"", ())


def test_counts_and_grants_are_the_same_after_they_were_kept() -> None:
    usage = Usage(held_micros=5, notices={"lines": 80})
    assert usage_from(usage_bytes(usage)) == usage
    assert usage_from(b"") == Usage()
    grants = {"calls": (9, 4, 3)}
    assert grants_from(grants_bytes(grants)) == grants
    assert (grants_bytes({}), grants_from(b"")) == (b"", {})


def test_what_was_written_before_there_was_a_field_has_nothing_in_it() -> None:
    usage = usage_from(msgpack.encode({}))
    assert (usage.held_micros, usage.spent_micros, usage.peak_day_micros, usage.month_grown_micros) == (0,) * 4
    assert (usage.month_grown, usage.notice_day, usage.month_base_micros) == (0, 0, None)
    assert (usage.days, usage.months, usage.groups, usage.countries, usage.notices) == ([], [], {}, {}, {})
    parts = usage_from(
        msgpack.encode(
            {"leases": [], "second": [10, [[5]]], "groups": {"a": []}, "countries": {"FR": [3, 4]}, "days": [[5]],
             "baseline": [3, 4]}
        )
    )  # fmt: skip
    assert parts.leases is not None
    assert (parts.leases.steps, parts.leases.swept) == ([], -1)
    assert parts.second is not None
    assert (parts.second.dropped, parts.second.buckets) == (-1, [WindowBucket(5, 0, 0, 0)])
    assert parts.groups["a"] == VelocityCounts(None, None, None, None, "", 0, 0)
    assert parts.countries["FR"] == Country(3, 4, 0)
    assert parts.days == [CalendarSpan(5, 0, 0, 0, 0, 0, 0)]
    assert parts.baseline == AccountBaseline(3, 4, [0] * 24, 0, 0)


# ------------------------------------------------------------------ fields from outside


@pytest.mark.parametrize(
    ("text", "local"), [("49", False), ("4" * 15, False), ("bob", True), ("b" * 256, True), ("", True)]
)
def test_what_may_be_called(text: str, local: bool) -> None:
    assert fields.destination_of(text, local=local) == text


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a digit": (lambda: fields.destination_of("4", local=False), "destination"),
    "16 digits": (lambda: fields.destination_of("4" * 16, local=False), "destination"),
    "a plus": (lambda: fields.destination_of("+4930", local=False), "destination"),
    "other digits": (lambda: fields.destination_of("٤٩٣٠", local=False), "destination"),
    "a long name": (lambda: fields.destination_of("b" * 257, local=True), "destination"),
    "no id": (lambda: fields.uuid_of("", "hold_id"), "hold_id"),
    "an id without hyphens": (lambda: fields.uuid_of(UUID(int=5).hex, "hold_id"), "hold_id"),
    "an id in braces": (lambda: fields.uuid_of(f"{{{UUID(int=5)}}}"[:36], "hold_id"), "hold_id"),
    "letters in an id": (lambda: fields.uuid_of(f"x{str(UUID(int=5))[1:]}", "hold_id"), "hold_id"),
    "a hyphen amiss": (lambda: fields.uuid_of("000000000-000-0000-0000-000000000005", "hold_id"), "hold_id"),
    "a long text": (lambda: fields.text_of("x" * 6, "edge", 5), "edge"),
    "a NUL": (lambda: fields.text_of("a\0", "edge", 5), "edge"),
    "before 1970": (lambda: fields.seconds_of(-0.1, "at_s"), "at_s"),
    "after 2100": (lambda: fields.seconds_of(4_102_444_800.1, "at_s"), "at_s"),
    "not a number": (lambda: fields.seconds_of(float("nan"), "at_s"), "at_s"),
    "for ever": (lambda: fields.seconds_of(float("inf"), "at_s"), "at_s"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_field_is_named(what: str) -> None:
    read, field = WRONG[what]
    with pytest.raises(Invalid) as raised:
        read()
    assert raised.value.field == field


def test_fields_at_their_bounds_are_taken() -> None:
    assert fields.uuid_of(str(UUID(int=5)), "hold_id") == UUID(int=5)
    assert fields.text_of("x" * 5, "edge", 5) == "x" * 5
    assert [fields.seconds_of(at_s, "at_s") for at_s in (0.0, 5.5, 4_102_444_800.0)] == [0.0, 5.5, 4_102_444_800.0]
