"""Every limit is exact while many processes race for its last unit: over by none, under by none.

Each row of the table is one limit: the policy and the account that set it, how many calls fit, and what every other
call is told. Three races a row, each with hundreds of requests at once, over several processes and connections:

1. On a fresh account exactly `fits` calls are admitted. They end unanswered.
2. What an unanswered call gives back is there again for exactly as many (`after_unanswered`). They end after having
   talked all that they were granted.
3. What that has left, exactly (`after_talk`).

Every row has a realm of its own, so that rows don't meet. Whether money is kept while processes die is in test_kills.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import pytest_asyncio

from callwarden.api.admission.v1 import admission_pb2
from callwarden.common.rpc.client import unary
from callwarden.local.system import LocalSystem
from callwarden.testing.edges import Call, Edges
from callwarden.testing.operator import Operator
from callwarden.testing.servers import Servers
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

PROCESSES: Final = 4
EDGES: Final = 2
REQUESTS: Final = 200
ASKED_TWICE: Final = 40  # of them, at two processes at the same moment, as an edge does that has lost a connection
SECOND_MICROS: Final = 1_000  # the deck's 0.06 a minute
SLICE_S: Final = 10
SLICE_MICROS: Final = SLICE_S * SECOND_MICROS


@dataclass(frozen=True, slots=True)
class Race:
    """One limit."""

    name: str
    """Of the row, its realm and its policy."""
    settings: tuple[str, ...]
    """Rows of the settings catalogue."""
    fits: int
    after_unanswered: int
    after_talk: int
    reason: str
    rule: str
    counter: str
    value: int
    limit: int
    window: str = "now"
    """How it begins."""
    value_after_talk: int | None = None
    """Where it isn't the same."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    credit_micros: int = 10**12


RACES: Final = [
    Race(
        "lines-of-the-account",
        ("maxlines",),
        fits=5,
        after_unanswered=5,
        after_talk=5,
        reason="lines",
        rule="lines",
        counter="calls",
        value=5,
        limit=5,
        limits={"max_lines": 5},
    ),
    Race(
        "lines-of-the-policy",
        ("maxlines",),
        fits=3,
        after_unanswered=3,
        after_talk=3,
        reason="lines",
        rule="lines",
        counter="calls",
        value=3,
        limit=3,
        spec={"lines": {"max": 3}},
    ),
    Race(
        "credit",
        ("credit",),
        fits=7,
        after_unanswered=7,
        after_talk=0,
        reason="credit",
        rule="credit",
        counter="credit",
        value=0,
        limit=SECOND_MICROS,
        credit_micros=7 * SLICE_MICROS,
    ),
    Race(
        # The last slice is cut to what is left, to the second.
        "credit-for-a-part-of-a-slice",
        ("credit",),
        fits=8,
        after_unanswered=8,
        after_talk=0,
        reason="credit",
        rule="credit",
        counter="credit",
        value=999,
        limit=SECOND_MICROS,
        credit_micros=7 * SLICE_MICROS + 3 * SECOND_MICROS + 999,
    ),
    Race(
        "daily-spend-of-the-account",
        ("maxdailycreditperuser",),
        fits=4,
        after_unanswered=4,
        after_talk=0,
        reason="daily-spend",
        rule="daily_spend",
        counter="spent",
        value=4 * SLICE_MICROS,
        limit=4 * SLICE_MICROS,
        window="day ",
        limits={"daily_micros": 4 * SLICE_MICROS},
    ),
    Race(
        "daily-spend-of-endusers",
        ("maxdailycreditforenduser",),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="daily-spend",
        rule="daily_spend",
        counter="spent",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="day ",
        spec={"spend": {"daily": {"endUser": 6 * SLICE_MICROS / 10**6}}},
    ),
    Race(
        "daily-spend-of-traffic-senders",
        ("maxdailycreditforts",),
        fits=6,
        after_unanswered=6,
        after_talk=0,
        reason="daily-spend",
        rule="daily_spend",
        counter="spent",
        value=6 * SLICE_MICROS,
        limit=6 * SLICE_MICROS,
        window="day ",
        spec={"spend": {"daily": {"trafficSender": 6 * SLICE_MICROS / 10**6}}},
        account={"type": "traffic-sender", "prepaid": False},
    ),
]


def policy_of(race: Race) -> str:
    """The row's policy, for its realm alone. JSON is YAML."""
    spec: dict[str, Any] = {"lines": {"max": 1_000}} | dict(race.spec)
    spend = {"slice": {"first": SLICE_S, "next": SLICE_S}} | spec.get("spend", {})
    return json.dumps(
        {
            "apiVersion": "callwarden.io/v1",
            "kind": "SecurityPolicy",
            "metadata": {"name": f"race-{race.name}"},
            "spec": spec | {"realm": race.name, "spend": spend},
        }
    )


@dataclass(frozen=True, slots=True)
class Track:
    """Where races take place."""

    system: LocalSystem
    operator: Operator
    edges: Edges


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def track(callwarden_servers: Servers) -> AsyncIterator[Track]:
    """One system for all rows, with every row's policy in force."""
    database_url = await asyncio.to_thread(callwarden_servers.ask, "database")
    try:
        async with AsyncExitStack() as stack:
            system = await stack.enter_async_context(
                LocalSystem(
                    services={"call-admission", "rating", "payment", "auth"},
                    processes={"call-admission": PROCESSES},
                    database_url=database_url,
                    migrate=False,
                )
            )
            operator = await stack.enter_async_context(Operator(system))
            edges = await stack.enter_async_context(
                Edges(system.targets("call-admission"), system.nats_url, edges=EDGES)
            )
            await operator.deck()
            await operator.carrier("127.0.0.1:9")
            await operator.apply_policy("\n---\n".join(policy_of(race) for race in RACES))
            await edges.connected()
            yield Track(system, operator, edges)
    finally:
        await asyncio.to_thread(callwarden_servers.ask, "drop", database_url)


def noon_zone() -> str:
    """A time zone where it is about noon: no day and no month ends during a race."""
    ahead = 12 - time.gmtime().tm_hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "UTC"  # Their signs are the other way round.


async def open_account(track: Track, race: Race) -> str:
    account = admission_pb2.Account(
        name="racer",
        realm=race.name,
        currency="EUR",
        deck="retail",
        time_zone=noon_zone(),
        limits=admission_pb2.Limits(**race.limits),
        **{"type": "enduser", "prepaid": True, **race.account},
    )
    created = await unary(track.operator.accounts.CreateAccount, admission_pb2.CreateAccountRequest(account=account))
    await track.operator.top_up(created.id, race.credit_micros, key=f"first-{created.id}")
    return str(created.id)


async def race_for(track: Track, account: str, fits: int, race: Race, value: int) -> list[Call]:
    """All at once; those that were admitted, of which there are as many as fit."""
    # Begun a moment ago, so that a call can have talked before it is told to have ended.
    calls = [Call(account, f"4930{number:06d}", at_s=time.time() - 2 * SLICE_S) for number in range(REQUESTS)]
    asked = [(call, turn) for turn, call in enumerate(calls)]
    asked += [(call, turn + 1) for call, turn in asked[:ASKED_TWICE]]
    replies = await asyncio.gather(*(track.edges.admit(call, turn) for call, turn in asked))
    admitted = [call for call in calls if call.is_admitted]
    told = Counter(
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
    assert len(admitted) == fits, told
    assert told == {(race.reason, race.rule, race.counter, value, race.limit, race.window): REQUESTS - fits}
    answers = [reply.WhichOneof("verdict") for reply in replies]
    assert answers[:ASKED_TWICE] == answers[REQUESTS:], "asked twice, answered differently"
    return admitted


async def hang_up(track: Track, account: str, calls: list[Call], *, answered: bool) -> None:
    """Ends the calls, each when it has talked all it was granted, or unanswered; returns when all are settled."""
    for call in calls:
        if answered:
            call.answered_at_s = call.at_s + 1
            call.ended_at_s = call.answered_at_s + call.granted_s
            track.edges.started(call)
        track.edges.ended(call)

    async def settled() -> bool:
        return not (await track.operator.audit(account)).open_holds

    await eventually(settled, timeout_s=60)
    audit = await track.operator.audit(account)
    assert list(audit.mismatched_accounts) == []
    assert audit.balance_sum_micros == audit.ledger_sum_micros
    assert audit.held_sum_micros == audit.hold_rows_sum_micros == 0
    now = await track.operator.get(account)
    assert (now.lines_in_use, now.held_micros) == (0, 0)


@pytest.mark.parametrize(
    "race",
    [pytest.param(race, id=race.name, marks=[pytest.mark.setting(row) for row in race.settings]) for race in RACES],
)
async def test_of_hundreds_at_once_exactly_as_many_are_admitted_as_fit(track: Track, race: Race) -> None:
    account = await open_account(track, race)
    value_after_talk = race.value if race.value_after_talk is None else race.value_after_talk

    calls = await race_for(track, account, race.fits, race, race.value)
    await hang_up(track, account, calls, answered=False)
    assert (await track.operator.get(account)).balance_micros == race.credit_micros

    calls = await race_for(track, account, race.after_unanswered, race, race.value)
    await hang_up(track, account, calls, answered=True)
    talked_s = sum(call.granted_s for call in calls)
    assert (await track.operator.get(account)).balance_micros == race.credit_micros - talked_s * SECOND_MICROS

    calls = await race_for(track, account, race.after_talk, race, value_after_talk)
    await hang_up(track, account, calls, answered=False)
