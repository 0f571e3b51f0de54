"""Each limit, set as an operator does, seen in the answer, in explain, in what is shown of limits and in simulation.

A row of the table is a setting of the catalogue: the policy and the account that set it, what is used of it first, and
what the next call is told. All rows share one system; each has a realm of its own, so that they don't meet. That limits
are exact while processes race for them is in test_races, what each rule makes of every value in the rules' own tests.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import pytest_asyncio

from callwarden.api.admission.v1 import admission_pb2
from callwarden.common.rpc.client import unary
from callwarden.kernel.errors import Invalid, NotFound
from callwarden.local.system import LocalSystem
from callwarden.testing.edges import Edges, TrackedCall
from callwarden.testing.operator import DEFAULT_REALM, OperatorClient
from callwarden.testing.servers import Servers, as_roles
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SECOND_MICROS: Final = 1_000  # the deck's 0.06 a minute
SLICE_MICROS: Final = 60 * SECOND_MICROS
TALK_S: Final = 45  # within the first slice, and begun less than a minute ago


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `rule` empty: it lets the last call through, too."""

    settings: tuple[str, ...]
    rule: str
    reason: str = ""
    limit: int = 0
    window: str = ""
    """How it begins."""
    fits: int = 0
    """Calls admitted before."""
    talked: bool = False
    """They are over, after TALK_S each; else they run."""
    shown: bool = True
    """Whether it is a limit that is used up."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    credit_micros: int = 10**12
    name: str = ""

    @property
    def realm(self) -> str:
        return (self.name or self.settings[0]).replace("_", "-")


def another_day() -> str:
    """A weekday that it isn't anywhere now."""
    return (datetime.now(UTC) + timedelta(days=3)).strftime("%a")


ENDUSER: Final[dict[str, Any]] = {"type": "enduser", "prepaid": True, "deck": "retail"}
SENDER: Final[dict[str, Any]] = {"type": "traffic-sender", "prepaid": False}
POSTPAID: Final[dict[str, Any]] = {"prepaid": False}

ROWS: Final = [
    Row(("maxlines",), "lines", "lines", limit=2, window="now", fits=2, limits={"max_lines": 2}),
    Row(
        ("maxlinesoffpeak",), "lines", "lines", limit=1, window="now", fits=1,
        spec={"lines": {"max": 5, "maxOffPeak": 1, "peakHours": f"{another_day()} 08:00-09:00"}},
    ),
    Row(("credit",), "credit", "credit", limit=SECOND_MICROS, window="call", fits=1, credit_micros=SLICE_MICROS),
    Row(
        ("maxmonthlycredit",), "monthly_spend", "monthly-spend", limit=SLICE_MICROS, window="month ", fits=1,
        account=POSTPAID, limits={"monthly_micros": SLICE_MICROS},
    ),
    Row(
        ("creditcheckforpostp",), "", fits=1, account=POSTPAID, limits={"monthly_micros": SLICE_MICROS},
        spec={"spend": {"checkPostpaid": False}},
    ),
    Row(
        ("maxdailycreditforenduser",), "daily_spend", "daily-spend", limit=SLICE_MICROS, window="day ", fits=1,
        spec={"spend": {"daily": {"endUser": "0.06"}}},
    ),
    Row(
        ("maxdailycreditforts",), "daily_spend", "daily-spend", limit=SLICE_MICROS, window="day ", fits=1,
        spec={"spend": {"daily": {"trafficSender": "0.06"}}}, account=SENDER,
    ),
    Row(
        ("maxdailycredit",), "daily_spend", "daily-spend", limit=SLICE_MICROS, window="day ", fits=1,
        limits={"daily_micros": SLICE_MICROS},
    ),
    Row(
        ("maxdailycreditperuser",), "", fits=1, limits={"daily_micros": SLICE_MICROS},
        spec={"spend": {"daily": {"perAccount": False}}},
    ),
    Row(
        ("checkmaxdyndailycredit", "maxdyndailycreditforenduser_min"), "dynamic_daily", "daily-spend",
        limit=SLICE_MICROS, window="day ", fits=1,
        spec={"spend": {"dynamicDaily": {"mode": 1, "floorEndUser": "0.06"}}},
    ),
    Row(
        ("maxdynmaxdailycreditforts_min",), "dynamic_daily", "daily-spend", limit=SLICE_MICROS, window="day ", fits=1,
        spec={"spend": {"dynamicDaily": {"mode": 2, "floorTrafficSender": "0.06"}}}, account=SENDER,
    ),
    Row(
        ("maxslperday",), "talk_time", "talk-time", limit=40, window="day ", fits=1, talked=True,
        limits={"talk_day_s": 40},
    ),
    Row(
        ("maxslpermonth",), "talk_time", "talk-time", limit=40, window="month ", fits=1, talked=True,
        limits={"talk_month_s": 40},
    ),
    Row(
        ("calcmaxsl",), "", fits=1, talked=True, limits={"talk_day_s": 40}, spec={"duration": {"enforce": 0}},
    ),
    Row(
        ("maxcallperip", "maxcallperperiod"), "address_calls", "address-quota", limit=1, fits=1,
        spec={"callsPerAddress": {"maxCalls": 1, "period": 0.5}}, shown=False,
    ),
    Row(
        ("maxdurationperip",), "address_duration", "address-quota", limit=40, fits=1, talked=True,
        spec={"callsPerAddress": {"maxDuration": "40s"}}, shown=False,
    ),
    Row(
        ("maxcostperip",), "address_cost", "address-quota", limit=SLICE_MICROS, fits=1,
        spec={"callsPerAddress": {"maxCost": "0.06"}}, shown=False,
    ),
    Row(
        ("maxcallperuserid",), "", fits=1, spec={"callsPerAddress": {"maxCalls": 1, "account": "somebody-else"}},
    ),
    Row(
        ("licensecfg",), "realm_calls", "ceiling", limit=1, window="now", fits=1,
        spec={"system": {"perRealm": {"maxCalls": 1}}},
    ),
    Row(("blocksatellitecalls",), "satellite", "satellite", call={"destination": "881612345678"}, shown=False),
    Row(("blockpremiumnumbers",), "premium", "premium", call={"destination": "499001234567"}, shown=False),
    Row(
        ("blocked-destinations",), "destinations", "destination", shown=False,
        spec={"fraud": {"destinations": {"block": ["+4930"]}}},
    ),
    Row(
        ("blocknotprofitablecalls",), "profit", "not-profitable", limit=SLICE_MICROS, shown=False,
        spec={"billing": {"blockNotProfitable": 3}},
    ),
]  # fmt: skip


def policy_of(row: Row) -> str:
    """The row's policy, for its realm alone. JSON is YAML."""
    spec = {"lines": {"max": 100}} | dict(row.spec)
    return json.dumps(
        {
            "apiVersion": "callwarden.io/v1",
            "kind": "SecurityPolicy",
            "metadata": {"name": row.realm},
            "spec": spec | {"realm": row.realm},
        }
    )


REPORTING: Final = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: reporting}
spec: {realm: reporting, modes: {premium: Report}, session: {callTimeout: 10m}}
"""


@dataclass(frozen=True, slots=True)
class AdmissionSite:
    """One system, its operator, and an edge without SIP."""

    system: LocalSystem
    operator: OperatorClient
    edges: Edges

    async def open(
        self, realm: str, *, credit_micros: int = 10**12, limits: Mapping[str, int] | None = None, **more: Any
    ) -> str:
        account = admission_pb2.Account(
            name="alice", realm=realm, currency="EUR", time_zone=noon_zone(),
            limits=admission_pb2.Limits(**limits or {}), **ENDUSER | more,
        )  # fmt: skip
        request = admission_pb2.CreateAccountRequest(account=account)
        created = await unary(self.operator.accounts.CreateAccount, request)
        await self.operator.top_up(created.id, credit_micros, key=f"first-{created.id}")
        return str(created.id)

    async def admitted(self, call: TrackedCall) -> TrackedCall:
        await self.edges.admit(call, 0)
        assert call.is_admitted, call.refused
        return call

    async def talk(self, call: TrackedCall) -> None:
        """The call is over after TALK_S; returns when it is settled."""
        call.answered_at_s = call.at_s + 1
        call.ended_at_s = call.answered_at_s + TALK_S
        self.edges.started(call)
        self.edges.ended(call)

        async def settled() -> bool:
            return not (await self.operator.audit(call.account_id)).open_holds

        await eventually(settled, timeout_s=30)

    async def limits(self, account: str) -> admission_pb2.ShowLimitsReply:
        request = admission_pb2.ShowLimitsRequest(account=account)
        reply: admission_pb2.ShowLimitsReply = await unary(self.operator.accounts.ShowLimits, request)
        return reply

    async def simulate(self, account: str, **more: Any) -> admission_pb2.SimulateCallReply:
        request = admission_pb2.SimulateCallRequest(**{"account": account, "destination": "493012345"} | more)
        reply: admission_pb2.SimulateCallReply = await unary(self.operator.accounts.Simulate, request)
        return reply


def noon_zone() -> str:
    """A time zone where it is about noon: no day and no month ends during a test."""
    ahead = 12 - time.gmtime().tm_hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "UTC"  # Their signs are the other way round.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(callwarden_servers: Servers) -> AsyncIterator[AdmissionSite]:
    """One system for all rows, with every row's policy in force."""
    database_url = await asyncio.to_thread(callwarden_servers.ask, "database")
    try:
        async with AsyncExitStack() as stack:
            system = await stack.enter_async_context(
                LocalSystem(
                    services={"call-admission", "administration", "rating", "payment", "auth"},
                    database_url=database_url,
                    role_urls=as_roles(database_url),
                    migrate=False,
                )
            )
            operator = await stack.enter_async_context(OperatorClient(system))
            edges = await stack.enter_async_context(Edges(system))
            await operator.deck()
            await operator.carrier("127.0.0.1:9")
            await operator.apply_policy("\n---\n".join([REPORTING, *map(policy_of, ROWS)]))
            await edges.connected()
            yield AdmissionSite(system, operator, edges)
    finally:
        await asyncio.to_thread(callwarden_servers.ask, "drop", database_url)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.realm, marks=[pytest.mark.setting(id_) for id_ in row.settings]) for row in ROWS]
)
async def test_a_setting_holds_and_every_way_to_ask_says_the_same(desk: AdmissionSite, row: Row) -> None:
    account = await desk.open(row.realm, credit_micros=row.credit_micros, limits=row.limits, **row.account)
    made = {"destination": "493012345", "source_address": f"192.0.2.{ROWS.index(row) + 1}"} | dict(row.call)
    for _ in range(row.fits):
        call = await desk.admitted(TrackedCall(account, at_s=time.time() - TALK_S - 5, **made))
        if row.talked:
            await desk.talk(call)

    simulated = await desk.simulate(account, **made)
    call = TrackedCall(account, **made)
    await desk.edges.admit(call, 0)
    if not row.rule:
        assert call.is_admitted, call.refused
        assert simulated.HasField("admitted")
        return

    refused = call.refused
    assert refused is not None
    assert (refused.rule, refused.reason, refused.limit) == (row.rule, row.reason, row.limit)
    assert refused.window.startswith(row.window)
    assert refused.text.endswith(".")
    assert simulated.refused == refused

    (decision,) = (await desk.operator.explain(call.call_id)).decisions
    assert decision.outcome == "refuse"
    assert decision.refused == refused
    (verdict,) = [rule for rule in decision.rules if rule.rule == row.rule]
    assert (verdict.verdict, verdict.limit, verdict.value) == ("refuse", row.limit, refused.value)
    assert [rule.rule for rule in decision.rules] == [rule.rule for rule in simulated.decision.rules]

    if row.shown:
        shown = [use for use in (await desk.limits(account)).limits if use.rule == row.rule]
        assert shown
        assert all(use.HasField("limit") and use.source for use in shown)
        # What one call needs is asked of it; what is left is shown as it is now.
        assert any(use.window.startswith(row.window.replace("call", "now")) for use in shown)


# ------------------------------------------------------------------ what is shown of limits


async def test_limits_show_what_running_calls_hold_and_when_days_begin_anew(desk: AdmissionSite) -> None:
    account = await desk.open("shown", limits={"max_lines": 3, "daily_micros": 10 * SLICE_MICROS}, credit_micros=10**6)
    await desk.admitted(TrackedCall(account))
    unix_s = time.time()
    reply = await desk.limits(account)
    uses = {use.rule: use for use in reply.limits}
    lines, day, credit = uses["lines"], uses["daily_spend"], uses["credit"]
    assert (lines.used, lines.limit, lines.remaining, lines.source) == (1, 3, 2, "account")
    assert (day.used, day.limit, day.remaining, day.unit) == (
        SLICE_MICROS,
        10 * SLICE_MICROS,
        9 * SLICE_MICROS,
        "micros",
    )
    assert unix_s < day.resets_at_s <= unix_s + 86_400
    assert (credit.used, credit.limit, credit.remaining) == (SLICE_MICROS, 10**6, 10**6 - SLICE_MICROS)
    assert reply.account.id == account
    assert reply.policy_revision > 0

    code, text = await desk.operator.command("limits", "show", account)
    assert code == 0
    assert "daily_spend" in text
    code, text = await desk.operator.command("limits", "show", account, "-o", "json")
    assert json.loads(text)["limits"][0]["used"] == 1


# ------------------------------------------------------------------ simulation


async def test_a_simulated_call_gets_what_a_call_would_and_leaves_no_trace(desk: AdmissionSite) -> None:
    account = await desk.open("simulated", limits={"max_lines": 1})
    for _ in range(2):  # The first hasn't taken the only line.
        reply = await desk.simulate(account)
        assert reply.admitted.granted_s == 60
        assert [route.trunk for route in reply.admitted.routes] == ["carrier"]
        assert (reply.held_micros, reply.currency, reply.prefix) == (SLICE_MICROS, "EUR", "49")
        assert reply.price.windows[0].groups[0].rate_micros == SLICE_MICROS
    assert await desk.operator.calls(account) == []
    now = await desk.operator.get(account)
    assert (now.held_micros, now.lines_in_use) == (0, 0)
    listed = await unary(desk.operator.accounts.ListDecisions, admission_pb2.ListDecisionsRequest(account=account))
    assert not listed.decisions
    assert (await desk.simulate(account, destination="bob", local=True)).held_micros == 0


async def test_a_simulated_call_to_a_number_of_ours_is_local_as_a_call_would_be(desk: AdmissionSite) -> None:
    account = await desk.open("caller")
    await desk.operator.account("number-owner", numbers=("+4930777",))
    reply = await desk.simulate(account, destination="4930777")
    assert reply.number_owner == f"number-owner@{DEFAULT_REALM}"
    assert reply.HasField("admitted")
    assert (list(reply.admitted.routes), reply.held_micros, reply.prefix) == ([], 0, "")
    other = await desk.simulate(account, destination="4930778")
    assert other.number_owner == ""
    assert [route.trunk for route in other.admitted.routes] == ["carrier"]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("destination", {"destination": "+49"}),
        ("destination", {"destination": ""}),
        ("source_address", {"source_address": "nowhere"}),
        ("at_s", {"at_s": -1.0}),
        ("at_s", {"at_s": float("nan")}),
        ("at_s", {"at_s": 1_000.0}),
        ("at_s", {"at_s": 4_000_000_000.0}),
        ("caller_number", {"caller_number": "1" * 300}),
        ("trunk", {"trunk": "no such"}),
        ("trunk", {"trunk": "carrier"}),
        ("account", {"account": "carrier-account"}),
    ],
)
async def test_what_can_not_be_simulated_is_refused_with_its_field(
    desk: AdmissionSite, field: str, wrong: dict[str, Any]
) -> None:
    account = await desk.open(f"wrong-{abs(hash(str(wrong)))}")
    with pytest.raises(Invalid) as caught:
        await desk.simulate(wrong.pop("account", account), **wrong)
    assert caught.value.field == field
    with pytest.raises(NotFound):
        await desk.simulate("nobody-at-all")


async def test_the_command_tells_a_simulated_refusal_by_its_exit_code(desk: AdmissionSite) -> None:
    account = await desk.open("command")
    code, text = await desk.operator.command("limits", "simulate", account, "+49 30 12345", "--at", "23:59")
    assert (code, "would be admitted" in " ".join(text.split())) == (0, True), text  # in lines of any width
    code, text = await desk.operator.command("limits", "simulate", account, "+499001234567")
    assert (code, "premium" in text) == (1, True), text
    code, text = await desk.operator.command("limits", "simulate", account, "+49 30 12345", "--trunk", "nowhere")
    assert code == 1
    assert len(text.splitlines()) == 1
    assert "no trunk nowhere" in text


# ------------------------------------------------------------------ decisions


@pytest.mark.setting("call-timeout")
async def test_what_is_only_reported_lets_the_call_through_and_is_found_again(desk: AdmissionSite) -> None:
    await desk.operator.deck("premium", "prefix,description,rate\n49,Germany,0.06\n")
    account = await desk.open("reporting", deck="premium")
    call = await desk.admitted(TrackedCall(account, "499001234567"))
    assert call.reply is not None
    assert call.reply.admitted.max_duration_s == 600
    await desk.admitted(TrackedCall(account))
    refused = TrackedCall(account, "881612345678")
    await desk.edges.admit(refused, 0)
    assert refused.refused is not None

    def asked(**more: Any) -> Any:
        request = admission_pb2.ListDecisionsRequest(account=account, since_s=time.time() - 60, **more)
        return unary(desk.operator.accounts.ListDecisions, request)

    assert [line.call_id for line in (await asked(reported=True)).decisions] == [call.call_id]
    assert [line.call_id for line in (await asked(outcome="refuse")).decisions] == [refused.call_id]
    assert len((await asked()).decisions) == 3
    first = await asked(page_size=2)
    rest = await asked(page_size=2, after=first.next)
    assert len({line.call_id for line in (*first.decisions, *rest.decisions)}) == 3
    assert not rest.next

    code, text = await desk.operator.command("explain", "--account", account, "--since", "1h", "--reported")
    assert (code, "would refuse" in text, call.call_id[:20] in text) == (0, True, True), text
    code, text = await desk.operator.command("explain", call.call_id)
    assert (code, "would have been refused by premium" in text) == (0, True), text
    code, text = await desk.operator.command("explain", "--account", account, "--refused", "-o", "json")
    assert [line["call_id"] for line in json.loads(text)] == [refused.call_id]
    code, text = await desk.operator.command("explain", "--account", "nobody-at-all")
    assert (code, len(text.splitlines())) == (1, 1)
