"""What rate-guard calculates: limits and whom they ban, duplicates, addresses as text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.errors import Invalid
from callwarden.kernel.verdict import Reason
from callwarden.limits.networks import source_of
from callwarden.policy.bundle import Document, PolicySet
from callwarden.rate_guard.core import bans
from callwarden.rate_guard.core.addresses import Networks, address_of, endpoint, host_of, parse_target
from callwarden.rate_guard.core.bans import PERMANENT, Ban
from callwarden.rate_guard.core.counters import (
    KNOWN_TTL_S,
    NAMES_MAX,
    AddressCounters,
    AddressReport,
    EndpointReport,
    ExceededLimit,
)
from callwarden.rate_guard.core.duplicates import EDGES_MAX, WINDOW, ReportWindow
from callwarden.rate_guard.core.limits import AddressLimits, compile_limits

HERE = "192.0.2.7"
NOW_S = MonoS(10_000.0)


def limits(spec: dict[str, Any] | None = None, own: tuple[str, ...] = ()) -> AddressLimits:
    return compile_limits(PolicySet.build(1, [Document("test", spec or {})]).for_realm(""), own)


def small(**fields: int) -> AddressLimits:
    """Limits that a test can reach by hand."""
    values = {"messages": 10, "wrong": 5, "address": 20, "known_address": 12, "known_endpoint": 4} | fields
    return limits(
        {
            "messages": {
                "perAddress": {"max": values["messages"], "period": "3m"},
                "wrongPerAddress": {"max": values["wrong"], "period": "1h"},
            },
            "authFailures": {
                "period": "1h",
                "perAddress": {"max": values["address"]},
                "perKnownAddress": {"max": values["known_address"]},
                "perKnownEndpoint": {"max": values["known_endpoint"]},
            },
        }
    )


def messages(count: int, wrong: int = 0, address: str = HERE) -> AddressReport:
    return AddressReport(address, count, wrong, [])


def failed(count: int = 1, port: int = 5060, user: str = "alice", address: str = HERE) -> AddressReport:
    return AddressReport(address, 0, 0, [EndpointReport(port, user, count, 0)])


def succeeded(port: int = 5060, user: str = "alice", address: str = HERE) -> AddressReport:
    return AddressReport(address, 0, 0, [EndpointReport(port, user, 0, 1)])


def targets(found: list[ExceededLimit]) -> list[str]:
    return [excess.target for excess in found]


@pytest.mark.setting("maxsubsmsgcount")
def test_one_message_more_than_allowed_within_the_period_bans_the_address() -> None:
    counters = AddressCounters(limits())
    assert counters.count(messages(38_999), NOW_S) == []
    assert counters.count(messages(1), MonoS(NOW_S + 60)) == []
    assert counters.count(messages(39_000, address="192.0.2.8"), MonoS(NOW_S + 60)) == []
    assert counters.count(messages(1), MonoS(NOW_S + 120)) == [
        ExceededLimit(HERE, Reason.RATE, "39001 messages in 3m, limit 39000")
    ]


@pytest.mark.setting("maxsubsmsgperiod")
def test_messages_older_than_the_period_do_not_count() -> None:
    counters = AddressCounters(small())
    width_s = 180 / 16
    counters.count(messages(10), NOW_S)
    assert targets(AddressCounters(small()).count(messages(11), NOW_S)) == [HERE]
    # A little more than a period later (by less than one part of the window) they are gone.
    assert counters.count(messages(10), MonoS(NOW_S + 180 + width_s)) == []
    assert targets(counters.count(messages(1), MonoS(NOW_S + 180 + width_s))) == [HERE]


@pytest.mark.setting("maxsubsmsgcount")
def test_a_burst_around_the_edge_of_a_period_does_not_pass_twice() -> None:
    counters = AddressCounters(small())
    assert counters.count(messages(10), MonoS(179.0)) == []
    assert targets(counters.count(messages(10), MonoS(181.0))) == [HERE]


@pytest.mark.setting("maxwrongmsgallowed")
def test_wrong_messages_have_a_limit_of_their_own() -> None:
    counters = AddressCounters(limits())
    assert counters.count(messages(4_000, wrong=4_000), NOW_S) == []
    assert counters.count(messages(1, wrong=1), NOW_S) == [
        ExceededLimit(HERE, Reason.MALFORMED, "4001 wrong messages in 1h, limit 4000")
    ]


@pytest.mark.setting("maxwrongmsgperiod")
def test_wrong_messages_older_than_their_period_do_not_count() -> None:
    counters = AddressCounters(small())
    counters.count(messages(0, wrong=5), NOW_S)
    assert counters.count(messages(0, wrong=5), MonoS(NOW_S + 3_600 + 225)) == []
    assert targets(counters.count(messages(0, wrong=1), MonoS(NOW_S + 3_600 + 225))) == [HERE]


@pytest.mark.setting("maxwrongauthfromip")
def test_guessing_from_an_unknown_address_bans_it_at_its_limit() -> None:
    counters = AddressCounters(limits())
    for number in range(2_500):
        assert (
            counters.count(failed(port=1_024 + number % 9, user=f"user-{number % 50}"), MonoS(NOW_S + number / 10))
            == []
        )
    assert counters.count(failed(), MonoS(NOW_S + 250)) == [
        ExceededLimit(HERE, Reason.CREDENTIALS, "2501 authentication failures in 1h, limit 2500")
    ]


@pytest.mark.setting("maxsubfailauthperiod")
def test_failures_older_than_their_period_do_not_count() -> None:
    counters = AddressCounters(small())
    counters.count(failed(20), NOW_S)
    assert counters.count(failed(20), MonoS(NOW_S + 3_600 + 225)) == []
    assert targets(counters.count(failed(), MonoS(NOW_S + 3_600 + 225))) == [HERE]


@pytest.mark.setting("maxfailedauthenabledipport")
def test_a_known_endpoint_that_keeps_failing_is_banned_and_its_address_is_not() -> None:
    counters = AddressCounters(limits())
    counters.count(succeeded(), NOW_S)
    for _ in range(50):
        assert counters.count(failed(user="bob"), NOW_S) == []
    assert counters.count(failed(user="bob"), NOW_S) == [
        ExceededLimit(f"{HERE}:5060", Reason.CREDENTIALS, "51 authentication failures in 1h, limit 50")
    ]


@pytest.mark.setting("maxfailedauthenabledip")
def test_guessing_from_port_after_port_of_a_known_address_bans_it_at_its_limit() -> None:
    counters = AddressCounters(limits())
    counters.count(succeeded(port=5060), NOW_S)
    found = list[ExceededLimit]()
    for number in range(801):
        assert found == []
        found = counters.count(failed(port=10_000 + number, user=f"user-{number}"), NOW_S)
    assert found == [ExceededLimit(HERE, Reason.CREDENTIALS, "801 authentication failures in 1h, limit 800")]


@pytest.mark.setting("maxfailedauthenabledip")
def test_an_office_behind_one_address_is_not_banned_for_one_misconfigured_phone() -> None:
    counters = AddressCounters(limits())
    for phone in range(40):
        counters.count(succeeded(port=20_000 + phone, user=f"phone-{phone}"), NOW_S)
    # It never succeeds, tries once a second for a week, and begins again each time that its ban has ended.
    banned, until_s = list[ExceededLimit](), NOW_S
    for second in range(0, 7 * 86_400, 10):
        mono_s = MonoS(NOW_S + second)
        if mono_s >= until_s and (found := counters.count(failed(10, port=30_000, user="typo"), mono_s)):
            banned += found
            until_s = MonoS(mono_s + counters.limits.ban_s)
        if second % 1_800 == 0:  # The others register.
            for phone in range(40):
                counters.count(succeeded(port=20_000 + phone, user=f"phone-{phone}"), mono_s)
    assert len(banned) == 28
    assert {excess.target for excess in banned} == {f"{HERE}:30000"}


def test_a_power_cut_at_an_office_bans_nobody() -> None:
    # All phones come back at once: messages and first challenges, which aren't failures, and then successes.
    counters = AddressCounters(limits())
    for phone in range(500):
        report = AddressReport(HERE, 4, 0, [EndpointReport(10_000 + phone, f"phone-{phone}", 0, 1)])
        assert counters.count(report, NOW_S) == []


def test_who_mistypes_and_then_succeeds_is_forgiven() -> None:
    counters = AddressCounters(small())
    counters.count(succeeded(), NOW_S)
    for _ in range(50):
        assert counters.count(failed(4), NOW_S) == []
        assert counters.count(succeeded(), NOW_S) == []
    mixed = AddressReport(HERE, 0, 0, [EndpointReport(5060, "alice", 3, 1)])
    for _ in range(50):
        assert counters.count(mixed, NOW_S) == []


def test_who_has_an_account_cannot_buy_guesses_with_it() -> None:
    counters = AddressCounters(small())
    found: list[ExceededLimit] = []
    for _ in range(5):
        counters.count(succeeded(user="mallory"), NOW_S)
        found = counters.count(failed(user="alice"), NOW_S)
    assert targets(found) == [f"{HERE}:5060"]


def test_forgiving_takes_back_no_more_than_that_user_did_there() -> None:
    counters = AddressCounters(small())
    counters.count(succeeded(port=1), NOW_S)
    for port in (2, 3, 4):
        counters.count(failed(4, port=port, user="alice"), NOW_S)  # 12: the limit of the address.
    counters.count(succeeded(port=2, user="alice"), NOW_S)  # Takes back four.
    assert counters.count(failed(4, port=5), NOW_S) == []
    assert targets(counters.count(failed(1, port=6), NOW_S)) == [HERE]


def test_an_address_that_becomes_known_has_the_limit_of_a_known_one() -> None:
    counters = AddressCounters(small())
    counters.count(failed(13, user="bob"), NOW_S)
    counters.count(succeeded(), NOW_S)
    assert targets(counters.count(failed(port=2), NOW_S)) == [HERE]


def test_who_was_banned_begins_anew_when_the_ban_ends() -> None:
    counters = AddressCounters(small())
    assert targets(counters.count(messages(11), NOW_S)) == [HERE]
    assert counters.count(messages(10), MonoS(NOW_S + 1)) == []


@pytest.mark.setting("delbanned")
def test_what_is_forgotten_begins_anew_with_all_its_endpoints_and_stays_known() -> None:
    counters = AddressCounters(small(known_address=100))
    counters.count(succeeded(), NOW_S)
    counters.count(failed(4, user="bob"), NOW_S)
    counters.count(failed(4, user="bob", address="192.0.2.77"), NOW_S)
    counters.forget(HERE)
    assert counters.count(failed(4, user="bob"), NOW_S) == []
    counters.forget(f"{HERE}:5060")
    assert counters.count(failed(4, user="bob"), NOW_S) == []
    assert targets(counters.count(failed(1, user="bob"), NOW_S)) == [f"{HERE}:5060"]
    assert [name for name, address in counters.addresses if address.known] == [HERE]
    counters.forget("203.0.113.1")  # Nobody we know.


def test_names_beyond_what_is_remembered_count_but_are_not_forgiven() -> None:
    counters = AddressCounters(small(known_address=1_000, known_endpoint=500))
    counters.count(succeeded(), NOW_S)
    for number in range(NAMES_MAX + 10):
        counters.count(failed(user=f"user-{number}"), NOW_S)
    counters.count(succeeded(user=f"user-{NAMES_MAX + 5}"), NOW_S)
    entry = counters.endpoints.peek(f"{HERE}:5060")
    assert entry is not None
    assert entry.by_name is not None
    assert len(entry.by_name) == NAMES_MAX
    assert entry.failures is not None
    assert entry.failures.total == NAMES_MAX + 10


def test_a_long_name_takes_no_more_memory_than_a_name() -> None:
    counters = AddressCounters(small(known_endpoint=500))
    counters.count(failed(user="x" * 100_000), NOW_S)
    entry = counters.endpoints.peek(f"{HERE}:5060")
    assert entry is not None
    assert entry.by_name is not None
    assert all(len(name) <= 64 for name in entry.by_name)


def test_a_flood_from_spoofed_addresses_does_not_make_us_forget_an_offender() -> None:
    counters = AddressCounters(small(address=20), addresses_max=1_000, endpoints_max=1_000)
    counters.count(failed(20), NOW_S)
    for number in range(20_000):
        counters.count(messages(1, address=f"198.51.{number >> 8}.{number & 255}"), NOW_S)
    assert len(counters.addresses) == 1_000
    assert targets(counters.count(failed(1), NOW_S)) == [HERE]


def test_known_addresses_are_forgotten_after_a_day_of_silence() -> None:
    counters = AddressCounters(limits())
    counters.count(succeeded(), NOW_S)
    counters.expire(MonoS(NOW_S + KNOWN_TTL_S - 1))
    assert [name for name, address in counters.addresses if address.known] == [HERE]
    counters.expire(MonoS(NOW_S + KNOWN_TTL_S))
    assert (len(counters.addresses), len(counters.endpoints)) == (0, 0)


@pytest.mark.setting("reenabledosblocked")
def test_no_counter_outlasts_the_reset() -> None:
    some = limits({"messages": {"resetAfter": "30m"}, "authFailures": {"period": "1h"}})
    assert some.ban_s == 1_800
    assert some.failures.period_s == some.wrong.period_s == 1_800
    assert some.messages.period_s == 180


def test_another_policy_holds_for_what_was_counted_before() -> None:
    counters = AddressCounters(small())
    counters.count(messages(9), NOW_S)
    counters.apply(small(messages=5))
    assert targets(counters.count(messages(1), NOW_S)) == [HERE]


@pytest.mark.setting("reenabledosblocked")
def test_a_counters_ban_has_reason_evidence_and_end() -> None:
    excess = ExceededLimit(HERE, Reason.RATE, "39001 messages in 3m, limit 39000")
    ban = bans.for_excess(excess, limits().ban_s, Networks(), UnixS(100.0))
    assert ban == Ban(HERE, "rate", "39001 messages in 3m, limit 39000", 100.0, 100.0 + 21_600, "counter")
    assert ban is not None
    assert ban.is_active_at(UnixS(100.0 + 21_599))
    assert not ban.is_active_at(UnixS(100.0 + 21_600))


@pytest.mark.setting("firewall-static")
@pytest.mark.parametrize("target", [HERE, f"{HERE}:5060", "2001:db8::7", "[2001:db8::7]:5060", "::ffff:192.0.2.7"])
def test_an_allowed_address_is_never_banned(target: str) -> None:
    never = limits({"firewall": {"allow": ["192.0.2.0/28", "2001:db8::/32"]}}).never
    assert bans.for_excess(ExceededLimit(target, Reason.RATE, ""), 60, never, UnixS(0.0)) is None
    with pytest.raises(Invalid):
        bans.by_operator(target, "", 0, never, UnixS(0.0))


def test_an_own_address_is_never_banned() -> None:
    never = limits(own=("10.0.0.0/8",)).never
    assert bans.for_excess(ExceededLimit("10.1.2.3", Reason.RATE, ""), 60, never, UnixS(0.0)) is None
    assert bans.for_excess(ExceededLimit("11.1.2.3", Reason.RATE, ""), 60, never, UnixS(0.0)) is not None


@pytest.mark.setting("reenabledosblocked")
def test_a_ban_by_hand_is_permanent_unless_it_has_an_end() -> None:
    permanent = bans.by_operator(HERE, "  guessing\npasswords ", 0, Networks(), UnixS(100.0))
    assert (permanent.until_s, permanent.reason, permanent.by) == (PERMANENT, "guessing passwords", "operator")
    assert permanent.is_active_at(UnixS(1e12))
    assert bans.by_operator(HERE, "", 60, Networks(), UnixS(100.0)).until_s == 160.0


def test_a_reason_that_is_no_line_is_refused() -> None:
    with pytest.raises(Invalid):
        bans.by_operator(HERE, "x" * 201, 0, Networks(), UnixS(0.0))
    with pytest.raises(Invalid):
        bans.by_operator(HERE, "bell \a", 0, Networks(), UnixS(0.0))


def test_an_addresss_bans_are_those_on_it_and_on_its_endpoints() -> None:
    some = [Ban(target, "", "", 0.0, 0.0, "counter") for target in (HERE, f"{HERE}:1", f"{HERE}:2", "192.0.2.77")]
    assert [ban.target for ban in bans.on(HERE, some)] == [HERE, f"{HERE}:1", f"{HERE}:2"]
    assert [ban.target for ban in bans.on(f"{HERE}:2", some)] == [f"{HERE}:2"]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7:5060 ", "192.0.2.7:5060"),
        ("2001:DB8:0::1", "2001:db8::/64"),  # a source as the edges count it
        ("[2001:DB8:0::1]", "2001:db8::/64"),
        ("2001:db8::7/64", "2001:db8::/64"),
        ("[2001:db8::1]:5060", "[2001:db8::1]:5060"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:05060", "192.0.2.7:5060"),
    ],
)
def test_what_a_person_writes_has_one_spelling(text: str, target: str) -> None:
    assert parse_target(text) == target
    assert parse_target(target) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pbx.example",
        "192.0.2.0/24",
        "192.0.2.7:0",
        "192.0.2.7:65536",
        "192.0.2.7:x",
        "1.2.3",
        "[::1",
        "a:b:c",
        "2001:db8::/48",
        "2001:db8::/128",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    if text == "[::1":  # Forgiven: nothing else can be meant.
        assert parse_target(text) == "::1"
        return
    with pytest.raises(Invalid):
        parse_target(text)


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_an_endpoint_knows_its_address(address: Any, port: int) -> None:
    text = str(address)
    assert host_of(text) == text
    assert host_of(endpoint(text, port)) == text
    assert address_of(text) == address_of(endpoint(text, port)) == source_of(text)
    if getattr(address, "ipv4_mapped", None) is None and "%" not in text:
        assert parse_target(endpoint(text, port)) == endpoint(text, port)


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        target = parse_target(text)
    except Invalid as error:
        assert error.field == "address"
    else:
        assert address_of(target)


def test_a_report_that_comes_twice_is_new_once() -> None:
    seen = ReportWindow()
    assert [seen.is_new("edge", number) for number in (5, 6, 5, 6, 4, 4, 7)] == [
        True, True, False, False, True, False, True,
    ]  # fmt: skip
    assert seen.is_new("other edge", 5)


def test_an_edge_that_starts_anew_is_listened_to() -> None:
    seen = ReportWindow()
    assert seen.is_new("edge", 1_000)
    assert seen.is_new("edge", 1)
    assert seen.is_new("edge", 2)
    assert not seen.is_new("edge", 2)


@given(st.lists(st.integers(0, 200), max_size=300))
def test_within_the_window_nothing_counts_twice_and_nothing_new_is_lost(numbers: list[int]) -> None:
    seen, counted, newest = ReportWindow(), set[int](), None
    for number in numbers:
        if newest is not None and number <= newest - WINDOW:
            continue  # Sent again so late that it is taken for a new life of the edge; not what this is about.
        assert seen.is_new("edge", number) == (number not in counted)
        counted.add(number)
        newest = number if newest is None else max(newest, number)


def test_edges_that_come_and_go_take_bounded_memory() -> None:
    seen = ReportWindow()
    for number in range(EDGES_MAX + 100):
        assert seen.is_new(f"edge-{number}", 1)
    assert len(seen._edges) == EDGES_MAX
    assert seen.is_new("edge-0", 1)  # Forgotten: the price of the bound.
    assert not seen.is_new(f"edge-{EDGES_MAX}", 1)


operations = st.lists(
    st.tuples(
        st.sampled_from(["fail", "succeed", "both"]), st.integers(1, 3), st.sampled_from("abc"), st.integers(1, 3)
    ),
    max_size=120,
)


@given(operations)
def test_no_order_of_failures_and_successes_lets_a_user_be_guessed_beyond_the_limits(
    steps: list[tuple[str, int, str, int]],
) -> None:
    """What counts at an endpoint is never less than the failures there of users who didn't succeed there since."""
    counters = AddressCounters(small(known_endpoint=10_000, known_address=10_000, address=10_000))
    unforgiven: dict[tuple[int, str], int] = {}
    for step, port, user, count in steps:
        failures = count if step != "succeed" else 0
        report = EndpointReport(port, user, failures, int(step != "fail"))
        assert counters.count(AddressReport(HERE, 0, 0, [report]), NOW_S) == []
        unforgiven[port, user] = unforgiven.get((port, user), 0) + failures if step == "fail" else 0
    for port in (1, 2, 3):
        entry = counters.endpoints.peek(f"{HERE}:{port}")
        counted = entry.failures.total if entry is not None and entry.failures is not None else 0
        assert counted == sum(count for (at, _), count in unforgiven.items() if at == port)
    address = counters.addresses.peek(HERE)
    total = address.failures.total if address is not None and address.failures is not None else 0
    assert total == sum(unforgiven.values())


def test_an_operators_ban_without_a_reason_names_the_operator() -> None:
    expected = Ban(HERE, "operator", "", 100.0, 160.0, "operator")
    assert bans.by_operator(HERE, " \n ", 60, Networks(), UnixS(100.0)) == expected


def test_a_reason_may_have_as_many_characters_as_allowed() -> None:
    reason = "x" * bans.REASON_CHARS_MAX
    assert bans.by_operator(HERE, reason, 0, Networks(), UnixS(0.0)).reason == reason


def test_a_network_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(Invalid, match="networks"):
        parse_target("10.0.0.0/8")


def test_a_port_in_digits_other_than_ascii_is_refused() -> None:
    with pytest.raises(Invalid, match="port"):
        parse_target("192.0.2.7:٥٠٦٠")


def test_a_network_may_be_written_by_any_of_its_addresses() -> None:
    assert "192.0.2.1" in Networks(["192.0.2.7/24"])


def test_text_that_is_no_address_is_in_no_network() -> None:
    assert "example.org" not in Networks(["0.0.0.0/0", "::/0"])
