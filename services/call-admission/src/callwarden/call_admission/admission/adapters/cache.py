"""What the last batches left behind, so that the next one on the same accounts needn't read.

In: which accounts and holds are remembered, for how long, and when that is enough. Out: reading and writing
(store_sql). What is remembered may be out of date: a write on it goes through only if the account's version is still
the same, and a no is never given on it (core.book.Changes.doubtful). So memory saves a round trip for accounts that
call all the time, a wholesale trunk or a benchmark, and costs a look in a dictionary for others.

The version speaks for the account as it was read. A hold isn't read again with it, so it is remembered with the version
at which it was true, and relied on only if every change of the account since then has been ours.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.admission.core.book import (
    AccountState,
    Changes,
    CounterKey,
    CounterRow,
    Loaded,
    ReferencedAccount,
)
from callwarden.call_admission.admission.ports import ReadSet
from callwarden.call_admission.model.calls import Hold

ACCOUNTS_MAX: Final = 10_000  # 1.2 KB each
HOLDS_MAX: Final = 20_000  # 0.6 KB each
COUNTERS_MAX: Final = 4_096  # 1 KB each
SEEN_MAX: Final = 4_096  # 0.7 KB each
# What changes without a new version (a top-up, or somebody's hand in the database) is seen after this at the latest in
# what a yes is explained by.
AGE_S_MAX: Final = 30.0


@dataclass(slots=True)
class _CachedAccount:
    """An account as of its last batch here."""

    version: int
    since: int
    """From this version to `version` every change was made here: what was true of a hold then still is."""
    standing: AccountState | None
    """None: to be read."""
    at_s: float


class AccountCache:
    """Accounts and holds by key, the longest unused forgotten first."""

    def __init__(self, accounts_max: int = ACCOUNTS_MAX, holds_max: int = HOLDS_MAX) -> None:
        self._accounts: OrderedDict[UUID, _CachedAccount] = OrderedDict()
        self._holds: OrderedDict[UUID, tuple[Hold, int]] = OrderedDict()
        self._counters: OrderedDict[CounterKey, tuple[CounterRow, float]] = OrderedDict()
        self._seen: OrderedDict[UUID, tuple[ReferencedAccount, float]] = OrderedDict()
        self._accounts_max = accounts_max
        self._holds_max = holds_max

    def __len__(self) -> int:
        return len(self._accounts)

    def take(self, read: ReadSet) -> Loaded | None:
        """What would be read, if all of it is remembered and can be relied on until it is written; else None.

        What is taken is gone: the book changes it in place, and only a write that went through makes it true again.
        """
        if not read.accounts:
            return None
        now_s = read.now_s
        standings: dict[UUID, AccountState] = {}
        for account_id in read.accounts:
            seen = self._accounts.get(account_id)
            standing = seen.standing if seen is not None else None
            if (
                seen is None
                or standing is None
                or standing.lines_until_s <= now_s
                or not 0 <= now_s - seen.at_s <= AGE_S_MAX
            ):
                return None
            standings[account_id] = standing
        looked = [standing.account.parent for standing in standings.values() if standing.account.parent is not None]
        others: dict[UUID, ReferencedAccount] = {}
        for account_id in (*looked, *read.looked):
            known_other = self._seen.get(account_id)
            if known_other is None or not 0 <= now_s - known_other[1] <= AGE_S_MAX:
                return None
            others[account_id] = known_other[0]
        holds: dict[UUID, Hold] = {}
        for hold_id in read.holds:
            known = self._holds.get(hold_id)
            if known is None:
                continue
            hold, version = known
            seen = self._accounts.get(hold.account_id)
            if seen is None or version < seen.since:
                return None
            holds[hold_id] = hold
        for account_id in standings:
            self._accounts[account_id].standing = None
        for hold_id in holds:
            del self._holds[hold_id]
        return Loaded(standings, holds, seen=others)

    def counters(self, keys: Collection[CounterKey], now_s: float) -> dict[CounterKey, CounterRow]:
        """Those of the counters that are remembered; likewise, they are gone."""
        found: dict[CounterKey, CounterRow] = {}
        for key in keys:
            known = self._counters.pop(key, None)
            if known is not None and 0 <= now_s - known[1] <= AGE_S_MAX:
                found[key] = known[0]
        return found

    def forget(self, keys: Iterable[CounterKey]) -> None:
        """Counters that somebody else may have moved."""
        for key in keys:
            self._counters.pop(key, None)

    def keep(self, read: ReadSet, loaded: Loaded, changes: Changes, *, is_whole: bool) -> None:
        """After a write that went through: what is true now. `is_whole`: lines and days of the accounts are known."""
        for account_id in read.accounts:
            before = self._accounts.pop(account_id, None)
            standing = loaded.standings.get(account_id)
            if standing is None:
                continue
            # Somebody else has been here, unless what was read is what we left.
            since = before.since if before is not None and before.version == standing.version else standing.version
            if account_id in changes.versions:
                standing.version += 1
            is_known = is_whole and account_id not in changes.doubtful
            self._accounts[account_id] = _CachedAccount(
                standing.version, since, standing if is_known else None, read.now_s
            )
        for hold_id in read.holds:
            # After the batch the book's holds are those that run; what was settled in it is no longer among them.
            hold = loaded.holds.get(hold_id)
            seen = self._accounts.get(hold.account_id) if hold is not None else None
            if hold is None or seen is None or hold.account_id not in loaded.standings:
                self._holds.pop(hold_id, None)
            else:
                self._holds[hold_id] = hold, seen.version
        for key, counter in changes.counters.items():
            counter.version += 1
            self._counters.pop(key, None)
            self._counters[key] = counter, read.now_s
        for account_id, seen_other in loaded.seen.items():
            known_other = self._seen.pop(account_id, None)
            # What was remembered stays as old as it is.
            is_same = known_other is not None and known_other[0] is seen_other
            self._seen[account_id] = known_other if known_other is not None and is_same else (seen_other, read.now_s)
        while len(self._counters) > COUNTERS_MAX:
            self._counters.popitem(last=False)
        while len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        while len(self._accounts) > self._accounts_max:
            self._accounts.popitem(last=False)
        while len(self._holds) > self._holds_max:
            self._holds.popitem(last=False)
