"""Which addresses may be trunks': auth's recent answers, so that a stranger's INVITE causes no question.

In: the memory of answers, and a bound on questions. Out: who the trunk is (auth is asked each time it calls).
"""

from enum import Enum
from typing import TypeVar

from callwarden.kernel.clock import MonoS
from callwarden.limits.bucket import Rate, TokenBucket
from callwarden.limits.networks import source_of
from callwarden.sip.address import SocketAddress
from callwarden.sip.message import Request

T = TypeVar("T")
Waiting = tuple[Request, SocketAddress]

STRANGERS_MAX = 16  # Of one IPv6 /64 in UNKNOWN_S: whoever has one address of it mostly has all.
UNKNOWN_S = 10.0  # A new trunk may call that long after it was made known; an event forgets sooner.
KNOWN_MAX = 20_000  # Addresses; spoofed ones push each other out.
NAMES_MAX = 16  # Trunks of one address.
WAITING_MAX = 2_000  # INVITEs of 3 KB that wait a millisecond; more are challenged at once.
_NOBODY = (0.0, 0)
# Questions about unknown addresses: a flood of spoofed ones must not reach auth.
QUESTIONS = Rate(per_second=100, burst=200)


class SourceStep(Enum):
    """What to do with an INVITE whose sender may be a trunk."""

    ASK = "ask"
    WAIT = "wait"  # the question is under way
    REFUSE = "refuse"  # too many questions: take it for a stranger's


class Sources:
    """Mutable: a cache."""

    __slots__ = ("_asked", "_bucket", "_crowds", "_strangers", "_trunks", "_waiting")

    def __init__(self) -> None:
        self._trunks: dict[str, tuple[str, ...]] = {}  # address → names, as tech prefixes tell several apart
        self._strangers: dict[str, float] = {}  # address → when to ask again
        self._crowds: dict[str, tuple[float, int]] = {}  # IPv6 /64 → strangers there, counted until then
        self._asked: dict[str, list[Waiting]] = {}
        self._waiting = 0
        self._bucket = TokenBucket()

    def may_ask(self, host: str, mono_s: MonoS) -> bool:
        """Whether an INVITE without credentials from there may be a trunk's."""
        if host in self._trunks:
            return True
        if self._strangers.get(host, 0.0) > mono_s:
            return False
        until_s, strangers = self._crowds.get(source_of(host), _NOBODY) if ":" in host else _NOBODY
        return strangers < STRANGERS_MAX or until_s <= mono_s

    def is_trunk(self, host: str) -> bool:
        """Whether auth has said that a trunk sends from there."""
        return host in self._trunks

    def is_of(self, host: str, trunk: str) -> bool:
        """Whether auth has said that this trunk sends from there."""
        return trunk in self._trunks.get(host, ())

    def may_ask_once(self, host: str, mono_s: MonoS) -> bool:
        """Whether to ask about this address now, within the bound for unknown ones; then tell `learn` the answer."""
        return self.may_ask(host, mono_s) and not self._bucket.take(QUESTIONS, mono_s)

    def learn(self, host: str, trunk: str, mono_s: MonoS) -> None:
        """auth's answer: the trunk that sends from there; empty: none."""
        if not trunk:
            self._trunks.pop(host, None)
            _keep(self._strangers, host, mono_s + UNKNOWN_S)
            if ":" in host:
                place = source_of(host)
                until_s, strangers = self._crowds.get(place, _NOBODY)
                if until_s <= mono_s:
                    until_s, strangers = mono_s + UNKNOWN_S, 0
                _keep(self._crowds, place, (until_s, strangers + 1))
            return
        self._strangers.pop(host, None)
        names = self._trunks.get(host, ())
        if trunk not in names:
            _keep(self._trunks, host, (trunk, *names[: NAMES_MAX - 1]))

    def begin(self, host: str, waiting: Waiting, mono_s: MonoS) -> SourceStep:
        """About to ask for this INVITE."""
        if host in self._trunks:
            return SourceStep.ASK  # each call of a trunk is asked about by itself: its tech prefix decides the account
        asked = self._asked.get(host)
        if asked is not None:
            if self._waiting >= WAITING_MAX:
                return SourceStep.REFUSE
            self._waiting += 1
            asked.append(waiting)
            return SourceStep.WAIT
        if self._bucket.take(QUESTIONS, mono_s):
            return SourceStep.REFUSE
        self._asked[host] = []
        return SourceStep.ASK

    def end(self, host: str, trunk: str | None, mono_s: MonoS) -> list[Waiting]:
        """auth's answer as in `learn`, None: there was none. Returns the INVITEs that waited for it."""
        waiting = self._asked.pop(host, [])
        self._waiting -= len(waiting)
        if trunk is not None:
            self.learn(host, trunk, mono_s)
        return waiting

    def forget(self) -> None:
        """Trunks have changed."""
        self._trunks = {}
        self._strangers = {}
        self._crowds = {}


def _keep(cache: dict[str, T], host: str, value: T) -> None:
    if host not in cache and len(cache) >= KNOWN_MAX:
        del cache[next(iter(cache))]
    cache[host] = value
