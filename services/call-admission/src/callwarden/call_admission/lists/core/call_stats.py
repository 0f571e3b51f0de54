"""Statistics of callers and targets: how calls with each number ended, and which numbers are out of line.

In: counting ended calls, adding up what several processes counted, the dynamic list's and the smart list's judgement.
Out: what an event says and who is notified (adapters), when and what is then listed (call_watch).

A number's counts are bounded by TABLE_MAX keys of each kind, each with a time to live; what is evicted for want of
room is counted.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from callwarden.call_admission.model.lists import DYNAMIC, SMART, Listed, ListSide
from callwarden.call_admission.model.number_plan import country_of
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.limits.table import Entry, Table
from callwarden.limits.windows import SlidingCounter, WindowShape
from callwarden.policy.model import DynamicList, SmartList

SHORT_S: Final = 6.0  # an answered call below it is a short one
# Scores look at the last one to two of these. Long enough for 200 calls of a caller who matters, short enough that
# what somebody did in the morning is forgiven in the afternoon.
GENERATION_S: Final = 3_600.0
TTL_S: Final = 86_400.0  # the longest period that a policy may count failures over
# Callers, as many targets, and as many targets of one account each: 25 MB each when full, targets 50.
TABLE_MAX: Final = 50_000
ACCOUNTS_MAX: Final = 20_000  # whose countries are known: 10 MB
COUNTRIES_MAX: Final = 64  # of an account; who calls more is at home everywhere
PENDING_MAX: Final = 20_000  # numbers between two flushes; more in a second are a flood of made-up ones
FRESH_S: Final = 86_400.0  # a country is new to an account for a day
LEARNT_CALLS: Final = 50  # an account's calls before any country is new to it: at first they all would be
FRESH_PERCENT: Final = 50  # more calls than this to new countries add to the score
SPREAD_MAX: Final = 64  # accounts, and addresses, of a target that are told apart; calls of further ones don't count
SCORE_LISTED: Final = 2  # a single statistic that is just out of line lists nobody
# An attempt that was refused as part of an attack counts like this share of the failures that list a number.
ATTACK_SHARE: Final = 5

# Statuses that say nothing against the called number: ours or the trunk's to answer for (credentials, time-outs, loops,
# overload), or those of a number that is popular (busy) or was given up (cancelled).
_NOT_THE_TARGETS: Final = frozenset({401, 402, 407, 408, 421, 429, 482, 483, 486, 487, 491, 600})


@dataclass(slots=True)
class NumberStats:
    """How calls with one number ended. Mutable: every call adds to two."""

    calls: int = 0
    answered: int = 0
    short: int = 0
    talk_ms: int = 0
    failures: int = 0
    fresh: int = 0
    attacks: int = 0

    def copy(self) -> "NumberStats":
        return NumberStats(
            self.calls, self.answered, self.short, self.talk_ms, self.failures, self.fresh, self.attacks
        )  # fmt: skip

    def part(self, calls: int) -> "NumberStats":
        """What so many of the calls would have counted."""
        of = max(1, self.calls)
        return NumberStats(
            calls, self.answered * calls // of, self.short * calls // of, self.talk_ms * calls // of,
            self.failures * calls // of, self.fresh * calls // of, self.attacks,
        )  # fmt: skip

    def add(self, other: "NumberStats") -> None:
        self.calls += other.calls
        self.answered += other.answered
        self.short += other.short
        self.talk_ms += other.talk_ms
        self.failures += other.failures
        self.fresh += other.fresh
        self.attacks += other.attacks


class StatsKey(NamedTuple):
    """Whose number it is in calls of one account, and from where it was called."""

    account_id: UUID
    number: str
    """Digits of E.164."""
    calling: bool
    source: str = ""


class CallCount(NamedTuple):
    """What one process counted of a number since it published last."""

    realm: str
    key: StatsKey
    tally: NumberStats


def is_failure(sip_status: int) -> bool:
    """Whether an unanswered call's final status speaks against the called number."""
    return (400 <= sip_status < 500 or 600 <= sip_status < 700) and sip_status not in _NOT_THE_TARGETS


class Pending:
    """What this process has counted and not published yet. 1 to 2 µs a call."""

    def __init__(self) -> None:
        self._tallies: dict[StatsKey, NumberStats] = {}
        self.dropped = 0
        """Calls whose number found no room."""

    def __len__(self) -> int:
        return len(self._tallies)

    def ended(
        self, account_id: UUID, called: str, calling: str, talk_s: float | None, sip_status: int, *, fresh: bool,
        source: str = "",
    ) -> None:  # fmt: skip
        """A call that is over. Numbers "" aren't counted; `talk_s` None: it wasn't answered."""
        for number, is_calling in ((called, False), (calling, True)):
            tally = self._of(account_id, number, is_calling, "" if is_calling else source) if number else None
            if tally is None:
                continue
            tally.calls += 1
            tally.fresh += fresh
            if talk_s is None:
                tally.failures += is_failure(sip_status)
            else:
                tally.answered += 1
                tally.talk_ms += int(talk_s * 1_000)
                tally.short += talk_s < SHORT_S

    def attacked(self, account_id: UUID, called: str, source: str = "") -> None:
        """A call that was refused as part of an attack. It speaks against the number that it was to; the caller isn't
        judged by what our own limits refused."""
        tally = self._of(account_id, called, False, source)
        if tally is not None:
            tally.attacks += 1

    def _of(self, account_id: UUID, number: str, calling: bool, source: str) -> NumberStats | None:
        key = StatsKey(account_id, number, calling, source)
        tally = self._tallies.get(key)
        if tally is None:
            if len(self._tallies) >= PENDING_MAX:
                self.dropped += 1
                return None
            tally = self._tallies[key] = NumberStats()
        return tally

    def accounts(self) -> set[UUID]:
        return {key.account_id for key in self._tallies}

    def take(self, realms: dict[UUID, str]) -> list[CallCount]:
        """All of it; counting restarts. What is of an account without a realm was of one that is gone."""
        taken, self._tallies = self._tallies, {}
        return [
            CallCount(realm, key, tally)
            for key, tally in taken.items()
            if (realm := realms.get(key.account_id)) is not None
        ]


class _Spread:
    """Which accounts and addresses a target's counts came from in the last one to two periods, so that none of them
    counts for more than its share. Mutable."""

    __slots__ = ("accounts", "addresses", "began_s", "old_accounts", "old_addresses")

    def __init__(self, at: MonoS) -> None:
        self.began_s = at
        self.accounts: dict[UUID, int] = {}
        self.addresses: dict[str, int] = {}
        self.old_accounts: dict[UUID, int] = {}
        self.old_addresses: dict[str, int] = {}

    def take(self, key: StatsKey, amount: int, needed: int, least: tuple[int, int], period_s: float, at: MonoS) -> int:
        """How much of the amount counts, where a number is listed for `needed` from at least so many accounts and
        addresses."""
        if at - self.began_s >= period_s:
            is_recent = at - self.began_s < 2 * period_s
            self.old_accounts = self.accounts if is_recent else {}
            self.old_addresses = self.addresses if is_recent else {}
            self.accounts, self.addresses, self.began_s = {}, {}, at
        account, address = key.account_id, key.source
        of_account, of_address = _shares(needed, *least)
        counted = min(
            amount,
            _room(self.accounts, self.old_accounts, account, of_account),
            _room(self.addresses, self.old_addresses, address, of_address),
        )
        if counted <= 0:
            return 0
        self.accounts[account] = self.accounts.get(account, 0) + counted
        self.addresses[address] = self.addresses.get(address, 0) + counted
        return counted

    def sizes(self) -> tuple[int, int]:
        """How many accounts and addresses."""
        return (
            len(self.accounts.keys() | self.old_accounts.keys()),
            len(self.addresses.keys() | self.old_addresses.keys()),
        )

    def is_wide(self, least: tuple[int, int]) -> bool:
        accounts, addresses = self.sizes()
        return accounts >= least[0] and addresses >= least[1]


@lru_cache(64)
def _shares(needed: int, accounts: int, addresses: int) -> tuple[int, int]:
    """The most that one account, and one address, may count for: so many accounts are enough if all count alike, also
    where all but one of so many addresses have a single one of them."""
    share = -(-needed // accounts)
    return share, share * max(accounts - addresses + 1, 1)


def _room(counted: dict[Any, int], before: dict[Any, int], key: object, share: int) -> int:
    if key not in counted and len(counted) >= SPREAD_MAX:
        return 0
    return share - counted.get(key, 0) - before.get(key, 0)


class _Numbers(Entry):
    """One number's counts over all processes."""

    __slots__ = ("before", "began_s", "failures", "failures_of", "now", "of")

    def __init__(self) -> None:
        # Not super().__init__(): a flood of made-up numbers makes two of these a call.
        self.used_s = self.began_s = 0.0
        self.hot = False
        self.of: _Spread | None = None  # where what is in `now` and `before` came from
        self.failures_of: _Spread | None = None
        self.now: NumberStats | None = None
        self.before: NumberStats | None = None
        self.failures: SlidingCounter | None = None

    def add(self, tally: NumberStats, mono_s: MonoS) -> NumberStats:
        """Adds, and gives all that is of the last one to two generations."""
        now = self.now
        if now is None or mono_s - self.began_s >= GENERATION_S:
            self.before = now if mono_s - self.began_s < 2 * GENERATION_S else None
            self.now, self.began_s = tally.copy(), mono_s
            now = self.now
        else:
            now.add(tally)
        if self.before is None:
            return now
        both = self.before.copy()
        both.add(now)
        return both


class _Account(Entry):
    """Countries that an account has called: since when, and how many calls it had made until then."""

    __slots__ = ("calls", "countries")

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.countries: dict[str, tuple[float, int]] = {}


class CallStats:
    """Every number's counts, over all processes that tell. Times are monotonic, but for those of what is listed."""

    def __init__(self, *, table_max: int = TABLE_MAX) -> None:
        self.targets: Table[_Numbers] = Table(_Numbers, capacity=table_max, ttl_s=TTL_S)
        # What one account did to one target: where it is out of line by itself, the number is listed for it alone.
        self.targets_of_one: Table[_Numbers] = Table(_Numbers, capacity=table_max, ttl_s=TTL_S)
        self.callers: Table[_Numbers] = Table(_Numbers, capacity=table_max, ttl_s=TTL_S)
        self.accounts: Table[_Account] = Table(_Account, capacity=ACCOUNTS_MAX, ttl_s=30 * TTL_S)

    @property
    def evicted(self) -> int:
        return self.targets.evicted + self.targets_of_one.evicted + self.callers.evicted + self.accounts.evicted

    def is_fresh(self, account_id: UUID, called: str, mono_s: MonoS) -> bool:
        """Whether a number is in a country that is new to an account whose calls we know."""
        account = self.accounts.peek(account_id.hex)
        if account is None or account.calls < LEARNT_CALLS or len(account.countries) >= COUNTRIES_MAX:
            return False
        known = account.countries.get(_country(called))
        return known is None or (known[1] >= LEARNT_CALLS and mono_s - known[0] < FRESH_S)

    def add(
        self, count: CallCount, dynamic: DynamicList, smart: SmartList, mono_s: MonoS, unix_s: UnixS
    ) -> list[Listed]:
        """Adds what a process counted; what is to be listed now (again and again, as long as it is out of line)."""
        key = count.key
        if key.calling:
            caller = self.callers.use(f"{key.account_id.hex} {key.number}", mono_s)
            evidence = judge(caller.add(count.tally, mono_s), smart) if smart.enabled and count.tally.calls else ""
            return [_listed(SMART, count, key.account_id, evidence, smart.listed, unix_s)] if evidence else []
        self._learn(key, count.tally.calls, mono_s)
        target = self.targets.use(f"{count.realm} {key.number}", mono_s)
        of_one = self.targets_of_one.use(f"{key.account_id.hex} {key.number}", mono_s)
        found: list[Listed] = []
        if dynamic.enabled:
            of_all, own = self._failing(count, target, of_one, dynamic, mono_s)
            if of_all or own:
                owner = None if of_all else key.account_id
                found.append(_listed(DYNAMIC, count, owner, of_all or own, dynamic.listed, unix_s))
        if smart.enabled and count.tally.calls:
            own = judge(of_one.add(count.tally, mono_s), smart)
            of_all = self._scored(count, target, smart, mono_s)
            if of_all or own:
                owner = None if of_all else key.account_id
                found.append(_listed(SMART, count, owner, of_all or own, smart.listed, unix_s))
        return found

    def _scored(self, count: CallCount, target: _Numbers, policy: SmartList, mono_s: MonoS) -> str:
        """What is out of line in the calls of all accounts together."""
        if target.of is None:
            target.of = _Spread(mono_s)
        least = policy.min_accounts, policy.min_addresses
        tally = count.tally
        calls = target.of.take(count.key, tally.calls, policy.min_calls, least, GENERATION_S, mono_s)
        evidence = judge(target.add(tally.part(calls), mono_s), policy)
        if not evidence or not target.of.is_wide(least):
            return ""
        return f"{evidence}, by {_count_of(target.of)}"

    def _failing(
        self, count: CallCount, target: _Numbers, of_one: _Numbers, policy: DynamicList, mono_s: MonoS
    ) -> tuple[str, str]:
        """What keeps failing: in the calls of all accounts together, and in those of this one."""
        weight = max(1, policy.failures // ATTACK_SHARE)
        amount = count.tally.failures + count.tally.attacks * weight
        if not amount:
            return "", ""
        least = policy.min_accounts, policy.min_addresses
        if target.failures_of is None:
            target.failures_of = _Spread(mono_s)
        counted = target.failures_of.take(count.key, amount, policy.failures + 1, least, policy.period, mono_s)
        window = _window(policy.period)
        total, own = (
            self._add_failures(table, entry, key, window, mono_s, more, policy.failures)
            for table, entry, key, more in (
                (self.targets, target, f"{count.realm} {count.key.number}", counted),
                (self.targets_of_one, of_one, f"{count.key.account_id.hex} {count.key.number}", amount),
            )
        )
        attack = f", a refused attempt of an attack counting {weight}" if count.tally.attacks else ""
        said = f"failed calls within {policy.period} s (limit {policy.failures}{attack})"
        is_of_all = total > policy.failures and target.failures_of.is_wide(least)
        return (
            f"{total} {said}, by {_count_of(target.failures_of)}" if is_of_all else "",
            f"{own} {said}" if own > policy.failures else "",
        )

    @staticmethod
    def _add_failures(
        table: Table[_Numbers], entry: _Numbers, key: str, window: WindowShape, mono_s: MonoS, amount: int, limit: int
    ) -> int:
        if entry.failures is None:
            entry.failures = SlidingCounter()
        total = entry.failures.add(window, mono_s, amount)
        if total > limit // 4:
            table.heat(key)
        return total

    def _learn(self, key: StatsKey, calls: int, mono_s: MonoS) -> None:
        account = self.accounts.use(key.account_id.hex, mono_s)
        country = _country(key.number)
        if country not in account.countries and len(account.countries) < COUNTRIES_MAX:
            account.countries[country] = (mono_s, account.calls)
        account.calls += calls

    def forget(self, listed: Listed) -> None:
        """The number isn't listed any more: its statistics restart."""
        if listed.account_id is None:
            self.targets.remove(f"{listed.realm} {listed.number}")
        else:
            table = self.targets_of_one if listed.side is ListSide.CALLED else self.callers
            table.remove(f"{listed.account_id.hex} {listed.number}")

    def expire(self, mono_s: MonoS) -> None:
        """Forgets numbers that were not called for long, a bounded number; call it often."""
        for table in (self.targets, self.targets_of_one, self.callers, self.accounts):
            table.expire(mono_s)


def _listed(name: str, count: CallCount, owner: UUID | None, evidence: str, listed_s: float, unix_s: UnixS) -> Listed:
    side = ListSide.CALLING if count.key.calling else ListSide.CALLED
    reason = "failing" if name == DYNAMIC else "statistics"
    return Listed(name, count.realm, side, count.key.number, owner, reason, evidence, unix_s, unix_s + listed_s)


def _count_of(spread: _Spread) -> str:
    accounts, addresses = spread.sizes()
    return f"{accounts} accounts from {addresses} addresses"


@lru_cache(64)  # one for each realm's policy; making one takes as long as counting
def _window(period_s: int) -> WindowShape:
    return WindowShape(period_s)


def judge(tally: NumberStats, policy: SmartList) -> str:
    """What is out of line, in words; "" while the number's score is below SCORE_LISTED.

    A statistic that is out of line gives a point, one that is far out two: a quarter of the least answered calls, half
    of the least average, half way from the most short calls to all of them. Many calls to countries that are new to
    the account give one.
    """
    if tally.calls < policy.min_calls:
        return ""
    points = 0
    said: list[str] = []
    least = policy.min_answered_percent
    if tally.answered * 100 < least * tally.calls:
        points += 2 if tally.answered * 400 <= least * tally.calls else 1
        said.append(f"{_percent(tally.answered, tally.calls)} % answered (at least {least} %)")
    # Averages of a few answered calls say nothing.
    if tally.answered * 10 >= policy.min_calls:
        average_s = tally.talk_ms / 1_000 / tally.answered
        if average_s < policy.min_average:
            points += 2 if average_s * 2 < policy.min_average else 1
            said.append(f"{average_s:.1f} s on average (at least {policy.min_average} s)")
        most = policy.max_short_percent
        if tally.short * 100 > most * tally.answered:
            points += 2 if tally.short * 200 > (most + 100) * tally.answered else 1
            said.append(f"{_percent(tally.short, tally.answered)} % shorter than {SHORT_S:g} s (at most {most} %)")
    if tally.fresh * 100 > FRESH_PERCENT * tally.calls:
        points += 1
        said.append(f"{_percent(tally.fresh, tally.calls)} % to countries new to the account")
    return f"of {tally.calls} calls {', '.join(said)}" if points >= SCORE_LISTED else ""


def _percent(part: int, whole: int) -> int:
    return part * 100 // whole


def _country(digits: str) -> str:
    """About the country: by the first digits, which name it but for a few islands that share another's code. Looking
    each number up takes 6 to 150 µs."""
    return _country_of_first(digits[:_COUNTRY_DIGITS])


_COUNTRY_DIGITS: Final = 4  # a country code, or +1 and the area code


@lru_cache(10**_COUNTRY_DIGITS)
def _country_of_first(digits: str) -> str:
    return country_of(digits.ljust(11, "2"))  # as long as numbers of +1 are, and one that they may be
