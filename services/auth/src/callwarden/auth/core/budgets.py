"""How often a user's password may be guessed from addresses that the user was never at (policy: authFailures.perUser).

An attacker who tries from address after address stays below every address's limit. So failures are counted for the user
too, but only those from unknown addresses, and only these are slowed: whoever attacks can't lock the owner out of where
he is at home. A user who doesn't exist is counted alike.

In: failures and successes of one process, which all of a user's verifications reach while it lives (rendezvous by user
name). Out: what is answered (app), which addresses the edge knows of.
"""

from collections import OrderedDict
from typing import Final

from callwarden.auth.core.users import UserKey
from callwarden.kernel.clock import MonoS
from callwarden.limits.networks import source_of
from callwarden.limits.table import Entry, Table
from callwarden.limits.windows import SlidingCounter, WindowShape

USERS_MAX: Final = 50_000  # As many as credentials are kept; 0.5 KB each.
FAILING_MAX: Final = 50_000  # An attacker invents names without end; those that fail most are kept.
SOURCES_MAX: Final = 16  # Of one user: phones at home, at work, on the way. The one not used for longest is forgotten.
TTL_S: Final = 86_400.0


class _Failures(Entry):
    __slots__ = ("counter",)

    def __init__(self) -> None:
        super().__init__()
        self.counter = SlidingCounter()


class UserBudgets:
    """Mutable: where each user was seen, and the failures from elsewhere. 1 µs for a known address."""

    __slots__ = ("_failures", "_known")

    def __init__(self) -> None:
        self._known: OrderedDict[UserKey, dict[str, None]] = OrderedDict()
        self._failures: Table[_Failures] = Table(_Failures, capacity=FAILING_MAX, ttl_s=TTL_S)

    def is_known(self, user: UserKey, source: str) -> bool:
        """Whether this user has authenticated from there."""
        sources = self._known.get(user)
        return sources is not None and source_of(source) in sources

    def succeeded(self, user: UserKey, source: str) -> None:
        """The user is at home there from now on."""
        sources = self._known.get(user)
        if sources is None:
            sources = self._known[user] = {}
            if len(self._known) > USERS_MAX:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(user)
        place = source_of(source)
        sources.pop(place, None)
        sources[place] = None
        if len(sources) > SOURCES_MAX:
            del sources[next(iter(sources))]

    def failed(self, user: UserKey, window: WindowShape, mono_s: MonoS) -> None:
        """Wrong credentials from an address that is unknown for this user."""
        key = _text(user)
        self._failures.use(key, mono_s).counter.add(window, mono_s)
        self._failures.heat(key)

    def is_spent(self, user: UserKey, window: WindowShape, failures_max: int, mono_s: MonoS) -> bool:
        """Whether no more is accepted from unknown addresses now."""
        entry = self._failures.peek(_text(user))
        return entry is not None and entry.counter.count(window, mono_s) >= failures_max

    def expire(self, mono_s: MonoS) -> None:
        self._failures.expire(mono_s)


def _text(user: UserKey) -> str:
    return f"{user.realm}\0{user.username}"
