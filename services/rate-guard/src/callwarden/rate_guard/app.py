"""Counting what edges report, and banning. Wire types are in `adapters`."""

import asyncio
from collections.abc import Iterable
from typing import Final

from callwarden.common.logs import get_logger
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Exhausted
from callwarden.limits.rendezvous import ShardMap, shard_of
from callwarden.rate_guard.core import bans as core_bans
from callwarden.rate_guard.core import snapshot
from callwarden.rate_guard.core.addresses import address_of, endpoint, parse_target
from callwarden.rate_guard.core.bans import Ban
from callwarden.rate_guard.core.counters import AddressReport, Counters
from callwarden.rate_guard.core.duplicates import Seen
from callwarden.rate_guard.core.limits import Limits
from callwarden.rate_guard.core.snapshot import BadSnapshot
from callwarden.rate_guard.ports import Bans, Events, Snapshots

log = get_logger(__name__)

CHECKS_AT_ONCE: Final = 500  # 3 µs each and 0.2 more for each network that the policy allows
BANS_MAX: Final = 100_000  # 60 MB here, 250 bytes each in NATS. A bigger botnet is a matter for the network before us.
WRITES_AT_ONCE: Final = 64
RETRY_S: Final = 0.5
EXPIRE_EVERY_S: Final = 1.0
# What is lost with a member that dies: 5 s of counts. With 20,000 hot addresses a snapshot takes 40 ms a second of CPU.
SAVE_EVERY_S: Final = 5.0


class Counts:
    """What happened, for the metrics."""

    __slots__ = ("banned", "duplicates", "not_banned", "not_owned", "reports")

    def __init__(self) -> None:
        self.reports = self.duplicates = self.not_owned = 0
        self.banned: dict[str, int] = {}  # By reason: a few words of ours.
        self.not_banned = 0


class RateGuard:
    """The counters of the shards that are ours, and all bans. `me`: this process's name among the members."""

    def __init__(
        self, me: str, bans: Bans, events: Events, snapshots: Snapshots, clock: Clock, counters: Counters
    ) -> None:
        self._me = me
        self._snapshots = snapshots
        self._kept = bans
        self._events = events
        self._clock = clock
        self.counters = counters
        self._members = ShardMap(())
        self._seen = Seen()
        self._owned: frozenset[int] = frozenset()
        self._changed: set[str] = set()  # Hot addresses since the last snapshot.
        self._to_save: set[int] = set()
        self._to_load: set[int] = set()
        self._gained = asyncio.Event()
        # As the store has them (by its watch), and ours from the moment they are decided.
        self._bans: dict[str, Ban] = {}
        self._banned_endpoints: dict[str, int] = {}  # How many of each address.
        self._to_write: dict[str, Ban] = {}
        self._to_lift: set[str] = set()
        self._is_policy_new = False
        self._wake = asyncio.Event()
        self._changing = asyncio.Lock()  # A ban that is being written must not outlive its lifting.
        self.counts = Counts()

    @property
    def members(self) -> tuple[str, ...]:
        return self._members.members

    @property
    def bans(self) -> list[Ban]:
        """Those that hold now, the oldest first."""
        now_s = self._clock.unix_s()
        return sorted((ban for ban in self._bans.values() if ban.holds_at(now_s)), key=lambda ban: ban.since_s)

    @property
    def ban_count(self) -> int:
        return len(self._bans)

    # Counting.

    def count(self, edge: str, sequence: int, reports: list[AddressReport]) -> list[str]:
        """Adds what an edge reports, once however often it is delivered. Returns the addresses that another member
        owns: they were not counted. Never waits: bans are written beside."""
        is_new = self._seen.is_new(edge, sequence)
        self.counts.reports += 1
        self.counts.duplicates += not is_new
        not_owned = []
        # Alone, or not among the members yet: then who reports to us knows no better.
        shared = self._members if len(self._members.members) > 1 else None
        now_s = self._clock.mono_s()
        is_hot = self.counters.addresses.is_hot
        for report in reports:
            address = report.address
            if shared is not None and shared.owner_of(address) != self._me:
                not_owned.append(address)
            elif is_new and address not in self._bans:
                if address in self._banned_endpoints:
                    report.endpoints = [e for e in report.endpoints if endpoint(address, e.port) not in self._bans]
                for excess in self.counters.count(report, now_s):
                    self._ban(core_bans.for_excess(
                        excess, self.counters.limits.ban_s, self.counters.limits.never, self._clock.unix_s()
                    ), excess.target)  # fmt: skip
                if is_hot(address):
                    self._changed.add(address)
        self.counts.not_owned += len(not_owned)
        return not_owned

    def apply(self, limits: Limits) -> None:
        """Another policy. `write_bans` lifts the bans of addresses that it allows."""
        self.counters.apply(limits)
        self._is_policy_new = True
        self._wake.set()

    def members_are(self, members: Iterable[str]) -> None:
        """Who shares the counting now. What is ours no more is forgotten, what is ours now is loaded."""
        changed = ShardMap(members)
        if changed == self._members:
            return
        self._members = changed
        if self._me not in changed.members:
            # Not one yet, or late with the heartbeat: then the counters are ours again in a moment.
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
        """Bans an address or endpoint, 0 seconds: until somebody lifts it. Raises Invalid, Exhausted, Unavailable."""
        target = parse_target(target)
        ban = core_bans.by_operator(target, reason, duration_s, self.counters.limits.never, self._clock.unix_s())
        if target not in self._bans and len(self._bans) >= BANS_MAX:
            raise Exhausted(f"there are {BANS_MAX} bans already; ban networks by the policy's spec.firewall.deny")
        async with self._changing:
            self._to_write.pop(target, None)  # A person's word goes before a counter's.
            await self._kept.put(ban)
            self.ban_seen(ban)
        self._events.banned(ban)
        log.info("ban.added", target=target, reason=ban.reason, until_s=ban.until_s, by=ban.by)
        return ban

    async def remove_bans(self, target: str) -> list[str]:
        """Lifts the ban on an address (with those on its endpoints) or on one endpoint, whose counters begin anew
        everywhere; returns what was lifted. Raises Invalid, Unavailable."""
        target = parse_target(target)
        found = {ban.target for ban in core_bans.on(target, self._bans.values())}
        if target not in found and await self._kept.get(target) is not None:
            found.add(target)  # Just made, by another member.
        return await self._lift(sorted(found))

    async def remove_all_bans(self) -> list[str]:
        """Lifts every ban. Raises Unavailable; then some may be lifted."""
        return await self._lift(sorted(self._bans))

    # What others tell.

    def ban_seen(self, ban: Ban) -> None:
        """The store has this ban."""
        if ban.target not in self._bans:
            address = address_of(ban.target)
            if address != ban.target:
                self._banned_endpoints[address] = self._banned_endpoints.get(address, 0) + 1
        self._bans[ban.target] = ban

    def ban_gone(self, target: str) -> None:
        """The store has it no more."""
        if self._bans.pop(target, None) is None:
            return
        address = address_of(target)
        if address != target:
            self._banned_endpoints[address] -= 1
            if not self._banned_endpoints[address]:
                del self._banned_endpoints[address]

    def unban_heard(self, target: str) -> None:
        """Somebody lifted a ban: if the counters are ours, they begin anew."""
        self.counters.forget(target)
        self._changed.add(address_of(target))

    # Work beside.

    async def write_bans(self) -> None:
        """Writes what was decided, and lifts what the policy freed; again until the store takes it. Runs until it is
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
        """Adds what the policy allows by now to the bans to lift. 100,000 of them take 0.3 s: reports are counted in
        between."""
        for number, ban in enumerate(list(self._bans.values()), start=1):
            if address_of(ban.target) in self.counters.limits.never:
                self._to_lift.add(ban.target)
            if number % CHECKS_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def expire(self) -> None:
        """Forgets what is old, a little each second. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            self.expire_now()

    def expire_now(self) -> None:
        """Forgets what is old: counters of the silent, bans that ended while nobody could tell."""
        self.counters.expire(self._clock.mono_s())
        now_s = self._clock.unix_s()
        for target in [ban.target for ban in self._bans.values() if not ban.holds_at(now_s)]:
            self.ban_gone(target)

    async def save_snapshots(self, stopping: asyncio.Event) -> None:
        """Saves the counters of the shards in which something happened, every SAVE_EVERY_S and once more when stopping
        begins; then returns."""
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
        """Saves the counters of the shards in which something happened; how many. Raises Unavailable; what could not
        be saved is saved next time."""
        self._to_save |= {shard_of(address) for address in self._changed} & self._owned
        self._changed.clear()
        shards = sorted(self._to_save - self._to_load)  # What isn't loaded yet must not be overwritten.
        for start in range(0, len(shards), WRITES_AT_ONCE):
            some = shards[start : start + WRITES_AT_ONCE]
            data = snapshot.save(self.counters, some, self._clock.mono_s(), self._clock.unix_s())
            await asyncio.gather(*(self._snapshots.put(shard, data[shard]) for shard in some))
            self._to_save.difference_update(some)
        return len(shards)

    async def load_snapshots(self) -> None:
        """Loads the counters of the shards that became ours. Runs until it is cancelled."""
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
        found = await asyncio.gather(*(self._snapshots.get(shard) for shard in some))
        for shard, data in zip(some, found, strict=True):
            if shard not in self._to_load:  # Another member's again, meanwhile.
                continue
            self._to_load.discard(shard)
            if data is not None:
                try:
                    snapshot.load(self.counters, data, self._clock.mono_s(), self._clock.unix_s())
                except BadSnapshot as error:
                    log.warning("snapshot.unreadable", error=error, shard=shard)

    def _ban(self, ban: Ban | None, target: str) -> None:
        if ban is None:
            self.counts.not_banned += 1
            log.warning("ban.spared", target=target, why="an allowed or own address")
            return
        if len(self._bans) >= BANS_MAX:
            self.counts.not_banned += 1
            log.warning("ban.no_room", target=target, bans=len(self._bans))
            return
        self.counts.banned[ban.reason] = self.counts.banned.get(ban.reason, 0) + 1
        self.ban_seen(ban)
        self._to_write[ban.target] = ban
        self._wake.set()
        log.info(
            "ban.added", target=ban.target, reason=ban.reason, evidence=ban.evidence, until_s=ban.until_s, by=ban.by
        )

    async def _write_some(self) -> None:
        async with self._changing:
            some = list(self._to_write.values())[:WRITES_AT_ONCE]
            now_s = self._clock.unix_s()
            await asyncio.gather(*(self._kept.put(ban) for ban in some if ban.holds_at(now_s)))
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
                await asyncio.gather(*(self._kept.delete(target) for target in some))
                for target in some:
                    self._lifted(target)
                lifted += some
        if lifted:
            log.info("bans.lifted", count=len(lifted), targets=lifted)
        return lifted

    def _lifted(self, target: str) -> None:
        now_s = self._clock.unix_s()
        ban = self._bans.get(target) or Ban(target, "", "", now_s, now_s, "counter")
        self.ban_gone(target)
        self.unban_heard(target)
        self._events.unbanned(ban)
