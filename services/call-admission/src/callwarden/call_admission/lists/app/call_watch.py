"""Watching how calls end: numbers that keep failing or fall out of line are listed for a time.

Every process counts the calls that it settles itself and publishes the counts once a second; so each process has the
counts of all, and the first that sees a number out of line lists it (the store takes the first). No process owns a
number, and a process that dies takes one second of its counts with it (docs/decisions/0006).

In: the order of things. Out: what is counted and judged (core.call_stats), how it travels (adapters).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from callwarden.call_admission.lists.core.call_stats import CallCount, CallStats, Pending
from callwarden.call_admission.lists.ports import CountPublisher, ListedStore, ListStore
from callwarden.call_admission.model.lists import DYNAMIC, SMART, Listed, ListKind, digits_of
from callwarden.call_admission.model.sources import ListSource, PolicySource
from callwarden.common.logs import get_logger
from callwarden.common.pace import Pace, pieces
from callwarden.kernel.clock import Clock, UnixS
from callwarden.kernel.errors import CallwardenError
from callwarden.kernel.verdict import Reason
from callwarden.limits.networks import source_of

log = get_logger(__name__)

PUBLISH_EVERY_S: Final = 1.0  # A number is listed at most about so long after the call that was one too many.
REALMS_MAX: Final = 100_000  # accounts whose realm is remembered: 150 bytes each
REALMS_ASKED_MAX: Final = 1_000  # at once
ADD_AT_ONCE: Final = 250  # counts added before calls get their turn: 1 ms
ADD_SHARE: Final = 0.5  # of the time, while there are more: 120,000 a second
# Refusals that mean that an attack is under way.
ATTACKS: Final = frozenset({Reason.VELOCITY, Reason.BASELINE})
# Ends that are ours: how long such a call lasted, and how it ended, says nothing about its numbers.
_OURS: Final = ("cut-", "edge-")
_LISTS: Final = (DYNAMIC, SMART)


class CallWatchStats:
    """What happened, for the metrics."""

    __slots__ = ("listed", "not_listed")

    def __init__(self) -> None:
        self.listed: dict[str, int] = {}
        """By list."""
        self.not_listed = 0


class CallWatch:
    """One process's view of how calls end. `run` has to run for anything to be published or listed."""

    def __init__(
        self,
        store: ListStore,
        news: CountPublisher,
        listed: ListedStore,
        lists: ListSource,
        policies: PolicySource,
        clock: Clock,
    ) -> None:
        self._store = store
        self._news = news
        self._listed = listed
        self._lists = lists
        self._policies = policies
        self._clock = clock
        self._pace = Pace(clock, ADD_SHARE)
        self._realms: OrderedDict[UUID, str] = OrderedDict()
        self.pending = Pending()
        self.stats = CallStats()
        self.counts = CallWatchStats()

    # ------------------------------------------------------------------ what the process itself sees; never waits

    def ended(
        self,
        account_id: UUID,
        destination: str,
        caller_number: str,
        talk_s: float | None,
        sip_status: int,
        reason: str,
        *,
        local: bool,
        source: str = "",
    ) -> None:
        """A call from an address that was settled just now. `talk_s` None: not answered. Local calls count for their
        caller only."""
        if reason.startswith(_OURS):
            return
        called = "" if local else digits_of(destination)
        calling = digits_of(caller_number)
        fresh = bool(called) and self.stats.is_fresh(account_id, called, self._clock.mono_s())
        self.pending.ended(account_id, called, calling, talk_s, sip_status, fresh=fresh, source=source_of(source))

    def refused(self, account_id: UUID, destination: str, reason: Reason, *, local: bool, source: str = "") -> None:
        """A call from an address that was refused just now."""
        if reason in ATTACKS and not local:
            called = digits_of(destination)
            if called:
                self.pending.attacked(account_id, called, source_of(source))

    # ------------------------------------------------------------------ telling, adding, listing

    async def run(self) -> None:
        """Publishes what was counted, every PUBLISH_EVERY_S. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(PUBLISH_EVERY_S)
            try:
                await self.publish()
            except CallwardenError as error:  # What was counted waits, bounded, for the next time.
                log.warning("call_watch.not_published", error=error, waiting=len(self.pending))
            self.stats.expire(self._clock.mono_s())

    async def publish(self) -> None:
        """Publishes what was counted here since the last time, and adds it. Raises Unavailable; then nothing
        was told."""
        if not len(self.pending):
            return
        await self._know_realms(self.pending.accounts())
        counts = self.pending.take(self._realms)
        await self._news.counted(counts)
        await self.add(counts)

    async def add(self, counts: Sequence[CallCount]) -> None:
        """Adds what a process counted, and lists who is out of line."""
        async for piece in self._pace.over(pieces(counts, ADD_AT_ONCE)):
            mono_s, unix_s = self._clock.mono_s(), self._clock.unix_s()
            for count in piece:
                policy = self._policies.for_realm(count.realm)
                for listed in self.stats.add(count, policy.dynamic_list, policy.smart_list, mono_s, unix_s):
                    await self._list(listed, policy.lists)

    def gone(self, listed: Listed) -> None:
        """A number isn't listed any more: its time is over, or an operator lifted it."""
        self.stats.forget(listed)

    async def _list(self, listed: Listed, names: Iterable[str]) -> None:
        lists = self._lists.current
        allowed = lists.find(names, listed.number, listed.side)
        if allowed is not None and allowed.kind is ListKind.ALLOW:
            return
        since_s = UnixS(listed.since_s)
        if lists.listings.holds(listed, _LISTS, since_s):
            return
        try:
            is_new = await self._listed.put(listed)
        except CallwardenError as error:  # It is still out of line with its next call, and tried again then.
            self.counts.not_listed += 1
            log.warning("call_watch.not_listed", error=error, list=listed.list)
            return
        if is_new:
            lists.listings.put(listed)
            self.counts.listed[listed.list] = self.counts.listed.get(listed.list, 0) + 1
            log.info("number.listed", list=listed.list, side=listed.side.value, evidence=listed.evidence)

    async def _know_realms(self, accounts: set[UUID]) -> None:
        """Raises Unavailable."""
        unknown = sorted(account for account in accounts if account not in self._realms)
        for start in range(0, len(unknown), REALMS_ASKED_MAX):
            self._realms.update(await self._store.realms(unknown[start : start + REALMS_ASKED_MAX]))
        for account in accounts & self._realms.keys():
            self._realms.move_to_end(account)
        # Those of this moment stay, whatever their number: at most PENDING_MAX.
        while len(self._realms) > max(REALMS_MAX, len(accounts)):
            self._realms.popitem(last=False)
