"""50 calls a second go on beside each attack: none of them fails, none of their addresses is banned.

An attack is bounded by what it sends. The calls go on for as long as it does, and CALLS_S at least. All addresses are
on loopback, and a spoofed datagram is one that another socket sends from the same address, as the edge sees it.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

import pytest
import pytest_asyncio

from callwarden.local.files import TemporaryFolder
from callwarden.local.system import LocalSystem
from callwarden.sip import build
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually

pytestmark = [
    pytest.mark.cases,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

RATE: Final = 50  # calls/s
CALLS_S: Final = 6.0
CALLERS: Final = 8
VICTIM: Final = "4930999999"  # a number that the last of the callers calls, and mallory attacks
VICTIM_EVERY: Final = 8 * CALLERS  # calls; a caller who hangs up on one number all the time would list it for himself
CARRIER_HOST: Final = "127.0.5.200"
STUN: Final = bytes.fromhex("000100002112a442") + b"callwarden12"
BURST: Final = 50  # datagrams between two turns of the loop


@dataclass(slots=True)
class Target:
    """A running system with its callers, each on an address of its own, and a carrier."""

    system: LocalSystem
    operator: OperatorClient
    carrier: Phones
    callers: dict[str, Phones]
    addresses: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def edge(self) -> str:
        return self.system.sip_address

    def stranger(self, host: str = "") -> Phones:
        """A socket on an address that nobody has used, or on that one."""
        number = next(self.addresses)
        return Phones(self.edge, host=host or f"127.0.{100 + number // 250}.{1 + number % 250}")


@dataclass(slots=True)
class NormalCalls:
    """Calls at a steady rate, one caller after the other, and how they fared."""

    target: Target
    outcomes: Counter[str] = field(default_factory=Counter)

    async def while_(self, attack: Awaitable[None]) -> None:
        attacking = asyncio.ensure_future(attack)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due_s = number / RATE
                if attacking.done() and due_s >= CALLS_S:
                    break
                await asyncio.sleep(began_s + due_s - loop.time())
                group.create_task(self._call(number))
        await attacking

    async def _call(self, number: int) -> None:
        name, phones = list(self.target.callers.items())[number % CALLERS]
        call = phones.call(
            name, PASSWORD, DEFAULT_REALM, VICTIM if number % VICTIM_EVERY == CALLERS - 1 else f"4930{number:07d}"
        )
        try:
            status = await call.status
            ended = await phones.hang_up(call) if status == 200 else 0
        except TimeoutError:
            self.outcomes["no answer"] += 1
        else:
            self.outcomes["ended" if (status, ended) == (200, 200) else f"{status}, BYE {ended}"] += 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target() -> AsyncIterator[Target]:
    folder = TemporaryFolder("state")
    async with AsyncExitStack() as stack:
        stack.callback(folder.remove)
        system = await stack.enter_async_context(LocalSystem(folder.path))
        operator = await stack.enter_async_context(OperatorClient(system))
        carrier = await stack.enter_async_context(Phones(system.sip_address, host=CARRIER_HOST))
        await operator.deck()
        await operator.carrier(carrier.address)
        for name in ("mallory", *(f"n{number}" for number in range(CALLERS))):
            await operator.account(name, lines=500, credit_micros=10_000_000_000)
        callers: dict[str, Phones] = {}
        for number in range(CALLERS):
            phones = await stack.enter_async_context(Phones(system.sip_address, host=f"127.0.5.{number + 1}"))
            callers[f"n{number}"] = phones
            await registers(f"n{number}", phones)
        yield Target(system, operator, carrier, callers)


async def registers(name: str, phones: Phones) -> None:
    async def is_registered() -> bool:
        return await phones.register(name, PASSWORD, DEFAULT_REALM) == 200

    await eventually(is_registered, what=f"{name} is registered")


async def flood(phones: Phones, datagrams: Iterable[bytes]) -> None:
    """All of them as fast as they can be sent, with the loop's other work in between."""
    for number, datagram in enumerate(datagrams):
        phones.send_raw(datagram)
        if number % BURST == 0:
            await asyncio.sleep(0.005)


def message(phones: Phones, method: str, *more: tuple[str, str], call_id: str = "", user: str = "x") -> bytes:
    token = random.randbytes(8).hex()
    return build.request(
        method,
        f"sip:{DEFAULT_REALM}",
        via=f"SIP/2.0/UDP {phones.address};branch=z9hG4bK{token};rport",
        from_=f"<sip:{user}@{DEFAULT_REALM}>;tag=a",
        to=f"<sip:{user}@{DEFAULT_REALM}>",
        call_id=call_id or token,
        cseq=1,
        headers=list(more),
    ).to_bytes()


# The attacks.


async def hang_ups_to_one_number(target: Target) -> None:
    """Line 7: a number that one account calls and hangs up, 230 times."""
    async with target.stranger() as phones:
        for _ in range(230):
            call = phones.call("mallory", PASSWORD, DEFAULT_REALM, VICTIM)
            if await call.status != 200:
                break  # it's he who is stopped
            await phones.hang_up(call)


async def a_scanner_in_the_carriers_name(target: Target) -> None:
    """Line 8."""
    async with target.stranger(CARRIER_HOST) as phones:
        await flood(phones, (message(phones, "OPTIONS", ("User-Agent", "friendly-scanner")) for _ in range(500)))


async def a_scanner_in_a_customers_name(target: Target) -> None:
    """Line 8."""
    async with target.stranger("127.0.5.1") as phones:
        await flood(phones, (message(phones, "OPTIONS", ("User-Agent", "sipvicious")) for _ in range(500)))


async def malformed_messages_in_a_customers_name(target: Target) -> None:
    """Line 8."""
    async with target.stranger("127.0.5.2") as phones:
        await flood(phones, itertools.repeat(b"OPTIONS sip:x SIP/2.0\r\nVia: bad\r\n\r\n", 4_200))


async def credentials_of_garbage_in_a_customers_name(target: Target) -> None:
    """Line 8."""
    async with target.stranger("127.0.5.3") as phones:
        garbage = ("Authorization", "Digest garbage")
        await flood(phones, (message(phones, "REGISTER", garbage, user="n2") for _ in range(1_800)))


async def names_that_have_to_be_looked_up(target: Target) -> None:
    """Line 9: the Contact of a call, and of REGISTERs, is a name that nobody answers for."""
    names = [f"callbox{number}.example.x1" for number in range(40)]
    async with target.stranger() as phones:
        await flood(phones, (message(phones, "INVITE", ("Contact", f"<sip:a@{name}:5060>")) for name in names))
        await flood(phones, (message(phones, "REGISTER", ("Contact", f"<sip:a@{name}>")) for name in names))
        for name in names:
            phones.contact = name
            call = phones.call("mallory", PASSWORD, DEFAULT_REALM, "4930555")
            if await call.status == 200:
                await phones.hang_up(call)


async def guessed_passwords(target: Target) -> None:
    """Line 10: of a customer, from one address after the other."""
    for _ in range(5):
        async with target.stranger() as phones:

            async def guess(number: int, phones: Phones = phones) -> None:
                try:
                    status = await phones.register("n4", f"guess-{number}", DEFAULT_REALM)
                except TimeoutError:
                    return  # this address is shut out
                assert status != 200

            tries = [asyncio.create_task(guess(number)) for number in range(500)]
            # An address that is shut out gets no answer, and a try would wait 32 s for one.
            await asyncio.wait(tries, timeout=3.0)
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)


async def keep_alives_of_28_phones_behind_one_address(target: Target) -> None:
    """Line 11: no attack at all; they share the address of a caller."""
    async with AsyncExitStack() as stack:
        phones = [await stack.enter_async_context(target.stranger("127.0.5.5")) for _ in range(28)]
        for _ in range(60):
            for one in phones:
                for data in (STUN, b"\r\n\r\n", b"\0\0\0\0", b"", b"jaK"):
                    one.send_raw(data)
            await asyncio.sleep(0.05)


async def call_ids_of_any_length(target: Target) -> None:
    """Line 17."""
    for _ in range(20):
        async with target.stranger() as phones:
            lengths = (256, 257, 300, 1_000, 8_000)
            await flood(
                phones,
                (
                    message(phones, method, ("User-Agent", "sipvicious"), call_id="A" * length)
                    for length in lengths
                    for method in ("OPTIONS", "INVITE", "REGISTER")
                ),
            )


ATTACKS: Final[list[Callable[[Target], Awaitable[None]]]] = [
    hang_ups_to_one_number,
    a_scanner_in_the_carriers_name,
    a_scanner_in_a_customers_name,
    malformed_messages_in_a_customers_name,
    credentials_of_garbage_in_a_customers_name,
    names_that_have_to_be_looked_up,
    guessed_passwords,
    keep_alives_of_28_phones_behind_one_address,
    call_ids_of_any_length,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.__name__ for attack in ATTACKS])
async def test_no_normal_call_fails_beside_an_attack(
    target: Target, attack: Callable[[Target], Awaitable[None]]
) -> None:
    calls = NormalCalls(target)
    await calls.while_(attack(target))
    assert calls.outcomes == {"ended": calls.outcomes.total()}
    assert calls.outcomes.total() >= RATE * CALLS_S
    code, banned = await target.operator.command("ban", "list", "--output", "json")
    assert code == 0
    normal = [CARRIER_HOST, *(phones.host for phones in target.callers.values())]
    assert [host for host in normal if f'"{host}"' in banned] == []
    for name, phones in target.callers.items():
        await registers(name, phones)

    async def all_settled() -> bool:
        accounts = [await target.operator.get(name) for name in target.callers]
        return not any(account.lines_in_use or account.held_micros for account in accounts)

    await eventually(all_settled, timeout_s=60, what="every call is settled")
