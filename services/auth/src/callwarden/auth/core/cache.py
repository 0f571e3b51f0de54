"""Keeps credentials in memory for a while. `app` looks them up.

Users that exist and users that don't are kept apart, so that guessing names can't evict real users.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from callwarden.auth.core.users import AuthAccount, Ha1s, UserKey
from callwarden.kernel.clock import MonoS

KNOWN_MAX: Final = 50_000  # Of 700 bytes each: 35 MB.
ABSENT_MAX: Final = 10_000
KNOWN_TTL_S: Final = 300  # A backstop: changes arrive as events.
ABSENT_TTL_S: Final = 30  # New users arrive as events, too.


@dataclass(frozen=True, slots=True)
class CachedCredential:
    """The result of a look-up, of one shape whether or not the user exists. If not, `account` is None and the HA1
    values are random, so that checking an answer takes the same work, and fails."""

    ha1s: Ha1s = field(repr=False)
    account: AuthAccount | None
    expires_s: float


class CredentialCache:
    """A bounded LRU cache whose entries expire."""

    __slots__ = ("_absent", "_absent_max", "_by_account", "_known", "_known_max", "evicted")  # Mutable: a cache.

    def __init__(self, known_max: int = KNOWN_MAX, absent_max: int = ABSENT_MAX) -> None:
        self._known: OrderedDict[UserKey, CachedCredential] = OrderedDict()
        self._absent: OrderedDict[UserKey, CachedCredential] = OrderedDict()
        self._by_account: dict[str, set[UserKey]] = {}
        self._known_max = known_max
        self._absent_max = absent_max
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._known) + len(self._absent)

    def get(self, user: UserKey, mono_s: MonoS) -> CachedCredential | None:
        """The user's entry, unless it is missing or has expired."""
        # Look into both in either case: the same work whether or not the user exists.
        known = self._known.get(user)
        absent = self._absent.get(user)
        found = known if known is not None else absent
        if found is None or mono_s >= found.expires_s:
            return None
        (self._known if known is not None else self._absent).move_to_end(user)
        return found

    def put(self, user: UserKey, known: CachedCredential) -> None:
        """Stores the result of a look-up."""
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
        """Forgets a user, existing or not."""
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
