"""Credentials in memory: what was looked up, for a while. Who looks up is in `app`.

Users that exist and users that don't are kept apart, so that guessing names can't push out those who are at home here.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from callwarden.auth.core.users import Account, Ha1s, UserKey

KNOWN_MAX: Final = 50_000  # Of 700 bytes each: 35 MB.
ABSENT_MAX: Final = 10_000
KNOWN_TTL_S: Final = 300  # A backstop: what changes is told by an event.
ABSENT_TTL_S: Final = 30  # A new user is told by an event, too.


@dataclass(frozen=True, slots=True)
class Known:
    """What was looked up: one shape whether there is such a user or not. Without one, `account` is None and the HA1
    are random, so that an answer is checked with the same work, and fails."""

    ha1s: Ha1s = field(repr=False)
    account: Account | None
    expires_s: float


class Cache:
    """Bounded, least recently used goes first, each entry for its time only. Times are monotonic seconds."""

    __slots__ = ("_absent", "_absent_max", "_by_account", "_known", "_known_max", "evicted")  # Mutable: it's a cache.

    def __init__(self, known_max: int = KNOWN_MAX, absent_max: int = ABSENT_MAX) -> None:
        self._known: OrderedDict[UserKey, Known] = OrderedDict()
        self._absent: OrderedDict[UserKey, Known] = OrderedDict()
        self._by_account: dict[str, set[UserKey]] = {}
        self._known_max = known_max
        self._absent_max = absent_max
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._known) + len(self._absent)

    def get(self, user: UserKey, now_s: float) -> Known | None:
        """What is known of the user, if it is and its time isn't over."""
        # Both are asked in either case: the same work whether the user exists or not.
        known = self._known.get(user)
        absent = self._absent.get(user)
        found = known if known is not None else absent
        if found is None or now_s >= found.expires_s:
            return None
        (self._known if known is not None else self._absent).move_to_end(user)
        return found

    def put(self, user: UserKey, known: Known) -> None:
        """Keeps what was looked up."""
        self.forget_user(user)
        if known.account is None:
            self._absent[user] = known
            if len(self._absent) > self._absent_max:
                self._absent.popitem(last=False)
                self.evicted += 1
            return
        self._known[user] = known
        self._by_account.setdefault(known.account.id, set()).add(user)
        if len(self._known) > self._known_max:
            self.forget_user(next(iter(self._known)))
            self.evicted += 1

    def forget_user(self, user: UserKey) -> None:
        """Forgets one user, or that there is none."""
        self._absent.pop(user, None)
        known = self._known.pop(user, None)
        if known is not None and known.account is not None:
            users = self._by_account[known.account.id]
            users.discard(user)
            if not users:
                del self._by_account[known.account.id]

    def forget_account(self, account_id: str) -> None:
        """Forgets all users of an account."""
        for user in list(self._by_account.get(account_id, ())):
            self.forget_user(user)

    def clear(self) -> None:
        """Forgets everything."""
        self._known.clear()
        self._absent.clear()
        self._by_account.clear()
