"""Counting what edges report, and banning. Wire types are in `adapters`."""

import asyncio
from collections.abc import Iterable
from typing import Final

from callwarden.common.logs import get_logger
from callwarden.common.pace import Pace, pieces
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Exhausted
from callwarden.limits.rendezvous import ShardMap, shard_of
from callwarden.rate_guard.core import bans as core_bans
from callwarden.rate_guard.core import snapshot
from callwarden.rate_guard.core.addresses import address_of, endpoint, host_of, parse_target
from callwarden.rate_guard.core.bans import Ban
from callwarden.rate_guard.core.counters import AddressCounters, AddressReport
from callwarden.rate_guard.core.duplicates import ReportWindow
from callwarden.rate_guard.core.limits import AddressLimits
from callwarden.rate_guard.core.snapshot import BadSnapshot
from callwarden.rate_guard.ports import BanEventPublisher, BanStore, SnapshotStore

log = get_logger(__name__)

CHECKS_AT_ONCE: Final = 500  # 3 µs each and 0.2 more for each network that the policy allows
CHECKS_SHARE: Final = 0.25  # Of the time, while a policy change is compared with all bans.
BANS_MAX: Final = 100_000  # 60 MB here, 250 bytes each in NATS. Block a bigger botnet in the network.
WRITES_AT_ONCE: Final = 64
RETRY_S: Final = 0.5
EXPIRE_EVERY_S: Final = 1.0
# A member that dies loses up to 5 s of counts. With 20,000 hot addresses a snapshot takes 40 ms a second of CPU.
SAVE_EVERY_S: Final = 5.0


class RateGuardStats:
    """What happened, for the metrics."""

    __slots__ = ("banned", "duplicates", "not_owned", "reports", "spared")

    def __init__(self) -> None:
        self.reports = self.duplicates = self.not_owned = 0
        self.banned: dict[str, int] = {}  # By reason: a few words of ours.
        self.spared = 0


class RateGuard:
    """The counters of the shards that this process owns, and all bans. `me`: its name among the members."""

    def __init__(
        self,
        me: str,
        bans: BanStore,
        events: BanEventPublisher,
        snapshots: SnapshotStore,
        clock: Clock,
        counters: AddressCounters,
    ) -> None:
        self._me = me
        self._snapshot_store = snapshots
        self._ban_store = bans
        self._events = events
        self._clock = clock
        self._pace = Pace(clock, CHECKS_SHARE)
        self.counters = counters
        self._members = ShardMap(())
        self._reports = ReportWindow()
        self._owned: frozenset[int] = frozenset()
        self._changed: set[str] = set()  # Hot addresses since the last snapshot.
        self._to_save: set[int] = set()
        self._to_load: set[int] = set()
        self._gained = asyncio.Event()
        # As the store has them (by its watch), and our own from the moment we decide them.
        self._bans: dict[str, Ban] = {}
        self._banned_endpoints: dict[str, int] = {}  # Number of banned endpoints by address.
        self._to_write: dict[str, Ban] = {}
        self._to_lift: set[str] = set()
        self._is_policy_new = False
        self._wake = asyncio.Event()
        self._changing = asyncio.Lock()  # Or a ban that is being written would outlive its removal.
        self.stats = RateGuardStats()

    @property
    def members(self) -> tuple[str, ...]:
        return self._members.members

    @property
    def bans(self) -> list[Ban]:
        """Those in force now, oldest first."""
        unix_s = self._clock.unix_s()
        return sorted((ban for ban in self._bans.values() if ban.is_active_at(unix_s)), key=lambda ban: ban.since_s)

    @property
    def ban_count(self) -> int:
        return len(self._bans)

    # Counting.

    def count(self, edge: str, sequence: int, reports: list[AddressReport]) -> list[str]:
        """Adds what an edge reports, once however often it is delivered. Returns the addresses that another member
        owns: they were not counted. Never waits: bans are written in the background."""
        is_new = self._reports.is_new(edge, sequence)
        self.stats.reports += 1
        self.stats.duplicates += not is_new
        not_owned = []
        # If we are alone, or not a member yet, the edge has nobody else to report to.
        shared = self._members if len(self._members.members) > 1 else None
        mono_s = self._clock.mono_s()
        is_hot = self.counters.addresses.is_hot
        for report in reports:
            address = report.address
            if shared is not None and shared.owner_of(address) != self._me:
                not_owned.append(address)
                continue
            if ":" in address:
                address = self._widen(report)
            if is_new and address not in self._bans:
                if address in self._banned_endpoints:
                    report.endpoints = [
                        e for e in report.endpoints if endpoint(e.host or address, e.port) not in self._bans
                    ]
                for excess in self.counters.count(report, mono_s):
                    self._ban(core_bans.for_excess(
                        excess, self.counters.limits.ban_s, self.counters.limits.never, self._clock.unix_s()
                    ), excess.target)  # fmt: skip
                if is_hot(address):
                    self._changed.add(address)
        self.stats.not_owned += len(not_owned)
        return not_owned

    @staticmethod
    def _widen(report: AddressReport) -> str:
        """Of IPv6 the /64 is counted, also where an older edge reports an address."""
        place = address_of(report.address)
        if place != report.address:
            for each in report.endpoints:
                each.host = each.host or report.address
            report.address = place
        return place

    def apply(self, limits: AddressLimits) -> None:
        """Another policy. `write_bans` lifts the bans of addresses that it allows."""
        self.counters.apply(limits)
        self._is_policy_new = True
        self._wake.set()

    def set_members(self, members: Iterable[str]) -> None:
        """Sets the members that share the counting. Shards we no longer own are dropped, shards we gain are loaded."""
        changed = ShardMap(members)
        if changed == self._members:
            return
        self._members = changed
        if self._me not in changed.members:
            # We are not a member yet, or our heartbeat is late: the counters are ours again in a moment.
            log.info("members.changed", members=changed.members, shards=0)
            return
        owned = changed.shards_of(self._me)
        gained, self._owned = owned - self._owned, owned
        log.info("members.changed", members=changed.members, shards=len(owned), gained=len(gained))
        snapshot.drop(self.counters, owned)
        self._to_load = (self._to_load | gained) & owned
        self._to_save &= owned
        if self._to_load:
            self._gained.set()

    # Bans by hand.

    async def add_ban(self, target: str, reason: str, duration_s: int) -> Ban:
        """Bans an address or endpoint; 0 seconds: until it is lifted. Raises Invalid, Exhausted, Unavailable."""
        target = parse_target(target)
        ban = core_bans.by_operator(target, reason, duration_s, self.counters.limits.never, self._clock.unix_s())
        if target not in self._bans and len(self._bans) >= BANS_MAX:
            raise Exhausted(f"there are {BANS_MAX} bans already; ban networks by the policy's spec.firewall.deny")
        async with self._changing:
            self._to_write.pop(target, None)  # An operator's ban takes precedence.
            await self._ban_store.put(ban)
            self.ban_stored(ban)
        self._events.banned(ban)
        log.info("ban.added", target=target, reason=ban.reason, until_s=ban.until_s, by=ban.by)
        return ban

    async def remove_bans(self, target: str) -> list[str]:
        """Lifts the ban on an address (with those on its endpoints) or on one endpoint, and resets its counters on
        every member; returns the targets. Raises Invalid, Unavailable."""
        target = parse_target(target)
        found = {ban.target for ban in core_bans.on(target, self._bans.values())}
        if target not in found and await self._ban_store.get(target) is not None:
            found.add(target)  # Another member has just made it.
        return await self._lift(sorted(found))

    async def remove_all_bans(self) -> list[str]:
        """Lifts every ban. Raises Unavailable, and may have lifted some by then."""
        return await self._lift(sorted(self._bans))

    # What other members and the store report.

    def ban_stored(self, ban: Ban) -> None:
        """The store has this ban."""
        if ban.target not in self._bans:
            address = address_of(ban.target)
            if address != ban.target:
                self._banned_endpoints[address] = self._banned_endpoints.get(address, 0) + 1
        self._bans[ban.target] = ban

    def ban_removed(self, target: str) -> None:
        """The store no longer has it."""
        if self._bans.pop(target, None) is None:
            return
        address = address_of(target)
        if address != target:
            self._banned_endpoints[address] -= 1
            if not self._banned_endpoints[address]:
                del self._banned_endpoints[address]

    def unban_reported(self, target: str) -> None:
        """A ban was lifted: resets the target's counters if they are ours."""
        self.counters.forget(target)
        self._changed.add(address_of(target))

    # Background tasks.

    async def write_bans(self) -> None:
        """Writes new bans and lifts those that the policy freed, retrying until the store accepts. Runs until it is
        cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if self._is_policy_new:
                    self._is_policy_new = False
                    await self._find_allowed()
                if self._to_lift:
                    await self._lift(sorted(self._to_lift))
                    self._to_lift.clear()
                while self._to_write:
                    await self._write_some()
            except CallwardenError as error:
                log.warning("bans.not_written", error=error, waiting=len(self._to_write))
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    async def _find_allowed(self) -> None:
        """Adds what the policy allows by now to the bans to lift. 100,000 of them take 0.3 s of work, during which
        reports are counted as ever."""
        async for targets in self._pace.over(pieces(list(self._bans), CHECKS_AT_ONCE)):
            never = self.counters.limits.never
            self._to_lift.update(target for target in targets if host_of(target) in never)

    async def expire(self) -> None:
        """Removes expired counters and bans, a bounded part each second. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            self.expire_now()

    def expire_now(self) -> None:
        """Removes counters of silent addresses, and bans whose end the store could not report."""
        self.counters.expire(self._clock.mono_s())
        unix_s = self._clock.unix_s()
        for target in [ban.target for ban in self._bans.values() if not ban.is_active_at(unix_s)]:
            self.ban_removed(target)

    async def save_snapshots(self, stopping: asyncio.Event) -> None:
        """Saves the counters of the shards that changed, every SAVE_EVERY_S and once more when `stopping` is set; then
        returns."""
        while not stopping.is_set():
            try:
                async with asyncio.timeout(SAVE_EVERY_S):
                    await stopping.wait()
            except TimeoutError:
                pass
            try:
                await self.save_now()
            except CallwardenError as error:
                log.warning("snapshots.not_saved", error=error, shards=len(self._to_save))

    async def save_now(self) -> int:
        """Saves the counters of the shards that changed; returns how many. Raises Unavailable; what could not be saved
        is saved next time."""
        self._to_save |= {shard_of(address) for address in self._changed} & self._owned
        self._changed.clear()
        shards = sorted(self._to_save - self._to_load)  # A shard that isn't loaded yet must not be overwritten.
        for start in range(0, len(shards), WRITES_AT_ONCE):
            some = shards[start : start + WRITES_AT_ONCE]
            data = snapshot.save(self.counters, some, self._clock.mono_s(), self._clock.unix_s())
            await asyncio.gather(*(self._snapshot_store.put(shard, data[shard]) for shard in some))
            self._to_save.difference_update(some)
        return len(shards)

    async def load_snapshots(self) -> None:
        """Loads the counters of the shards that we gained. Runs until it is cancelled."""
        while True:
            await self._gained.wait()
            self._gained.clear()
            try:
                while self._to_load:
                    await self._load_some()
            except CallwardenError as error:
                log.warning("snapshots.not_loaded", error=error, shards=len(self._to_load))
                await asyncio.sleep(RETRY_S)
                self._gained.set()

    async def _load_some(self) -> None:
        some = sorted(self._to_load)[:WRITES_AT_ONCE]
        found = await asyncio.gather(*(self._snapshot_store.get(shard) for shard in some))
        for shard, data in zip(some, found, strict=True):
            if shard not in self._to_load:  # Another member owns it by now.
                continue
            self._to_load.discard(shard)
            if data is not None:
                try:
                    snapshot.load(self.counters, data, self._clock.mono_s(), self._clock.unix_s())
                except BadSnapshot as error:
                    log.warning("snapshot.unreadable", error=error, shard=shard)

    def _ban(self, ban: Ban | None, target: str) -> None:
        if ban is None:
            self.stats.spared += 1
            log.warning("ban.spared", target=target, why="an allowed or own address")
            return
        if len(self._bans) >= BANS_MAX:
            self.stats.spared += 1
            log.warning("ban.no_room", target=target, bans=len(self._bans))
            return
        self.stats.banned[ban.reason] = self.stats.banned.get(ban.reason, 0) + 1
        self.ban_stored(ban)
        self._to_write[ban.target] = ban
        self._wake.set()
        log.info(
            "ban.added", target=ban.target, reason=ban.reason, evidence=ban.evidence, until_s=ban.until_s, by=ban.by
        )

    async def _write_some(self) -> None:
        async with self._changing:
            some = list(self._to_write.values())[:WRITES_AT_ONCE]
            unix_s = self._clock.unix_s()
            await asyncio.gather(*(self._ban_store.put(ban) for ban in some if ban.is_active_at(unix_s)))
            for ban in some:
                del self._to_write[ban.target]
                self._events.banned(ban)

    async def _lift(self, targets: list[str]) -> list[str]:
        lifted: list[str] = []
        for start in range(0, len(targets), WRITES_AT_ONCE):
            some = targets[start : start + WRITES_AT_ONCE]
            async with self._changing:
                for target in some:
                    self._to_write.pop(target, None)
                await asyncio.gather(*(self._ban_store.delete(target) for target in some))
                for target in some:
                    self._lifted(target)
                lifted += some
        if lifted:
            log.info("bans.lifted", count=len(lifted), targets=lifted)
        return lifted

    def _lifted(self, target: str) -> None:
        unix_s = self._clock.unix_s()
        ban = self._bans.get(target) or Ban(target, "", "", unix_s, unix_s, "counter")
        self.ban_removed(target)
        self.unban_reported(target)
        self._events.unbanned(ban)
