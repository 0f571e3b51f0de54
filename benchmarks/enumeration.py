"""Whether the time of a refusal tells which users exist: REGISTERs with a wrong password, over UDP, on a whole system.

Kinds of users take turns in random order, so that whatever else the machine does falls on all of them alike. What is
measured is the time from a request with credentials to its 401. Two distributions are compared by the Mann-Whitney U
test: its z is beyond ±3 once in 370 comparisons where there is no difference. Cold: each name is used once, so that
auth looks it up in the database. Warm: one name of each kind, which auth has in its cache.

Environment: BENCH_TRIES (of each kind, default 2000), BENCH_AT_ONCE (default 16).
"""

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.report import Table
from callwarden.api.admission.v1 import admission_pb2
from callwarden.common.rpc.client import unary
from callwarden.local.system import LocalSystem
from callwarden.sip import build
from callwarden.sip.digest import parse_challenge
from callwarden.sip.message import Response, parse
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient

TRIES: Final = int(os.environ.get("BENCH_TRIES", "2000"))
AT_ONCE: Final = int(os.environ.get("BENCH_AT_ONCE", "16"))
Z_MAX: Final = 3.0
ANSWER_S: Final = 10.0
PREPARED_AT_ONCE: Final = 4
PREPARED_S: Final = 60.0
# No address is shut out, and no user's budget is used up: an attacker who waits, and has many addresses, sees this.
POLICY: Final = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: main}
spec:
  firewall: {allow: [127.0.0.0/8]}
  authFailures: {perUser: {max: 100000}}
"""

KNOWN: Final = "wrong password"
UNKNOWN: Final = "unknown user"
DISABLED: Final = "disabled account"
BARE: Final = "account without a password"
KINDS: Final = (KNOWN, UNKNOWN, DISABLED, BARE)


async def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="callwarden-bench-") as name:
        os.chmod(name, 0o711)
        async with LocalSystem(Path(name) / "state") as system, OperatorClient(system) as operator:
            await operator.apply_policy(POLICY)
            await operator.deck()
            await _prepare(operator)
            async with Guesser(system.sip_address) as guesser:
                for kind in KINDS:  # the names of the warm part, into the cache
                    await guesser.guess(_name(kind, TRIES))
                order = [(_name(kind, number), kind) for kind in KINDS for number in range(TRIES)]
                cold = await _measured(guesser, order)
                warm = await _measured(guesser, [(_name(kind, TRIES), kind) for _, kind in order])
            return [_table(cold, warm, guesser.sizes)]


def _name(kind: str, number: int) -> str:
    """All names have one length, so that messages do."""
    return f"{kind[0]}{number:06}"


async def _prepare(operator: OperatorClient) -> None:
    """The accounts of all kinds but the unknown; the last of each is for the warm part."""
    slots = asyncio.Semaphore(PREPARED_AT_ONCE)

    async def make(kind: str, number: int) -> None:
        async with slots:
            account = await operator.account(_name(kind, number), password=None if kind == BARE else PASSWORD)
            if kind == DISABLED:
                change = admission_pb2.UpdateAccountRequest(account=account, status="disabled")
                await unary(operator.accounts.UpdateAccount, change, timeout_s=PREPARED_S)

    async with asyncio.TaskGroup() as group:
        for kind in (KNOWN, DISABLED, BARE):
            for number in range(TRIES + 1):
                group.create_task(make(kind, number))


async def _measured(guesser: "Guesser", order: list[tuple[str, str]]) -> dict[str, list[float]]:
    """Milliseconds of each try, by kind."""
    random.shuffle(order)
    delays: dict[str, list[float]] = {kind: [] for kind in KINDS}
    left = iter(order)

    async def work() -> None:
        for name, kind in left:
            delays[kind].append(await guesser.guess(name))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return delays


class Guesser(asyncio.DatagramProtocol):
    """One socket from which users' passwords are guessed. `sizes`: of the answers to guesses, in bytes."""

    def __init__(self, proxy: str) -> None:
        host, _, port = proxy.rpartition(":")
        self._proxy = host, int(port)
        self._waiting: dict[str, asyncio.Future[tuple[float, bytes]]] = {}
        self._count = 0
        self.sizes: Counter[int] = Counter()

    async def __aenter__(self) -> "Guesser":
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0), remote_addr=self._proxy
        )
        self._address = "{}:{}".format(*self._transport.get_extra_info("sockname"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:
        received_s = time.perf_counter()
        branch = data[data.index(b"z9hG4bK") :].split(b";")[0].decode()
        waiting = self._waiting.pop(branch, None)
        if waiting is not None and not waiting.done():
            waiting.set_result((received_s, data))

    async def guess(self, user: str) -> float:
        """Milliseconds until a wrong password of the user is refused."""
        self._count += 1
        call_id = f"{self._count:08}"
        _, response = await self._ask(user, call_id, 1)
        challenge = parse_challenge(response.get_all("www-authenticate")[0])
        uri = f"sip:{DEFAULT_REALM}"
        answer = challenge.answer(user, "not-the-password", "REGISTER", uri, cnonce=call_id)
        delay_s, response = await self._ask(user, call_id, 2, ("Authorization", str(answer)))
        if response.status != 401:
            raise RuntimeError(f"a wrong password got {response.status}")
        self.sizes[len(response.to_bytes())] += 1
        return delay_s * 1e3

    async def _ask(self, user: str, call_id: str, cseq: int, *more: tuple[str, str]) -> tuple[float, Response]:
        branch = f"z9hG4bK{call_id}{cseq}"
        request = build.request(
            "REGISTER",
            f"sip:{DEFAULT_REALM}",
            via=f"SIP/2.0/UDP {self._address};branch={branch};rport",
            from_=f"<sip:{user}@{DEFAULT_REALM}>;tag={call_id}",
            to=f"<sip:{user}@{DEFAULT_REALM}>",
            call_id=call_id,
            cseq=cseq,
            headers=[("Contact", f"<sip:{user}@{self._address}>"), *more],
        ).to_bytes()
        waiting = self._waiting[branch] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(ANSWER_S):
            began_s = time.perf_counter()
            self._transport.sendto(request)
            received_s, data = await waiting
        response = parse(data)
        assert isinstance(response, Response)
        return received_s - began_s, response


def mann_whitney_z(first: Sequence[float], second: Sequence[float]) -> float:
    """How many standard deviations the rank sum of `first` is above what it is without any difference. Times with a
    resolution of nanoseconds have hardly any ties; those there are have the mean of their ranks."""
    ordered = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    ranks, start = 0.0, 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        ranks += sum(1 for _, group in ordered[start:end] if group == 0) * (start + 1 + end) / 2
        start = end
    count, other = len(first), len(second)
    mean = count * (count + other + 1) / 2
    return float((ranks - mean) / (count * other * (count + other + 1) / 12) ** 0.5)


def _table(cold: Mapping[str, Sequence[float]], warm: Mapping[str, Sequence[float]], sizes: Counter[int]) -> Table:
    rows: list[list[str | int | float]] = []
    worst = 0.0
    for state, delays in (("cold", cold), ("warm", warm)):
        for kind in KINDS:
            z = mann_whitney_z(delays[kind], delays[KNOWN])
            worst = max(worst, abs(z))
            quartiles = statistics.quantiles(delays[kind], n=4)
            rows.append([state, kind, len(delays[kind]), *quartiles, "–" if kind == KNOWN else f"{z:+.2f}"])
    return Table(
        "Which users exist: the time of a refusal",
        ["cache", "guess at", "tries", "p25 ms", "p50 ms", "p75 ms", "z"],
        rows,
        [
            f"z: by the Mann-Whitney U test against {KNOWN} in the same cache. To reach: within ±{Z_MAX:g}: "
            f"{'reached' if worst < Z_MAX else 'missed'} (worst {worst:.2f}).",
            f"Kinds in random order, {AT_ONCE} tries at once. Sizes of all {sum(sizes.values()):,} answers in bytes: "
            f"{', '.join(str(size) for size in sorted(sizes))}.",
            f"Load average over the last five minutes: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores.",
        ],
    )
