"""lists.core.call_stats: from how many accounts and addresses a number must be out of line to be listed for all."""

from uuid import UUID

import pytest

from callwarden.call_admission.lists.core import call_stats
from callwarden.call_admission.lists.core.call_stats import GENERATION_S, CallCount, CallStats, NumberStats, StatsKey
from callwarden.call_admission.model.lists import Listed, ListSide
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.policy.model import DynamicList, SmartList

REALM, TARGET = "example.org", "37128000000"
NO_DYNAMIC, NO_SMART = DynamicList(enabled=False), SmartList(enabled=False)
START_S = 10_000.0


def smart(min_calls: int, accounts: int, addresses: int) -> SmartList:
    return SmartList(
        enabled=True, min_calls=min_calls, min_answered_percent=20, min_accounts=accounts, min_addresses=addresses
    )


def called(stats: CallStats, by: str, calls: int, policy: SmartList, after_s: float = 0.0) -> str:
    """Unanswered calls "by" an account at an address, such as "1@a": why the number is listed for all; "": it isn't."""
    account, address = by.split("@")
    key = StatsKey(UUID(int=int(account)), TARGET, False, address)
    found = stats.add(
        CallCount(REALM, key, NumberStats(calls=calls)), NO_DYNAMIC, policy, MonoS(START_S + after_s), UnixS(1_000.0)
    )
    return "".join(listed.evidence for listed in found if listed.account_id is None)


def of(calls: int, accounts: int, addresses: int) -> str:
    said = f"of {calls} calls 0 % answered (at least 20 %)"
    return f"{said}, by {accounts} accounts from {addresses} addresses"


TWO = smart(20, 2, 2)
NEXT_S, AFTER_S = GENERATION_S, 2 * GENERATION_S
# Accounts and addresses with as many calls, after so many seconds; then why the number is listed for all at last.
Steps = list[tuple[float, str, int]]
SPREADS: dict[str, tuple[SmartList, Steps, str]] = {
    "half each": (TWO, [(0, "1@a", 10), (0, "2@b", 10)], of(20, 2, 2)),
    "one call is missing": (TWO, [(0, "1@a", 10), (0, "2@b", 9)], ""),
    "no account counts for more than its half": (TWO, [(0, "1@a", 19), (0, "2@b", 10)], of(20, 2, 2)),
    "however often it calls": (
        TWO, [(0, "1@a", 10), (100, "1@a", 10), (200, "1@a", 10), (300, "2@b", 10)], of(20, 2, 2),
    ),
    "no address counts for more than its half": (TWO, [(0, "1@a", 10), (0, "2@a", 10), (0, "3@b", 9)], ""),
    "an account's half is that of two hours": (TWO, [(0, "1@a", 10), (NEXT_S, "1@a", 10), (NEXT_S, "2@b", 9)], ""),
    "an address's half is that of two hours": (TWO, [(0, "1@a", 10), (NEXT_S, "3@a", 10), (NEXT_S, "2@b", 9)], ""),
    "after two hours an account begins anew": (TWO, [(0, "1@a", 10), (AFTER_S, "1@a", 10), (AFTER_S, "2@b", 10)],
        of(20, 2, 2)),
    "an hour that is over is the one before": (TWO,
        [(0, "1@a", 9), (NEXT_S, "3@c", 10), (AFTER_S, "3@c", 10), (AFTER_S, "2@b", 10)], of(20, 2, 2)),
    "and what was before it is forgotten": (TWO, [(0, "1@a", 9), (NEXT_S, "3@c", 10), (AFTER_S, "1@a", 10)],
        of(20, 2, 2)),
    "five accounts are not six": (smart(10, 6, 1), [(0, f"{each}@a", 2) for each in range(5)], ""),
    "six accounts": (smart(10, 6, 1), [(0, f"{each}@a", 2) for each in range(6)], of(12, 6, 1)),
    "two addresses are not four": (
        smart(10, 6, 4), [(0, f"{each}@{'aab'[each // 2]}", 2) for each in range(6)], "",
    ),
    "four addresses": (
        smart(10, 6, 4), [(0, f"{each}@{'abcd'[each // 2]}", 2) for each in range(7)], of(14, 7, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPREADS)
def test_a_number_is_listed_for_all_only_by_enough_accounts_and_addresses(case: str) -> None:
    policy, steps, wanted = SPREADS[case]
    stats = CallStats()
    told = [called(stats, by, calls, policy, after_s) for after_s, by, calls in steps]
    assert told[-1] == wanted
    assert not any(told[:-1])


def test_failures_that_list_a_number_for_all_come_from_enough_accounts_too() -> None:
    policy = DynamicList(enabled=True, failures=9, period=600, min_accounts=6, min_addresses=1)
    stats = CallStats()
    told = []
    for account in range(6):
        key = StatsKey(UUID(int=account), TARGET, False, "a")
        found = stats.add(
            CallCount(REALM, key, NumberStats(failures=2)), policy, NO_SMART, MonoS(START_S), UnixS(1_000.0)
        )
        told.append([(listed.account_id, listed.evidence) for listed in found])
    assert told[:-1] == [[]] * 5
    assert told[-1] == [(None, "12 failed calls within 600 s (limit 9), by 6 accounts from 1 addresses")]


def test_of_more_accounts_than_are_told_apart_those_count_that_were_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_stats, "SPREAD_MAX", 2)
    stats = CallStats()
    for by in ("1@a", "2@b", "3@c", "1@a"):
        assert called(stats, by, 5, TWO) == ""
    assert called(stats, "2@b", 5, TWO) == of(20, 2, 2)


def test_a_number_that_is_listed_for_all_no_more_begins_anew() -> None:
    stats = CallStats()
    called(stats, "1@a", 10, TWO)
    assert called(stats, "2@b", 10, TWO)
    stats.forget(Listed("smart", REALM, ListSide.CALLED, TARGET, None, "", "", 0.0, 0.0))
    assert called(stats, "3@c", 10, TWO) == ""
