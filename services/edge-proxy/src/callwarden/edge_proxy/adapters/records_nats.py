"""Running calls in NATS KV `dialogs`, and the taking over of a dead edge's (DESIGN D6). See `ports.Records`.

Each edge renews its entry in KV `members`. Where one has expired, the others look up its records, and each
takes those that fall to it by rendezvous hashing. An edge that starts takes back what it had under its own name. A
record is taken by rewriting it at the revision that was read, so that of two who try one gets it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence, Set
from contextlib import suppress
from typing import Any, Final, TypeVar
from uuid import UUID

from google.protobuf.message import DecodeError

from callwarden.api.events.v1 import events_pb2
from callwarden.common.bus import Deleted, KeyValue, Put, Synced, key_of
from callwarden.common.logs import get_logger
from callwarden.edge_proxy.core.effects import LoadRecord, NoRecord, StoreRecord
from callwarden.edge_proxy.core.records import DialogRecord, Leg
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import CallwardenError, Conflict, TimedOut
from callwarden.limits.rendezvous import ShardMap
from callwarden.sip.address import endpoint

log = get_logger(__name__)

T = TypeVar("T")

SERVICE: Final = "edge-proxy"
ALIVE_EVERY_S: Final = 2.0
# An edge that is too busy, or whose NATS restarts, isn't dead yet; a call runs on for its slice meanwhile.
ALIVE_TTL_S: Final = 10.0
# After a restart of NATS all entries have expired; living edges renew theirs within this time.
PATIENCE_S: Final = 5.0
WRITES_MAX: Final = 32
LOAD_TIMEOUT_S: Final = 0.5  # A request waits for it; without, the cookie alone says who speaks.
LOOK_EVERY_S: Final = 0.1
TAKE_S: Final = 4.0  # for the others to take over what a leaving edge had
WAITING_MAX: Final = 50_000  # As many as there can be calls.
TAKEN_TTL_S: Final = 3_600.0  # Of a record that was taken over; its owner rewrites it while the call runs.


class RecordsNats:
    """Writes, follows, takes over."""

    def __init__(
        self,
        dialogs: KeyValue,
        members: KeyValue,
        edge: str,
        clock: Clock,
        adopt: Callable[[DialogRecord], None],
        *,
        alive_ttl_s: float = ALIVE_TTL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._dialogs, self._members = dialogs, members
        self._edge = edge
        self._clock = clock
        self._adopt = adopt
        self._alive_ttl_s, self._patience_s = alive_ttl_s, patience_s
        self._started_at_s = clock.unix_s()
        self._phase: events_pb2.MemberPhase.ValueType = events_pb2.MEMBER_PHASE_UNSPECIFIED
        self._wanted: dict[UUID, StoreRecord | None] = {}  # None: to be forgotten
        self._writing: set[UUID] = set()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()  # one more has been written
        self._tasks: set[asyncio.Task[object]] = set()
        self._alive: dict[str, str] = {}  # KV key → edge, of those that serve
        self._going: dict[str, str] = {}  # of those that are to stop

    # Writing.

    def store(self, change: StoreRecord) -> None:
        if len(self._wanted) < WAITING_MAX:
            self._wanted[change.record.hold_id] = change
            self._wake.set()

    def forget(self, hold_id: UUID) -> None:
        self._wanted[hold_id] = None
        self._wake.set()

    async def load(self, question: LoadRecord) -> DialogRecord | NoRecord:
        """Raises Unavailable, TimedOut."""
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                found = await self._dialogs.get(str(question.hold_id))
        except TimeoutError as error:
            raise TimedOut("the bucket of dialogs doesn't answer") from error
        if found is None:
            return NoRecord()
        try:
            return _decode(events_pb2.Dialog.FromString(found.value))
        except (DecodeError, ValueError):
            return NoRecord()

    async def write(self) -> None:
        """Store what is wanted; for ever. What can't be stored is left out: it is a net under a rope."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for hold_id in [hold_id for hold_id in self._wanted if hold_id not in self._writing]:
                if len(self._writing) >= WRITES_MAX:
                    break
                self._spawn(self._write_one(hold_id, self._wanted.pop(hold_id)))

    async def _write_one(self, hold_id: UUID, change: StoreRecord | None) -> bool:
        """Whether it could be written."""
        self._writing.add(hold_id)
        try:
            if change is None:
                await self._dialogs.delete(str(hold_id))
            else:
                value = _encode(change.record, self._edge).SerializeToString()
                await self._dialogs.put(str(hold_id), value, ttl_s=change.expires_s)
        except CallwardenError as error:
            log.debug("record.not_written", error=repr(error), hold=hold_id)
            return False
        finally:
            self._writing.discard(hold_id)
            self._wake.set()
            self._settled.set()
        return True

    # Living and dying.

    async def stay_alive(self) -> None:
        """Say that we live; for ever."""
        while self._phase != events_pb2.MEMBER_PHASE_LEAVING:
            await self._publish_member()
            await asyncio.sleep(min(ALIVE_EVERY_S, self._alive_ttl_s / 3))

    async def _publish_member(self) -> bool:
        """Whether it could be said."""
        member = events_pb2.Member(
            service=SERVICE, instance=self._edge, started_at_s=self._started_at_s, phase=self._phase
        )
        try:
            await self._members.put(key_of(SERVICE, self._edge), member.SerializeToString(), ttl_s=self._alive_ttl_s)
        except CallwardenError as error:
            log.debug("member.not_said", error=repr(error))
            return False
        return True

    @property
    def has_successor(self) -> bool:
        return any(edge != self._edge for edge in self._alive.values())

    async def say_draining(self) -> None:
        self._phase = events_pb2.MEMBER_PHASE_DRAINING
        await self._publish_member()

    async def hand_over(self, records: Sequence[StoreRecord]) -> set[UUID]:
        kept: set[UUID] = set()

        async def keep(change: StoreRecord) -> None:
            hold_id = change.record.hold_id
            self._wanted.pop(hold_id, None)  # this one is newer
            if await self._write_one(hold_id, change):
                kept.add(hold_id)

        await _at_most(WRITES_MAX, (keep(change) for change in records))
        return kept

    async def leave(self, hold_ids: Set[UUID]) -> Set[UUID]:
        untaken = hold_ids
        with suppress(TimeoutError):
            async with asyncio.timeout(TAKE_S):
                await self._written()  # Ended ones are deleted, so that nobody takes them.
                self._phase = events_pb2.MEMBER_PHASE_LEAVING
                await self._publish_member()
                while untaken:
                    await asyncio.sleep(LOOK_EVERY_S)
                    untaken = await self._still_ours(untaken)
        return untaken

    async def _written(self) -> None:
        """Returns when nothing waits to be written."""
        while self._wanted or self._writing:
            self._settled.clear()
            await self._settled.wait()

    async def _still_ours(self, hold_ids: Set[UUID]) -> Set[UUID]:
        try:
            found = await self._dialogs.items()
        except CallwardenError as error:
            log.warning("records.not_read", error=error)
            return hold_ids
        return {hold_id for hold_id in hold_ids if _owner(found.get(str(hold_id))) == self._edge}

    async def say_goodbye(self) -> None:
        """A stopped edge has handed over or cut its calls: the others need not look for them."""
        self._phase = events_pb2.MEMBER_PHASE_LEAVING
        try:
            await self._members.delete(key_of(SERVICE, self._edge))
        except CallwardenError as error:
            log.debug("member.not_said", error=repr(error))

    async def follow(self) -> None:
        """Take back our own records, then those of edges that die; for ever."""
        await self._take_of(self._edge)
        synced = False
        async for change in self._members.watch():
            match change:
                case Put(key, value, _):
                    try:
                        member = events_pb2.Member.FromString(value)
                    except DecodeError:
                        continue
                    if member.service == SERVICE:
                        self._heard(key, member)
                case Deleted(key, _):
                    edge = self._alive.pop(key, None) or self._going.pop(key, None)
                    if edge is not None and edge != self._edge:
                        self._spawn(self._take_later(edge))
                case Synced():
                    if not synced:
                        synced = True
                        await self._take_orphans()

    def _heard(self, key: str, member: events_pb2.Member) -> None:
        here, other = self._alive, self._going
        if member.phase != events_pb2.MEMBER_PHASE_UNSPECIFIED:
            here, other = other, here
        other.pop(key, None)
        here[key] = member.instance
        if member.phase == events_pb2.MEMBER_PHASE_LEAVING and member.instance != self._edge:
            self._spawn(self._take_of(member.instance))

    async def _take_later(self, edge: str) -> None:
        await asyncio.sleep(self._patience_s)
        if edge not in self._alive.values():
            await self._take_of(edge)

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_orphans(self) -> None:
        """Of edges that died while none was watching, this one included."""
        living = {*self._alive.values(), *self._going.values(), self._edge}
        await self._take(lambda edge: edge not in living)

    async def _take_of(self, edge: str) -> None:
        await self._take(lambda owner: owner == edge)

    async def _take(self, is_wanted: Callable[[str], bool]) -> None:
        if self._phase != events_pb2.MEMBER_PHASE_UNSPECIFIED and self.has_successor:
            return
        try:
            found = await self._dialogs.items()
        except CallwardenError as error:
            log.warning("records.not_read", error=error)
            return
        heirs = ShardMap({*self._alive.values(), self._edge})
        ours: list[Coroutine[Any, Any, bool]] = []
        for key, put in found.items():
            try:
                value = events_pb2.Dialog.FromString(put.value)
                record = _decode(value)
            except (DecodeError, ValueError):
                continue
            if not is_wanted(value.edge) or (value.edge != self._edge and heirs.owner_of(key) != self._edge):
                continue
            value.edge = self._edge
            ours.append(self._take_one(key, value, record, put.revision))
        taken = sum(await _at_most(WRITES_MAX, ours))
        if taken:
            log.info("calls.adopted", count=taken)

    async def _take_one(self, key: str, value: events_pb2.Dialog, record: DialogRecord, revision: int) -> bool:
        """Whether the call is this edge's now."""
        try:
            await self._dialogs.put(key, value.SerializeToString(), ttl_s=TAKEN_TTL_S, revision=revision)
        except Conflict:
            return False  # another one was faster
        except CallwardenError as error:
            log.warning("record.not_taken", error=error)
            return False
        self._adopt(record)
        return True


async def _at_most(count: int, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results; so many run at a time."""
    gate = asyncio.Semaphore(count)

    async def one(each: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await each

    return await asyncio.gather(*(one(each) for each in work))


def _owner(put: Put | None) -> str:
    """Whose record it is; empty: nobody's."""
    try:
        return "" if put is None else events_pb2.Dialog.FromString(put.value).edge
    except DecodeError:
        return ""


def _encode(record: DialogRecord, edge: str) -> events_pb2.Dialog:
    return events_pb2.Dialog(
        hold_id=str(record.hold_id),
        call_id=record.call_id,
        account_id=record.account_id,
        answered_at_s=record.answered_at_s,
        granted_s=record.granted_s,
        edge=edge,
        caller=_encode_leg(record.caller),
        callee=_encode_leg(record.callee),
    )


def _encode_leg(leg: Leg) -> events_pb2.DialogLeg:
    return events_pb2.DialogLeg(
        uri=leg.header,
        target=leg.target,
        address=f"{leg.address.host} {leg.address.port}",
        cseq=leg.cseq,
        route_set=leg.routes,
        hosts=leg.hosts,
        account_id=leg.account_id,
        trunk=leg.trunk,
        is_phone=leg.is_phone,
    )


def _decode(value: events_pb2.Dialog) -> DialogRecord:
    """Raises ValueError."""
    return DialogRecord(
        UUID(value.hold_id),
        value.call_id,
        value.account_id,
        value.answered_at_s,
        value.granted_s,
        _decode_leg(value.caller),
        _decode_leg(value.callee),
    )


def _decode_leg(value: events_pb2.DialogLeg) -> Leg:
    host, _, port = value.address.partition(" ")
    return Leg(
        value.uri,
        value.target,
        endpoint(host, int(port)),
        value.cseq,
        tuple(value.route_set),
        tuple(value.hosts),
        value.account_id,
        value.trunk,
        value.is_phone if value.HasField("is_phone") else None,
    )
