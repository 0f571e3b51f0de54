"""Which addresses and endpoints keep their counters, and what counts where limits meet."""

from collections.abc import Callable
from typing import Any

import pytest

from callwarden.kernel.clock import MonoS
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import Document, PolicySet
from callwarden.rate_guard.core.counters import (
    KNOWN_TTL_S,
    NAMES_MAX,
    AddressCounters,
    AddressReport,
    EndpointReport,
    ExceededLimit,
)
from callwarden.rate_guard.core.limits import AddressLimits, compile_limits

HERE, PHONE = "192.0.2.7", "192.0.2.7:5060"
NOW_S = MonoS(10_000.0)
HOUR_S = 3_600.0


def limits(
    *, endpoint: int = 4, known: int = 12, wrong: int = 5, period: str = "1h", reset_after: str = "6h"
) -> AddressLimits:
    spec: dict[str, Any] = {
        "messages": {"wrongPerAddress": {"max": wrong, "period": period}, "resetAfter": reset_after},
        "authFailures": {
            "period": period,
            "perAddress": {"max": 20},
            "perKnownAddress": {"max": known},
            "perKnownEndpoint": {"max": endpoint},
        },
    }
    return compile_limits(PolicySet.build(1, [Document("test", spec)]).for_realm(""))


def report(*endpoints: EndpointReport, wrong: int = 0) -> AddressReport:
    return AddressReport(HERE, 0, wrong, list(endpoints))


def phone(failures: int = 0, successes: int = 0, user: str = "alice", port: int = 5060) -> EndpointReport:
    return EndpointReport(port, user, failures, successes)


def failures_at_address(counters: AddressCounters) -> int:
    address = counters.addresses.peek(HERE)
    if address is None or address.failures is None:
        return 0
    return address.failures.count(counters.limits.failures, NOW_S)


def test_a_wrong_message_makes_an_address_worth_remembering() -> None:
    counters = AddressCounters(limits())
    counters.count(report(wrong=1), NOW_S)
    assert counters.addresses.is_hot(HERE)


@pytest.mark.parametrize("seen", [phone(failures=1), phone(successes=1)], ids=["a failure", "a success"])
def test_an_authentication_makes_address_and_endpoint_worth_remembering(seen: EndpointReport) -> None:
    counters = AddressCounters(limits())
    counters.count(report(phone(successes=1, port=5061)), NOW_S)  # so that the address is known
    counters.count(report(seen), NOW_S)
    assert counters.addresses.is_hot(HERE)
    assert counters.endpoints.is_hot(PHONE)


def test_messages_alone_make_an_address_hot_from_an_eighth_of_the_limit() -> None:
    counters = AddressCounters(limits())
    eighth = counters.limits.messages_max // 8
    counters.count(AddressReport(HERE, eighth, 0, []), NOW_S)
    assert not counters.addresses.is_hot(HERE)
    counters.count(AddressReport(HERE, 1, 0, []), NOW_S)
    assert counters.addresses.is_hot(HERE)


def test_an_endpoint_without_authentications_counts_nothing() -> None:
    counters = AddressCounters(limits())
    counters.count(report(phone(failures=1)), NOW_S)
    assert counters.count(report(*[phone()] * 50), NOW_S) == []
    assert failures_at_address(counters) == 1


def test_a_registering_phone_stays_known() -> None:
    counters = AddressCounters(limits())
    for hours in (0, 20, 40):
        counters.count(report(phone(successes=1)), MonoS(NOW_S + hours * HOUR_S))
        counters.expire(MonoS(NOW_S + hours * HOUR_S))
    counters.expire(MonoS(NOW_S + 40 * HOUR_S + KNOWN_TTL_S - 1))
    found = counters.endpoints.peek(PHONE)
    assert found is not None
    assert found.known


def test_a_known_endpoint_keeps_its_own_limit_when_its_address_was_forgotten() -> None:
    counters = AddressCounters(limits(endpoint=4))
    counters.count(report(phone(successes=1)), NOW_S)
    counters.addresses.remove(HERE)
    (excess,) = counters.count(report(phone(failures=5)), NOW_S)
    assert excess == ExceededLimit(PHONE, Reason.CREDENTIALS, "5 authentication failures in 1h, limit 4")


def test_failures_beyond_an_endpoints_limit_do_not_count_for_its_address() -> None:
    counters = AddressCounters(limits(endpoint=4, known=12))
    counters.count(report(phone(successes=1)), NOW_S)
    assert [excess.target for excess in counters.count(report(phone(failures=50)), NOW_S)] == [PHONE]
    assert failures_at_address(counters) == 4


def test_an_endpoint_over_a_limit_that_was_lowered_adds_nothing_to_its_address() -> None:
    counters = AddressCounters(limits(endpoint=10, known=100))
    counters.count(report(phone(successes=1)), NOW_S)
    counters.count(report(phone(failures=9)), NOW_S)
    counters.apply(limits(endpoint=3, known=100))
    assert [excess.target for excess in counters.count(report(phone(failures=1)), NOW_S)] == [PHONE]
    assert failures_at_address(counters) == 9


def test_an_endpoint_is_not_banned_by_a_report_with_a_success() -> None:
    counters = AddressCounters(limits(endpoint=4))
    counters.count(report(phone(successes=1)), NOW_S)
    assert counters.count(report(phone(failures=9, successes=1)), NOW_S) == []
    assert failures_at_address(counters) == 0


def test_a_success_of_one_user_keeps_what_another_may_be_forgiven() -> None:
    counters = AddressCounters(limits(endpoint=100, known=100))
    counters.count(report(phone(failures=3, user="alice"), phone(failures=2, user="bob")), NOW_S)
    counters.count(report(phone(successes=1, user="alice")), NOW_S)
    assert failures_at_address(counters) == 2
    counters.count(report(phone(successes=1, user="bob")), NOW_S)
    assert failures_at_address(counters) == 0


def test_a_name_beyond_those_remembered_is_forgiven_nothing_in_its_own_report_either() -> None:
    counters = AddressCounters(limits(endpoint=1_000, known=1_000))
    counters.count(report(phone(successes=1, port=5061)), NOW_S)
    for number in range(NAMES_MAX):
        counters.count(report(phone(failures=1, user=f"user-{number}")), NOW_S)
    counters.count(report(phone(failures=5, successes=1, user="one-more")), NOW_S)
    assert failures_at_address(counters) == NAMES_MAX + 5


def over_wrong(counters: AddressCounters) -> list[ExceededLimit]:
    return counters.count(report(wrong=6), NOW_S)


def over_failures(counters: AddressCounters) -> list[ExceededLimit]:
    return counters.count(report(*(phone(failures=1, port=port) for port in range(5_000, 5_021))), NOW_S)


@pytest.mark.parametrize("exceed", [over_wrong, over_failures])
def test_an_exceeded_limit_resets_the_counter_of_its_address(
    exceed: Callable[[AddressCounters], list[ExceededLimit]],
) -> None:
    counters = AddressCounters(limits(wrong=5))
    assert [excess.target for excess in exceed(counters)] == [HERE]
    assert counters.count(report(phone(failures=1), wrong=1), NOW_S) == []


def test_counters_are_kept_as_long_as_the_longest_window() -> None:
    # The window of failures is the longest: the others are 3 minutes and an hour.
    longest = limits(period="7d", reset_after="7d")
    counters = AddressCounters(limits())
    counters.apply(longest)
    counters.count(report(phone(failures=20)), NOW_S)
    late_s = MonoS(NOW_S + 7 * 86_400 - 1)
    counters.expire(late_s)
    assert [excess.target for excess in counters.count(report(phone(failures=1)), late_s)] == [HERE]
    assert longest.longest_s == 7 * 86_400 * (1 + 1 / 16)


@pytest.mark.cases
@pytest.mark.parametrize(("messages", "wrong"), [(1_000_000, 0), (0, 1_000_000)])
def test_what_anybody_could_have_sent_in_its_name_bans_no_address(messages: int, wrong: int) -> None:
    counters = AddressCounters(limits())
    assert counters.count(AddressReport(HERE, messages, wrong, [], verified=False), NOW_S) == []
    assert counters.count(AddressReport(HERE, messages, wrong, [], verified=True), NOW_S) != []
    # A phone of ours is there: the edge limits it.
    counters.count(AddressReport("192.0.2.8", 1, 0, [EndpointReport(5060, "alice", 0, 1)]), NOW_S)
    assert counters.count(AddressReport("192.0.2.8", messages, wrong, [], verified=True), NOW_S) == []
