"""The small parts of the edge's core: cookies, keys, statuses, the wheel, counters, used nonces."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

import pytest
from edge_world import MASTER, REALM, START_S, policy
from hypothesis import given
from hypothesis import strategies as st

from callwarden.edge_proxy.core import cookie
from callwarden.edge_proxy.core.challenge import USES_MAX, Uses
from callwarden.edge_proxy.core.cookie import Cookie, CookieFault
from callwarden.edge_proxy.core.counters import ENDPOINTS_MAX, EdgeCounters
from callwarden.edge_proxy.core.keys import BadKeys, derive, parse_masters
from callwarden.edge_proxy.core.rules import RuleBook, contains
from callwarden.edge_proxy.core.statuses import ANSWERS, QUOTAS, RefusalAnswer, answer_for
from callwarden.edge_proxy.core.wheel import TICK_S, Wheel
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.kernel.verdict import Reason
from callwarden.sip.address import SocketAddress
from callwarden.sip.build import REASONS

KEYS = derive([MASTER])
HOLD = UUID("9a06b950-af52-4b41-b13f-f3222176d61e")

hosts = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
addresses = st.one_of(st.none(), st.builds(SocketAddress, hosts, st.integers(0, 65_535)))


# Cookies.


@given(
    st.uuids(),
    addresses,
    addresses,
    st.text(min_size=1, max_size=80),
    st.integers(0, 40),
    st.one_of(st.just(""), st.uuids().map(str)),
)
def test_a_cookie_says_what_was_put_in_to_each_side(
    hold_id: UUID,
    caller: SocketAddress | None,
    callee: SocketAddress | None,
    call_id: str,
    attempt: int,
    account_id: str,
) -> None:
    text = cookie.issue(
        KEYS,
        hold_id,
        START_S + 60,
        call_id,
        "caller",
        caller=caller,
        callee=callee,
        account_id=account_id,
        attempt=attempt,
    )
    assert len(text) <= 128
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()
    of_caller = cookie.for_caller(KEYS, text, call_id, "caller", "callee")
    assert len(of_caller) <= 128
    assert of_caller.replace("-", "").replace("_", "").isalnum()
    assert cookie.read(KEYS, of_caller, call_id, "caller", "callee", START_S) == Cookie(
        hold_id, True, callee, account_id, caller
    )
    assert cookie.read(KEYS, text, call_id, "callee", "caller", START_S) == Cookie(
        hold_id, False, caller, account_id, callee
    )


@pytest.mark.parametrize("account_id", ["", str(HOLD)])
@pytest.mark.parametrize("callee", [None, "192.0.2.2", "2001:db8::2"])
@pytest.mark.parametrize("caller", [None, "192.0.2.1", "2001:db8::1"])
def test_a_cookie_holds_addresses_of_each_family(caller: str | None, callee: str | None, account_id: str) -> None:
    ends = [None if host is None else SocketAddress(host, 5061) for host in (caller, callee)]
    text = cookie.issue(
        KEYS, HOLD, START_S + 60, "call-1", "caller", caller=ends[0], callee=ends[1], account_id=account_id, attempt=9
    )
    assert "=" not in text
    found = cookie.read(KEYS, text, "call-1", "callee", "caller", START_S)
    assert found == Cookie(HOLD, False, ends[0], account_id, ends[1])


def test_what_is_too_short_for_a_cookie_is_none() -> None:
    whole = urlsafe_b64decode(issued() + "=" * (-len(issued()) % 4))
    for size in range(len(whole)):
        text = urlsafe_b64encode(whole[:size]).rstrip(b"=").decode()
        assert cookie.read(KEYS, text, "call-1", "callee", "caller", START_S) is CookieFault.FORGED


def issued(**more: object) -> str:
    """The callee's cookie."""
    values: dict[str, object] = {
        "caller": SocketAddress("192.0.2.1", 5060),
        "callee": SocketAddress("192.0.2.2", 5060),
        **more,
    }
    return cookie.issue(KEYS, HOLD, START_S + 60, "call-1", "caller", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call_id", "from_tag", "to_tag"),
    [("call-2", "caller", "callee"), ("call-1", "x", "y"), ("call-1", None, None), ("call-", "1caller", "callee")],
)
def test_a_cookie_is_good_for_its_own_dialog_only(call_id: str, from_tag: str | None, to_tag: str | None) -> None:
    assert cookie.read(KEYS, issued(), call_id, to_tag, from_tag, START_S) is CookieFault.FORGED
    assert cookie.read(KEYS, of_caller(), call_id, from_tag, to_tag, START_S) is CookieFault.FORGED


def of_caller(callee_tag: str = "callee") -> str:
    return cookie.for_caller(KEYS, issued(), "call-1", "caller", callee_tag)


def test_neither_sides_cookie_serves_the_other() -> None:
    assert cookie.read(KEYS, issued(), "call-1", "caller", "callee", START_S) is CookieFault.FORGED
    assert cookie.read(KEYS, of_caller(), "call-1", "callee", "caller", START_S) is CookieFault.FORGED


@pytest.mark.parametrize("tag", ["other", "", None, "calle", "callee2"])
def test_the_callers_cookie_is_good_for_one_tag_of_the_callee(tag: str | None) -> None:
    assert cookie.read(KEYS, of_caller(), "call-1", "caller", tag, START_S) is CookieFault.WRONG_TAG


@given(st.integers(0, 57), st.characters(codec="ascii", categories=["L", "N"]))
def test_a_cookie_with_one_letter_changed_is_forged(at: int, letter: str) -> None:
    text = issued()
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        assert cookie.read(KEYS, changed, "call-1", "callee", "caller", START_S) is CookieFault.FORGED
    text = of_caller()
    changed = text[:at] + letter + text[at + 1 :]
    if changed != text:
        assert isinstance(cookie.read(KEYS, changed, "call-1", "caller", "callee", START_S), CookieFault)


@given(st.text(max_size=200))
def test_any_text_is_no_cookie(text: str) -> None:
    assert cookie.read(KEYS, text, "call-1", "caller", "callee", START_S) is CookieFault.FORGED


def test_a_cookie_ends() -> None:
    text = issued()
    assert isinstance(cookie.read(KEYS, text, "call-1", "callee", "caller", UnixS(START_S + 60)), Cookie)
    assert cookie.read(KEYS, text, "call-1", "callee", "caller", UnixS(START_S + 61)) is CookieFault.EXPIRED


def test_a_cookie_of_another_key_is_forged_and_of_an_old_key_is_not() -> None:
    text = issued()
    other = bytes(32)
    assert cookie.read(derive([other]), text, "call-1", "callee", "caller", START_S) is CookieFault.FORGED
    assert isinstance(cookie.read(derive([other, MASTER]), text, "call-1", "callee", "caller", START_S), Cookie)


def test_two_attempts_of_one_call_hide_their_addresses_under_different_streams() -> None:
    assert issued(attempt=1)[30:40] != issued(attempt=2)[30:40]


# Keys.


def test_each_use_has_a_key_of_its_own() -> None:
    keys = derive([MASTER])
    assert len({keys.tags, keys.cookies[keys.cookie_number], keys.nonces.keys[keys.cookie_number], MASTER}) == 4


@pytest.mark.parametrize("text", ["zz", "00" * 15, "0x12", "5ec2e7 5ec2e7"])
def test_bad_master_keys_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(BadKeys) as caught:
        parse_masters(text)
    assert text not in str(caught.value)
    with pytest.raises(BadKeys):
        parse_masters(" , ")


def test_the_keys_never_show_in_text() -> None:
    assert MASTER.hex() not in repr(derive([MASTER]))
    assert "tags" not in repr(derive([MASTER]))


# Statuses.


def test_every_reason_has_an_answer_that_sip_knows() -> None:
    assert set(ANSWERS) == set(Reason)
    for reason in Reason:
        for is_trunk in (False, True):
            answer = answer_for(reason, is_trunk=is_trunk, quota_status=403)
            assert answer.status in REASONS
            assert 400 <= answer.status <= 699
            assert (answer.retry_after_s > 0) >= (answer.status == 503)


# STYLE: what a phone, or a switch, hears of each refusal that isn't a plain 403.
HEARD = {
    **dict.fromkeys((Reason.CREDENTIALS, Reason.UNAUTHENTICATED), (407, 0)),
    **dict.fromkeys((Reason.RATE, Reason.OVERLOAD, Reason.UNAVAILABLE, Reason.NO_ROUTE), (503, 5)),
    **dict.fromkeys((Reason.NOT_PROFITABLE, Reason.ROUTE_COST), (503, 5)),
    Reason.CEILING: (503, 2),
    Reason.LINES: (486, 0),
    Reason.MALFORMED: (400, 0),
    Reason.NOT_FOUND: (404, 0),
    Reason.NOT_REGISTERED: (480, 0),
    Reason.BAD_NUMBER: (484, 0),
}


@pytest.mark.parametrize("reason", Reason)
def test_each_refusal_is_heard_as_what_the_caller_can_do_about_it(reason: Reason) -> None:
    answer = answer_for(reason, is_trunk=False, quota_status=403)
    assert (answer.status, answer.retry_after_s) == HEARD.get(reason, (403, 0))
    assert answer.text == ("Caller ID Not Allowed" if reason is Reason.CALLER_ID else "")
    wanted = answer_for(reason, is_trunk=False, quota_status=403, wanted=480, retry_after_s=9)
    assert (wanted.status, wanted.retry_after_s, wanted.text) == (480, 0, "")
    busy = answer_for(reason, is_trunk=False, quota_status=403, wanted=486, retry_after_s=9)
    assert (busy.status, busy.retry_after_s, busy.text) == (486, 9, "")


@pytest.mark.parametrize("wanted", [399, 400, 699, 700])
def test_only_a_final_failure_can_be_wanted(wanted: int) -> None:
    answer = answer_for(Reason.NOT_FOUND, is_trunk=False, quota_status=403, wanted=wanted)
    assert answer.status == (wanted if wanted in (400, 699) else 404)


@pytest.mark.setting("quotadiscreason")
def test_only_refusals_for_money_and_quotas_follow_the_policys_status() -> None:
    changed = {reason for reason in Reason if answer_for(reason, is_trunk=False, quota_status=599).status == 599}
    assert changed == QUOTAS


def test_a_full_line_is_busy_to_a_subscriber_and_503_to_a_trunk() -> None:
    assert answer_for(Reason.LINES, is_trunk=False, quota_status=403).status == 486
    assert answer_for(Reason.LINES, is_trunk=True, quota_status=403) == RefusalAnswer(503, 2)
    assert answer_for(Reason.NO_ROUTE, is_trunk=True, quota_status=403) == RefusalAnswer(503, 5)


@given(st.sampled_from(Reason), st.integers(-1, 1_000))
def test_a_wanted_status_is_taken_if_it_is_a_refusal(reason: Reason, wanted: int) -> None:
    answer = answer_for(reason, is_trunk=False, quota_status=403, wanted=wanted)
    assert 400 <= answer.status <= 699
    if 400 <= wanted <= 699:
        assert answer.status == wanted


# The wheel.


class Sleeper:
    def __init__(self) -> None:
        self.tick = 0


@given(st.lists(st.tuples(st.floats(0, 100), st.one_of(st.none(), st.floats(0, 100))), max_size=40))
def test_every_alarm_rings_once_on_time_and_never_early(times: list[tuple[float, float | None]]) -> None:
    wheel: Wheel[Sleeper] = Wheel()
    due: dict[Sleeper, float] = {}
    for first_s, then_s in times:
        sleeper = Sleeper()
        wheel.set(sleeper, first_s)
        if then_s is not None:
            wheel.set(sleeper, then_s)
        due[sleeper] = first_s if then_s is None else then_s
    rung: list[Sleeper] = []
    while (next_s := wheel.next_s()) is not None:
        for sleeper in wheel.take_due(MonoS(next_s)):
            assert due[sleeper] <= next_s <= due[sleeper] + TICK_S + 1e-6
            rung.append(sleeper)
    assert len(rung) == len(due) == len(set(rung))


def test_a_cancelled_alarm_is_gone_at_once() -> None:
    wheel: Wheel[Sleeper] = Wheel()
    sleeper = Sleeper()
    wheel.set(sleeper, 10)
    wheel.cancel(sleeper)
    wheel.cancel(sleeper)
    assert len(wheel) == 0
    assert wheel.take_due(MonoS(11)) == []


# Networks.


@pytest.mark.setting("firewall-static")
@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("192.0.2.77", True),
        ("192.0.3.1", False),
        ("2001:db8::9", True),
        ("2001:db9::", False),
        ("::ffff:192.0.2.1", True),
        ("host.example", False),
    ],
)
def test_networks_hold_addresses_of_both_families(host: str, inside: bool) -> None:
    book = RuleBook(policy({"firewall": {"deny": ["192.0.2.0/24", "2001:db8::/32"]}}), (REALM,))
    assert contains(book.default.deny, host) is inside


# Counters.


def counters(spec: dict[str, object] | None = None) -> EdgeCounters:
    return EdgeCounters(RuleBook(policy(spec), (REALM,)).default)


def test_sums_are_reported_once() -> None:
    counted = counters()
    for _ in range(3):
        assert counted.message("192.0.2.1", MonoS(1.0)) is None
    counted.wrong("192.0.2.1", MonoS(1.0))
    counted.failed("192.0.2.1", 5060, "alice", MonoS(1.0))
    (report,) = counted.take_report(MonoS(1.0))
    assert (report.host, report.messages, report.wrong) == ("192.0.2.1", 3, 1)
    assert [(port, name, sums.failures) for _, port, name, sums in report.endpoints] == [(5060, "alice", 1)]
    assert counted.take_report(MonoS(1.1)) == []


def test_invented_names_do_not_fill_the_memory_and_still_count() -> None:
    counted = counters()
    for number in range(ENDPOINTS_MAX + 500):
        counted.failed("192.0.2.1", 5060, f"guess{number}", MonoS(1.0))
    (report,) = counted.take_report(MonoS(1.0))
    assert len(report.endpoints) == ENDPOINTS_MAX + 1
    assert sum(sums.failures for *_, sums in report.endpoints) == ENDPOINTS_MAX + 500


@pytest.mark.parametrize(
    ("spec", "act"),
    [
        ({"messages": {"perAddress": {"max": 5, "period": "60s"}}}, "message"),
        ({"messages": {"wrongPerAddress": {"max": 5, "period": "60s"}}}, "wrong"),
        ({"authFailures": {"period": "60s", "perAddress": {"max": 5}}}, "failed"),
    ],
)
def test_an_edge_that_is_alone_holds_every_limit_itself(spec: dict[str, object], act: str) -> None:
    counted = counters(spec)
    passed = 0
    for _ in range(20):
        passed += counted.message("192.0.2.1", MonoS(1.0)) is None
        if act == "wrong":
            counted.wrong("192.0.2.1", MonoS(1.0))
        elif act == "failed":
            counted.failed("192.0.2.1", 5060, "alice", MonoS(1.0))
    assert passed == 5 if act == "message" else passed == 6
    assert counted.message("192.0.2.2", MonoS(1.0)) is None
    assert counted.message("192.0.2.1", MonoS(70.0)) is None


# Used nonces.


def test_a_nonce_is_used_once_with_each_count() -> None:
    uses = Uses()
    assert uses.is_first("nonce", "00000001", UnixS(1.0), 300)
    assert not uses.is_first("nonce", "00000001", UnixS(2.0), 300)
    assert uses.is_first("nonce", "00000002", UnixS(2.0), 300)
    assert uses.is_first("nonce", "0000000a", UnixS(2.0), 300)
    assert not uses.is_first("nonce", "0000000A", UnixS(2.0), 300)
    assert not uses.is_first("nonce", "00000001", UnixS(2.0), 300)


def test_uses_are_remembered_for_the_nonces_life_and_in_bounded_memory() -> None:
    uses = Uses()
    assert uses.is_first("first", "1", UnixS(0.0), 300)
    assert not uses.is_first("first", "1", UnixS(299.0), 300)
    for number in range(3 * USES_MAX):
        uses.is_first(str(number), "1", UnixS(300.0), 300)
    assert len(uses._new) + len(uses._old) <= 2 * USES_MAX
