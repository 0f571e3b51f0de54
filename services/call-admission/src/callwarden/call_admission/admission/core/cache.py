"""Account states that the last batches left behind, so that the next batch on the same accounts needs no read.

In: which accounts and holds are cached, for how long, and when that suffices. Out: reading and writing (attempts,
ports.AdmissionStore). Cached data may be stale: a write based on it goes through only if the account's version is still
the same, and it never refuses anything (state.Changes.must_revalidate). So the cache saves a round trip for accounts
that call all the time, such as a wholesale trunk, and costs the others one look in a dictionary.

The version covers the account as it was read. A hold isn't read again with it, so it is cached with the version at
which it was true, and is used only if every change of the account since then was made by this process.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.admission.core.state import (
    AccountState,
    Changes,
    CounterKey,
    CounterRow,
    Loaded,
    ReadSet,
    ReferencedAccount,
)
from callwarden.call_admission.model.calls import Hold
from callwarden.kernel.clock import UnixS

ACCOUNTS_MAX: Final = 10_000  # 1.2 KB each
HOLDS_MAX: Final = 20_000  # 0.6 KB each
COUNTERS_MAX: Final = 4_096  # 1 KB each
REFERENCED_MAX: Final = 4_096  # 0.7 KB each
# A change without a new version (a top-up, or a statement typed by hand) is seen after this time at the latest in the
# numbers that explain an admission.
AGE_S_MAX: Final = 30.0


@dataclass(slots=True)
class _CachedAccount:
    """An account as its last batch in this process left it."""

    version: int
    since: int
    """From this version to `version` every change was made here: what was true of a hold then still is."""
    state: AccountState | None
    """None: has to be read."""
    at_s: float


class AccountCache:
    """Accounts and holds by key; the least recently used are dropped first."""

    def __init__(self, accounts_max: int = ACCOUNTS_MAX, holds_max: int = HOLDS_MAX) -> None:
        self._accounts: OrderedDict[UUID, _CachedAccount] = OrderedDict()
        self._holds: OrderedDict[UUID, tuple[Hold, int]] = OrderedDict()
        self._counters: OrderedDict[CounterKey, tuple[CounterRow, float]] = OrderedDict()
        self._referenced: OrderedDict[UUID, tuple[ReferencedAccount, float]] = OrderedDict()
        self._accounts_max = accounts_max
        self._holds_max = holds_max

    def __len__(self) -> int:
        return len(self._accounts)

    def checkout(self, read: ReadSet) -> Loaded | None:
        """What a read would return, if all of it is cached and can be relied on until it is written; else None.

        It leaves the cache: the transaction changes it in place, and only `put` after a successful write returns it.
        """
        if not read.accounts:
            return None
        unix_s = read.unix_s
        states: dict[UUID, AccountState] = {}
        for account_id in read.accounts:
            cached = self._accounts.get(account_id)
            state = cached.state if cached is not None else None
            if (
                cached is None
                or state is None
                or state.lines_until_s <= unix_s
                or not 0 <= unix_s - cached.at_s <= AGE_S_MAX
            ):
                return None
            states[account_id] = state
        parents = [state.account.parent for state in states.values() if state.account.parent is not None]
        referenced: dict[UUID, ReferencedAccount] = {}
        for account_id in (*parents, *read.referenced):
            known_other = self._referenced.get(account_id)
            if known_other is None or not 0 <= unix_s - known_other[1] <= AGE_S_MAX:
                return None
            referenced[account_id] = known_other[0]
        holds: dict[UUID, Hold] = {}
        for hold_id in read.holds:
            known = self._holds.get(hold_id)
            if known is None:
                continue
            hold, version = known
            cached = self._accounts.get(hold.account_id)
            if cached is None or version < cached.since:
                return None
            holds[hold_id] = hold
        for account_id in states:
            self._accounts[account_id].state = None
        for hold_id in holds:
            del self._holds[hold_id]
        return Loaded(states, holds, referenced=referenced)

    def checkout_counters(self, keys: Collection[CounterKey], unix_s: UnixS) -> dict[CounterKey, CounterRow]:
        """Those of the counters that are cached; they leave the cache likewise."""
        found: dict[CounterKey, CounterRow] = {}
        for key in keys:
            known = self._counters.pop(key, None)
            if known is not None and 0 <= unix_s - known[1] <= AGE_S_MAX:
                found[key] = known[0]
        return found

    def drop_counters(self, keys: Iterable[CounterKey]) -> None:
        """Drops counters that another process may have changed."""
        for key in keys:
            self._counters.pop(key, None)

    def put(self, read: ReadSet, loaded: Loaded, changes: Changes, *, is_whole: bool) -> None:
        """Stores what is true after a write that went through. `is_whole`: the accounts' lines are known."""
        for account_id in read.accounts:
            before = self._accounts.pop(account_id, None)
            state = loaded.accounts.get(account_id)
            if state is None:
                continue
            # Another process has changed the account, unless what was read is what this one left.
            since = before.since if before is not None and before.version == state.version else state.version
            if account_id in changes.versions:
                state.version += 1
            is_known = is_whole and account_id not in changes.must_revalidate
            self._accounts[account_id] = _CachedAccount(state.version, since, state if is_known else None, read.unix_s)
        for hold_id in read.holds:
            # After the batch `loaded.holds` are those that run; what the batch has settled is no longer among them.
            hold = loaded.holds.get(hold_id)
            cached = self._accounts.get(hold.account_id) if hold is not None else None
            if hold is None or cached is None or hold.account_id not in loaded.accounts:
                self._holds.pop(hold_id, None)
            else:
                self._holds[hold_id] = hold, cached.version
        for key, counter in changes.counters.items():
            counter.version += 1
            self._counters.pop(key, None)
            self._counters[key] = counter, read.unix_s
        for account_id, referenced in loaded.referenced.items():
            known_other = self._referenced.pop(account_id, None)
            if known_other is None or known_other[0] is not referenced:
                known_other = referenced, read.unix_s  # What came from the cache keeps its age.
            self._referenced[account_id] = known_other
        while len(self._counters) > COUNTERS_MAX:
            self._counters.popitem(last=False)
        while len(self._referenced) > REFERENCED_MAX:
            self._referenced.popitem(last=False)
        while len(self._accounts) > self._accounts_max:
            self._accounts.popitem(last=False)
        while len(self._holds) > self._holds_max:
            self._holds.popitem(last=False)
