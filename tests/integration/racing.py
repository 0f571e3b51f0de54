"""Races for the last unit of a limit, and processes that are killed meanwhile: what test_races and test_kills share.

In: how one race is run and judged, and who kills. Out: the limits that are raced for (races_table), with which
systems, and when (the tests).
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from callwarden.api.admission.v1 import admission_pb2
from callwarden.call_admission.model.codecs.usage_bytes import usage_bytes
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage
from callwarden.common.rpc.client import unary
from callwarden.kernel.errors import CallwardenError
from callwarden.local.system import LocalSystem
from callwarden.testing import databases
from callwarden.testing.edges import Edges, TrackedCall
from callwarden.testing.operator import OperatorClient
from callwarden.testing.servers import Servers, as_roles
from callwarden.testing.waiting import eventually
from tests.integration.races_table import RACES, SECOND_MICROS, SLICE_S, Race

T = TypeVar("T")

PROCESSES: Final = 4
EDGES: Final = 2
REQUESTS: Final = 200
ROUNDS: Final = 2  # of a row in one system at most
SIBLINGS: Final = 4  # accounts of a reseller
ASKED_TWICE: Final = 40  # of them, at two processes at the same moment, as an edge does that has lost a connection
INSIST_S: Final = 60.0  # for an answer, while processes die and start
AGAIN_S: Final = 0.05
STEP_S: Final = 0.01  # in which call-admission counts the calls of a second
TELL_AGAIN_S: Final = 3.0
DEAD_MAX: Final = (
    2  # Starting more at once takes as long on two cores, and calls then find nobody for most of the time.
)
LIFE_S_MAX: Final = 1.5  # of a process that is to be killed, on top of its start


def policy_of(race: Race) -> str:
    """The row's policy, for its realm alone. JSON is YAML."""
    spec: dict[str, Any] = {"lines": {"max": 1_000}} | dict(race.spec)
    # So many refusals of one number are what those lists are for.
    fraud = {"dynamicList": {"enabled": False}, "smartList": {"enabled": False}} | spec.get("fraud", {})
    spend = {"slice": {"first": SLICE_S, "next": SLICE_S}} | spec.get("spend", {})
    return _document(f"race-{race.name}", spec | {"realm": race.name, "spend": spend, "fraud": fraud})


def _document(name: str, spec: Mapping[str, Any]) -> str:
    return json.dumps(
        {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": name}, "spec": spec}
    )


@dataclass(frozen=True, slots=True)
class Track:
    """Where races take place."""

    system: LocalSystem
    operator: OperatorClient
    edges: Edges

    async def audit(self, account: str = "") -> admission_pb2.AuditLedgerReply:
        return await self._ask(lambda: self.operator.audit(account))

    async def get(self, account: str) -> admission_pb2.Account:
        return await self._ask(lambda: self.operator.get(account))

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer of the operator's process, which may be dead for a moment."""
        deadline_s = time.monotonic() + INSIST_S
        while True:
            try:
                return await question()
            except CallwardenError:
                if time.monotonic() > deadline_s:
                    raise
            await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def in_force(track: Track, race: Race) -> AsyncIterator[None]:
    """The row's policy for all realms, if it has one, is in force meanwhile, and not afterwards."""
    if race.general is None:
        yield
        return
    name = f"race-{race.name}-for-all"
    await track.operator.apply_policy(_document(name, race.general))
    try:
        yield
    finally:
        await track.operator.apply_policy(_document(name, {}))


@asynccontextmanager
async def track_on(servers: Servers, policy: str) -> AsyncIterator[Track]:
    """A system with a database of its own."""
    database_url = await asyncio.to_thread(servers.ask, "database")
    try:
        async with AsyncExitStack() as stack:
            system = await stack.enter_async_context(
                LocalSystem(
                    services={"call-admission", "administration", "rating", "payment", "auth"},
                    processes={"call-admission": PROCESSES},
                    database_url=database_url,
                    role_urls=as_roles(database_url),
                    migrate=False,
                )
            )
            operator = await stack.enter_async_context(OperatorClient(system))
            edges = await stack.enter_async_context(Edges(system, edges=EDGES))
            await operator.deck()
            await operator.carrier("127.0.0.1:9")
            for race in RACES:
                for number in range(ROUNDS if race.carrier is not None else 0):
                    name, prefix = _way(race, number)
                    limits = admission_pb2.Limits(**(race.carrier or {}))
                    await operator.carrier("127.0.0.1:9", name=name, prefix=prefix, limits=limits)
            await operator.apply_policy(policy)
            await edges.connected()
            yield Track(system, operator, edges)
    finally:
        await asyncio.to_thread(servers.ask, "drop", database_url)


def noon_zone() -> str:
    """A time zone where it is about noon: no day and no month ends during a race."""
    ahead = 12 - time.gmtime().tm_hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "UTC"  # Their signs are the other way round.


async def open_accounts(track: Track, race: Race, number: int = 0) -> list[str]:
    """Fresh accounts, for the row's `number`-th round, that its limit holds for together: one, or a reseller's."""
    if race.reseller is None:
        account = await _open(track, race, f"racer-{number}", race.credit_micros)
        if race.last_month:
            await _called_last_month(track, account, race)
        return [account]
    credit_micros = race.reseller_credit_micros
    reseller = {
        "type": "reseller",
        "prepaid": credit_micros is not None,
        "limits": admission_pb2.Limits(**race.reseller),
    }
    await _open(track, race, f"reseller-{number}", credit_micros or 0, **reseller)
    return [
        await _open(track, race, f"racer-{number}-{sibling}", race.credit_micros, parent=f"reseller-{number}")
        for sibling in range(SIBLINGS)
    ]


async def _open(track: Track, race: Race, name: str, credit_micros: int, **changes: Any) -> str:
    account = admission_pb2.Account(
        name=name,
        realm=race.name,
        currency="EUR",
        deck="retail",
        time_zone=noon_zone(),
        **{
            "type": "enduser",
            "prepaid": True,
            "limits": admission_pb2.Limits(**race.limits),
            **race.account,
            **changes,
        },
    )
    created = await unary(track.operator.accounts.CreateAccount, admission_pb2.CreateAccountRequest(account=account))
    if credit_micros:
        await track.operator.top_up(created.id, credit_micros, key=f"first-{created.id}")
    return str(created.id)


async def _called_last_month(track: Track, account: str, race: Race) -> None:
    """What a call of last month has left in the account's counts: nobody can call last month any more."""
    today = datetime.now(ZoneInfo(noon_zone()))
    month = today.year * 12 + today.month - 2
    limit = race.limits["monthly_micros"]
    usage = Usage(months=[CalendarSpan(month, calls=1)], month_base_micros=limit, month_grown=month)
    connection = await databases.connect(track.system.database_url)
    try:
        await connection.execute(
            "UPDATE account SET usage = $2, version = version + 1 WHERE id = $1", UUID(account), usage_bytes(usage)
        )
    finally:
        await connection.close()


def _way(race: Race, number: int) -> tuple[str, str]:
    """The trunk by which the row's calls go in this round, and the prefix of the numbers that they call."""
    return ("carrier", "4930") if race.carrier is None else (f"carrier-{number}", f"4931{number}")


def address_of(account: str) -> str:
    """An address of a network (/64, which counts as one source) that only this account, or its first sibling, has."""
    return f"2001:db8:{account[:4]}:{account[4:8]}::1"


async def race_for(
    track: Track, accounts: list[str], fits: int, race: Race, value: int, number: int = 0
) -> list[TrackedCall]:
    """All at once; those that were admitted, of which there are as many as fit."""
    calls = await ask_at_once(track, accounts, race, number)
    admitted = [call for call in calls if call.is_admitted]
    told = _refusals(calls, race)
    if race.seconds is None or not fits:
        assert len(admitted) == fits, told
    else:
        assert len(admitted) >= fits, told
        assert sum(call.granted_s for call in admitted) == race.seconds, told
    expected = race.reason, race.rule, race.counter, value, race.limit, race.window
    assert told == {expected: REQUESTS - len(admitted)}, told
    return admitted


async def ask_at_once(track: Track, accounts: list[str], race: Race, number: int = 0) -> list[TrackedCall]:
    """Hundreds of calls, some of them asked about at two processes; all are answered."""
    # Begun a moment ago, so that a call can have talked before it is told to have ended.
    at_s = time.time() - 2 * SLICE_S
    address = address_of(accounts[0])
    trunk, prefix = _way(race, number)
    calls = [
        TrackedCall(
            accounts[index % len(accounts)],
            f"{prefix}{index:06d}",
            source_address=address,
            at_s=at_s,
            trunk=trunk,
        )
        for index in range(REQUESTS)
    ]
    asked = [(call, turn) for turn, call in enumerate(calls)]
    asked += [(call, turn + 1) for call, turn in asked[:ASKED_TWICE]]
    replies = await asyncio.gather(*(insist(track.edges, call, turn) for call, turn in asked))
    assert len({reply.policy_revision for reply in replies}) == 1, "decided by different policies"
    answers = [reply.WhichOneof("verdict") for reply in replies]
    assert answers[:ASKED_TWICE] == answers[REQUESTS:], "asked twice, answered differently"
    return calls


def _refusals(calls: list[TrackedCall], race: Race) -> Counter[tuple[str, str, str, int, int, str]]:
    """What those are told that aren't admitted, and how often."""
    return Counter(
        (
            refused.reason,
            refused.rule,
            refused.counter,
            refused.value,
            refused.limit,
            refused.window[: len(race.window)],
        )
        for call in calls
        if (refused := call.refused) is not None
    )


async def insist(edges: Edges, call: TrackedCall, turn: int) -> admission_pb2.AdmitReply:
    """Asks until there is an answer: processes that are killed give none, and those that start need a second."""
    deadline_s = time.monotonic() + INSIST_S
    while True:
        try:
            return await edges.admit(call, turn)
        except CallwardenError:
            if time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(AGAIN_S)


async def hang_up(track: Track, accounts: list[str], calls: list[TrackedCall], *, answered: bool) -> None:
    """Ends the calls, each when it has talked all it was granted, or unanswered; returns when all are settled."""
    for call in calls:
        if answered:
            call.answered_at_s = call.at_s + 1
            call.ended_at_s = call.answered_at_s + call.granted_s
            track.edges.started(call)
        track.edges.ended(call)
    tellings = 0
    due_s = time.monotonic() + TELL_AGAIN_S

    async def settled() -> bool:
        nonlocal tellings, due_s
        if time.monotonic() > due_s:
            # What a killed process had taken comes again after half a minute; telling it anew is as good.
            tellings += 1
            due_s += TELL_AGAIN_S
            for call in calls:
                track.edges.ended(call, message_id=f"{call.hold_id}.ended.{tellings}")
        return not any([(await track.audit(account)).open_holds for account in accounts])

    await eventually(settled, timeout_s=60, interval_s=0.05)
    for account in accounts:
        audit = await track.audit(account)
        assert list(audit.mismatched_accounts) == []
        assert audit.balance_sum_micros == audit.ledger_sum_micros
        assert audit.held_sum_micros == audit.hold_rows_sum_micros == 0
        now = await track.get(account)
        assert (now.lines_in_use, now.held_micros) == (0, 0)


async def balance_of(track: Track, accounts: list[str]) -> int:
    return sum([(await track.get(account)).balance_micros for account in accounts])


async def run_for_seconds(track: Track, accounts: list[str], race: Race) -> None:
    """Two races for calls of a second, on a fresh account; how long they take is the machine's. By the moments at which
    each was decided: in no second more than fit, and nobody was refused around whom fewer had been admitted."""
    since_s = time.time() - 60  # calls are listed by when they began
    for _ in range(2):
        calls = await ask_at_once(track, accounts, race)
        told = _refusals(calls, race)
        assert {(*told_of[:3], *told_of[4:]) for told_of in told} == {
            (race.reason, race.rule, race.counter, race.limit, race.window)
        }
        await hang_up(track, accounts, [call for call in calls if call.is_admitted], answered=False)
    request = admission_pb2.ListDecisionsRequest(account=accounts[0], since_s=since_s, page_size=1_000)
    decisions = [each.decision for each in (await unary(track.operator.accounts.ListDecisions, request)).decisions]
    assert len(decisions) == 2 * REQUESTS
    begun = sorted(decision.at_s for decision in decisions if decision.outcome == "admit")
    assert len(begun) >= race.fits
    for first_s, next_s in zip(begun, begun[race.fits :], strict=False):
        assert next_s - first_s > 1.0, "more within a second than fit"
    for decision in decisions:
        if decision.outcome == "refuse":
            # Of a hundred steps of a second, all of the one in which it begins; others' clocks may be ahead of ours.
            around = [at_s for at_s in begun if -1.0 <= decision.at_s - at_s <= 1.0 + 2 * STEP_S]
            assert len(around) >= race.fits, "refused though there was room"


async def run(track: Track, accounts: list[str], race: Race, number: int = 0) -> None:
    """The three races of a row, on the fresh accounts of its `number`-th round."""
    if race.in_a_moment:
        await run_for_seconds(track, accounts, race)
        return
    credit_micros = race.credit_micros * len(accounts)
    value_after_talk = race.value if race.value_after_talk is None else race.value_after_talk

    calls = await race_for(track, accounts, race.fits, race, race.value, number)
    await hang_up(track, accounts, calls, answered=False)
    assert await balance_of(track, accounts) == credit_micros

    calls = await race_for(track, accounts, race.after_unanswered, race, race.value, number)
    await hang_up(track, accounts, calls, answered=True)
    talked_s = sum(call.granted_s for call in calls)
    assert await balance_of(track, accounts) == credit_micros - talked_s * SECOND_MICROS

    calls = await race_for(track, accounts, race.after_talk, race, value_after_talk, number)
    await hang_up(track, accounts, calls, answered=False)


class Killer:
    """Kills processes of one service at random moments, `kills` times in all, and restarts each at once.

    Every process has a killer of its own; at most DEAD_MAX are dead at a time. `run` returns when the last one is back.
    Moments come from the seed; whom they meet at what is the machine's.
    """

    def __init__(self, system: LocalSystem, service: str, *, processes: int, kills: int, seed: str) -> None:
        self._system = system
        self._service = service
        self._processes = processes
        self._kills = kills
        self._seed = seed
        self._graves = asyncio.Semaphore(DEAD_MAX)
        self.killed = 0

    @property
    def is_over(self) -> bool:
        """Whether nobody will be killed any more."""
        return self.killed >= self._kills

    async def run(self) -> None:
        await asyncio.gather(*(self._follow(index) for index in range(self._processes)))

    async def _follow(self, index: int) -> None:
        rng = random.Random(f"{self._seed}.{index}")
        while True:
            await asyncio.sleep(rng.uniform(0.0, LIFE_S_MAX))
            async with self._graves:
                if self.is_over:
                    return
                self.killed += 1
                await self._system.kill(self._service, index)
                await self._system.restart(self._service, index)
