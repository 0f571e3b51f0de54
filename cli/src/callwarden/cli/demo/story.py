"""What happens in the demo, step by step. Every step checks what it claims against real answers: SIP statuses of phones
that are not ours, and what the services and the database say afterwards.

How it is shown is in `stage`, who starts and stops everything in `director`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.rateguard.v1 import rateguard_pb2
from callwarden.api.rating.v1 import rating_pb2
from callwarden.cli import operations, policies, values
from callwarden.cli.demo import command
from callwarden.cli.demo.guesser import Guesser
from callwarden.cli.demo.phones import BaresipCall, PhoneProcess
from callwarden.cli.output import money
from callwarden.cli.remote import Remote, ask
from callwarden.policy.bundle import parse_yaml

if TYPE_CHECKING:
    from callwarden.cli.demo.stage import Stage

REALM: Final = "callwarden.local"
CURRENCY: Final = "EUR"
DECK: Final = "retail"
DATA: Final = files("callwarden.cli.demo") / "data"

# Numbers that regulators keep free for films: Ofcom's drama ranges, the Bundesnetzagentur's for Berlin.
NUMBERS: Final = {
    "alice": "442079460101",
    "bob": "442079460102",
    "dora": "442079460103",
    "office": "442079460110",
}
BERLIN: Final = "493023125042"
PREMIUM: Final = "449098790123"
GUESSER: Final = "127.0.0.66"
OFFICE_LINES: Final = 5
GUESSES_MAX: Final = 20
ALICE_CREDIT: Final = 10_000_000
DORA_CREDIT: Final = 50_000  # At 0.60 a minute, second by second: exactly five seconds.
DORA_TALKS_S: Final = 5
# A BYE is sent at the second; this much later the phone must have it, on a machine that is busy with everything else.
CUT_TOLERANCE_S: Final = 0.75
SETTLED_WITHIN_S: Final = 10.0
POLL_S: Final = 0.05


class Broken(Exception):
    """Something the story claims did not hold; the message says what was seen instead."""


def holds(condition: bool, otherwise: str) -> None:
    """The check of a step."""
    if not condition:
        raise Broken(otherwise)


@dataclass
class World:
    """Everything the story acts on."""

    system: Remote
    stage: "Stage"
    state_dir: Path
    sip: str
    nats_url: str
    phones: dict[str, PhoneProcess]
    ports: dict[str, int]
    refused_call: str = field(default="")
    """Call-ID of the call that the changed policy refused."""


Step = Callable[[World], Awaitable[None]]


async def play(world: World) -> None:
    """The whole story. Raises Broken (or what the services and phones raise) at the first step that doesn't hold."""
    for title, step in STEPS:
        world.stage.step(title)
        await step(world)
        world.stage.done()


async def set_up(world: World) -> None:
    """Customers, a carrier, prices, and a policy with everything small."""
    system = world.system
    password = values.new_password()
    wanted = {
        "alice": (ALICE_CREDIT, None),
        "bob": (0, None),
        "dora": (DORA_CREDIT, None),
        "office": (0, OFFICE_LINES),
    }

    async def customer(name: str, credit_micros: int, lines: int | None) -> None:
        account = pb.Account(
            name=name,
            realm=REALM,
            type="enduser",
            currency=CURRENCY,
            prepaid=name != "office",
            deck=DECK,
            time_zone="UTC",
            numbers=[NUMBERS[name]],
        )
        if lines is not None:
            account.limits.max_lines = lines
        await operations.create_account(system, account, password=password, credit_micros=credit_micros)
        await world.phones[name].start(
            domain=REALM,
            listen=f"127.0.0.1:{world.ports[name]}",
            password=password,
            proxy=f"sip:{world.sip}",
            register=name in ("alice", "bob"),
            answer_after_s=0.3,
        )

    async def carrier() -> None:
        address = f"127.0.0.1:{world.ports['carrier']}"
        owner = pb.Account(name="carrier", realm=REALM, type="carrier", currency=CURRENCY, time_zone="UTC")
        trunk = pb.Trunk(name="berlin", address=address, direction="carrier", enabled=True)
        await operations.create_trunk(system, trunk, owner)
        await ask(system.rating.SetRoute, rating_pb2.SetRouteRequest(prefix="", trunk="berlin"))
        await world.phones["carrier"].start(
            domain="carrier.example", listen=address, answer_after_s=0.2, any_number=True
        )

    async def prices() -> None:
        request = rating_pb2.ImportDeckRequest(
            name=DECK, currency=CURRENCY, csv=(DATA / "rates-demo.csv").read_bytes(), time_zone="UTC"
        )
        request.rounding.decimals = 6
        reply = await ask(system.rating.ImportDeck, request)
        holds(not reply.errors, f"the price list is refused: {reply.errors}")

    async def policy() -> None:
        async with policies.connect(world.nats_url, system.endpoints.instances) as store:
            change = await store.apply(parse_yaml((DATA / "policy-demo.yaml").read_text()))
            running = await store.await_acks(change.policies.revision)
            late = policies.behind(change.policies.revision, running)
            holds(bool(running) and not late, f"the policy doesn't run in {', '.join(late) or 'any service'}")
            world.stage.lines_default = change.policies.for_realm(REALM).lines.max

    async with asyncio.TaskGroup() as group:
        for name, (credit_micros, lines) in wanted.items():
            group.create_task(customer(name, credit_micros, lines))
        for work in (carrier, prices, policy):
            group.create_task(work())
    world.stage.fact(f"alice {money(ALICE_CREDIT, CURRENCY)}, dora {money(DORA_CREDIT, CURRENCY)} prepaid;")
    world.stage.fact(f"office has {OFFICE_LINES} lines; calls to Berlin cost 0.60 EUR a minute, second by second")


async def register(world: World) -> None:
    for name in ("alice", "bob"):
        answer = await world.phones[name].register()
        holds(answer.registered, f"{name} isn't registered: {answer.status} {answer.reason}")
    world.stage.fact("alice 200 OK, bob 200 OK, after a challenge each")


async def call_each_other(world: World) -> None:
    call = await _answered(world, "alice", "bob")
    other = await _picked_up(world, "bob", call)
    await asyncio.sleep(1.5)  # They talk.
    await call.hang_up()
    await other.closed(5.0)
    holds(call.packets_received > 0 and other.packets_received > 0, "no sound came through")
    settled = await _settled(world, call)
    holds(settled.price_micros == 0, f"a call between phones cost {money(settled.price_micros, CURRENCY)}")
    world.stage.fact(
        f"alice → bob talked {call.talked_s:.1f} s, {call.packets_received} packets of sound, free of charge"
    )


async def call_out(world: World) -> None:
    call = await _answered(world, "alice", BERLIN)
    await _picked_up(world, "carrier", call)
    await asyncio.sleep(1.5)  # They talk.
    await call.hang_up()
    settled = await _settled(world, call)
    holds(settled.trunk == "berlin", f"it went out by {settled.trunk or 'no trunk'}")
    holds(settled.price_micros == settled.billed_s * 10_000, f"{settled.billed_s} s cost {settled.price_micros} micros")
    account = await _account(world, "alice")
    holds(account.balance_micros == ALICE_CREDIT - settled.price_micros, f"alice has {account.balance_micros} micros")
    price = money(settled.price_micros, CURRENCY)
    world.stage.fact(f"alice → +{BERLIN} by trunk berlin: {settled.billed_s} s for {price}")


async def run_out_of_credit(world: World) -> None:
    call = await _answered(world, "dora", BERLIN)
    far = await _picked_up(world, "carrier", call)
    await call.closed(DORA_TALKS_S + 10.0)
    await far.closed(5.0)
    holds(
        DORA_TALKS_S - 0.05 <= call.talked_s <= DORA_TALKS_S + CUT_TOLERANCE_S,
        f"dora was cut after {call.talked_s:.2f} s, not {DORA_TALKS_S}",
    )
    settled = await _settled(world, call)
    holds(settled.reason == "cut-credit", f"it ended for {settled.reason}")
    holds(settled.billed_s == DORA_TALKS_S, f"{settled.billed_s} s were charged")
    account = await _account(world, "dora")
    holds(account.balance_micros == 0 and account.held_micros == 0, f"dora has {account.balance_micros} micros left")
    world.stage.fact(f"BYE to both sides after {call.talked_s:.2f} s; charged {settled.billed_s} s; credit is 0.00 EUR")
    again = await world.phones["dora"].dial(f"sip:+{BERLIN}@{REALM}")
    status = await again.outcome()
    holds(status == 403, f"her next call was answered {status}")
    world.stage.fact(f"her next call: {again.closing}")


async def run_out_of_lines(world: World) -> None:
    phone = world.phones["office"]
    calls = await asyncio.gather(*(phone.dial(f"sip:+{BERLIN}@{REALM}") for _ in range(OFFICE_LINES + 1)))
    statuses = sorted(await asyncio.gather(*(call.outcome() for call in calls)))
    expected = [200] * OFFICE_LINES + [486]
    holds(statuses == expected, f"the six calls were answered {', '.join(map(str, statuses))}")
    account = await _account(world, "office")
    holds(account.lines_in_use == OFFICE_LINES, f"{account.lines_in_use} lines are in use")
    world.stage.fact(f"answered {', '.join(map(str, statuses))}; {account.lines_in_use} of {OFFICE_LINES} lines in use")
    await asyncio.sleep(1.0)  # They talk.
    for call in calls:
        if call.is_up:
            await call.hang_up()
    for call in calls:
        if call.answered_at_s:
            await _settled(world, call)
    account = await _account(world, "office")
    holds(account.lines_in_use == 0, f"{account.lines_in_use} lines are still in use")
    world.stage.fact("all hung up and settled: 0 lines in use")


async def try_premium(world: World) -> None:
    call = await world.phones["alice"].dial(f"sip:+{PREMIUM}@{REALM}")
    status = await call.outcome()
    holds(status == 403, f"it was answered {status}")
    refusal = await _refusal(world, call.call_id)
    holds(refusal.reason == "premium", f"it was refused for {refusal.reason}")
    world.stage.fact(f"alice → +{PREMIUM}: {call.closing} (rule {refusal.rule})")


async def guess_passwords(world: World) -> None:
    host, _, port = world.sip.rpartition(":")
    async with Guesser(GUESSER, (host, int(port)), REALM) as guesser:
        wrong = 0
        for attempt in range(GUESSES_MAX):
            answer = await guesser.guess("alice", f"password{attempt}")
            if answer is None:
                break
            holds(answer.status in (401, 403), f"a wrong password was answered {answer.status}")
            wrong += 1
        holds(0 < wrong < GUESSES_MAX, f"{wrong} wrong passwords, and still an answer")
        bans = (await ask(world.system.rate_guard.ListBans, rateguard_pb2.ListBansRequest())).bans
        holds(any(ban.address == GUESSER for ban in bans), f"{GUESSER} isn't banned")
        holds(all(ban.address == GUESSER for ban in bans), "another address is banned, too")
        world.stage.fact(f"{GUESSER} sent {wrong} wrong passwords, then got no answer")
        answer_to_alice = await world.phones["alice"].register()
        holds(answer_to_alice.registered, "alice isn't heard any more")
        await _run(world, "ban", "list")
        await _run(world, "ban", "remove", GUESSER)
        answer = await guesser.knock("alice")
        holds(answer is not None and answer.status == 401, "the address isn't heard after its ban was lifted")
        world.stage.fact(f"{GUESSER} is challenged again like anybody: 401")


async def change_policy(world: World) -> None:
    with as_file(DATA / "policy-no-berlin.yaml") as file:
        began_s = time.monotonic()
        await _run(world, "policy", "apply", "-f", str(file), shown_as=f"policy apply -f {file.name}")
        took_s = time.monotonic() - began_s
    call = await world.phones["alice"].dial(f"sip:+{BERLIN}@{REALM}")
    status = await call.outcome()
    holds(status == 403, f"the next call was answered {status}")
    refusal = await _refusal(world, call.call_id)
    holds(refusal.reason == "destination", f"it was refused for {refusal.reason}")
    world.refused_call = call.call_id
    world.stage.fact(f"{took_s:.1f} s later alice → +{BERLIN}: {call.closing}")


async def explain(world: World) -> None:
    shown = await _run(world, "explain", world.refused_call)
    holds("destination" in shown and "4930" in shown, "the explanation doesn't name the reason")


async def add_up(world: World) -> None:
    await _run(world, "ledger", "check")
    books = await ask(world.system.accounts.AuditLedger, pb.AuditLedgerRequest())
    calls = (await ask(world.system.accounts.ListCalls, pb.ListCallsRequest(page_size=1000))).calls
    charged = sum(call.price_micros for call in calls)
    credited = ALICE_CREDIT + DORA_CREDIT
    holds(books.open_holds == 0, f"{books.open_holds} calls still hold a line")
    holds(books.ledger_sum_micros == credited - charged, f"the ledger holds {books.ledger_sum_micros} micros")
    world.stage.fact(
        f"{money(credited, CURRENCY)} paid in, {money(charged, CURRENCY)} charged by {len(calls)} calls:"
        f" {money(books.ledger_sum_micros, CURRENCY)} left, to the millionth"
    )


STEPS: Final[tuple[tuple[str, Step], ...]] = (
    ("Customers, a carrier, prices and a policy", set_up),
    ("Two phones register", register),
    ("They call each other", call_each_other),
    ("A call goes out to a carrier", call_out),
    ("A prepaid caller with 0.05 EUR is cut when it is used up", run_out_of_credit),
    ("Six calls at once on five lines: one is refused", run_out_of_lines),
    ("A premium-rate number is refused", try_premium),
    ("A password guesser is banned, then unbanned", guess_passwords),
    ("The policy changes live, the next call obeys", change_policy),
    ("Why was that call refused?", explain),
    ("The books add up", add_up),
)


async def _answered(world: World, caller: str, called: str) -> BaresipCall:
    """Dial and wait for the answer; Broken if it is refused."""
    user = f"+{called}" if called.isdigit() else called
    call = await world.phones[caller].dial(f"sip:{user}@{REALM}")
    status = await call.outcome()
    holds(status == 200, f"{caller} → {user} was answered {call.closing or status}")
    return call


async def _picked_up(world: World, phone: str, call: BaresipCall) -> BaresipCall:
    """The same call as the called phone sees it."""
    try:
        async with asyncio.timeout(5.0):
            other = await world.phones[phone].incoming.get()
    except TimeoutError as error:
        raise Broken(f"the call never came to {phone}") from error
    holds(other.call_id == call.call_id, f"{phone} got another call")
    return other


async def _settled(world: World, call: BaresipCall) -> pb.Call:
    """The call's record, once it is settled."""
    deadline_s = time.monotonic() + SETTLED_WITHIN_S
    while True:
        reply = await ask(world.system.accounts.Explain, pb.ExplainRequest(call_id=call.call_id))
        if reply.call.state == "settled":
            return reply.call
        holds(time.monotonic() < deadline_s, f"the call of {call.phone.user} isn't settled ({reply.call.state})")
        await asyncio.sleep(POLL_S)


async def _refusal(world: World, call_id: str) -> pb.Refused:
    """Why the call was refused, as recorded."""
    deadline_s = time.monotonic() + SETTLED_WITHIN_S
    while True:
        reply = await ask(world.system.accounts.Explain, pb.ExplainRequest(call_id=call_id))
        for decision in reply.decisions:
            if decision.HasField("refused"):
                return decision.refused
        holds(time.monotonic() < deadline_s, "the refusal isn't recorded")
        await asyncio.sleep(POLL_S)


async def _account(world: World, name: str) -> pb.Account:
    return await ask(world.system.accounts.GetAccount, pb.GetAccountRequest(account=name))


async def _run(world: World, *arguments: str, shown_as: str = "") -> str:
    """The real command in a process of its own; what it printed. Broken if it fails."""
    stage = world.stage
    code, printed = await command.run(
        world.state_dir, *arguments, columns=stage.command_columns, has_colour=stage.has_colour
    )
    stage.command(f"callwarden {shown_as or ' '.join(arguments)}", printed)
    holds(code == 0, f"callwarden {arguments[0]} ended with exit code {code}")
    return printed
