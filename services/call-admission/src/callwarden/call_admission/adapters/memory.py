"""What the last batches left behind, so that the next one on the same accounts needn't read.

In: which accounts and holds are remembered, for how long, and when that is enough. Out: reading and writing
(books_sql). What is remembered may be out of date: a write on it goes through only if the account's version is still
the same, and a no is never given on it (callwarden.call_admission.core.book.Changes.doubtful). So memory saves a round
trip for accounts that call all the time, a wholesale trunk or a benchmark, and costs a look in a dictionary for others.
"""

from collections import OrderedDict
from typing import Final
from uuid import UUID

from callwarden.call_admission.core.book import Changes, Loaded, Standing
from callwarden.call_admission.core.calls import Hold
from callwarden.call_admission.ports import Read

ACCOUNTS_MAX: Final = 10_000  # 1.2 KB each
HOLDS_MAX: Final = 20_000  # 0.6 KB each
# What changes without a new version (a top-up, or somebody's hand in the database) is seen after this at the latest in
# what a yes is explained by.
AGE_S_MAX: Final = 30.0


class Memory:
    """Accounts and holds by key, the longest unused forgotten first."""

    def __init__(self, accounts_max: int = ACCOUNTS_MAX, holds_max: int = HOLDS_MAX) -> None:
        self._standings: OrderedDict[UUID, tuple[Standing, float]] = OrderedDict()
        self._holds: OrderedDict[UUID, Hold] = OrderedDict()
        self._accounts_max = accounts_max
        self._holds_max = holds_max

    def __len__(self) -> int:
        return len(self._standings)

    def take(self, read: Read) -> Loaded | None:
        """What would be read, if all of it is remembered and can be relied on until it is written; else None.

        What is taken is gone: the book changes it in place, and only a write that went through makes it true again.
        """
        if not read.accounts:
            return None
        now_s = read.now_s
        for account_id in read.accounts:
            found = self._standings.get(account_id)
            if found is None or found[0].lines_until_s <= now_s or not 0 <= now_s - found[1] <= AGE_S_MAX:
                return None
        standings = {account_id: self._standings.pop(account_id)[0] for account_id in read.accounts}
        holds = {hold_id: hold for hold_id in read.holds if (hold := self._holds.pop(hold_id, None)) is not None}
        return Loaded(standings, holds)

    def keep(self, read: Read, loaded: Loaded, changes: Changes, *, is_whole: bool) -> None:
        """After a write that went through: what is true now. `is_whole`: lines and days of the accounts are known."""
        for account_id in read.accounts:
            self._standings.pop(account_id, None)
            standing = loaded.standings.get(account_id)
            if not is_whole or standing is None or account_id in changes.doubtful:
                continue
            if account_id in changes.versions:
                standing.version += 1
            self._standings[account_id] = standing, read.now_s
        for hold_id in read.holds:
            # After the batch the book's holds are those that run; what was settled in it is no longer among them.
            hold = loaded.holds.get(hold_id)
            if hold is None:
                self._holds.pop(hold_id, None)
            else:
                self._holds[hold_id] = hold
        while len(self._standings) > self._accounts_max:
            self._standings.popitem(last=False)
        while len(self._holds) > self._holds_max:
            self._holds.popitem(last=False)
