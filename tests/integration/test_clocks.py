"""Wall clocks that are wrong, and that are set while calls ring and talk: what is charged is what was talked.

The talk's length is known from both ends, by one monotonic clock: a call lasts at least from the 200 that the caller
got to the BYE that was sent, and at most from the 200 that the callee sent to the answer to the BYE.
"""

import asyncio
import itertools
import math
import urllib.request
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.local.system import LocalSystem
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD, OperatorClient
from callwarden.testing.phones import PhoneCall, Phones
from callwarden.testing.waiting import eventually
from callwarden.testing.wall_clocks import WallClock, needs_wall_clocks

pytestmark = [
    pytest.mark.cases,
    pytest.mark.long,
    pytest.mark.integration,
    pytest.mark.timeout(400),
    needs_wall_clocks,
]

SKEWS_S: Final = (3_600, 2, -2, 5, -5, -3_600)
"""The first is that with which the processes start; each next one is a step while calls ring and talk."""
LATE_S_MAX: Final = 1.9  # A question that a busy machine delays looks like one from a clock that is behind.
OTHERS: Final = ("rating", "auth", "rate-guard", "administration", "payment")
TALK_S: Final = 7.0  # Longer than a slice and than the reaper waits.
MICROS_A_SECOND: Final = 1_000
POLICY: Final = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: clocks}
spec:
  spend: {slice: {first: 3s, next: 3s, minimum: 1s}, grace: 2s}
  session: {ringTimeout: 20s, callInitTimeout: 5s}
"""


async def talked(phones: Phones, call: PhoneCall, callee: Phones) -> tuple[float, float]:
    """Hangs up; how long the talk was, at least and at most, in seconds."""
    hung_up_s = asyncio.get_running_loop().time()
    if not call.cut:
        assert await phones.hang_up(call) == 200
    return min(hung_up_s, call.ended_s) - call.answered_s, call.ended_s - callee.answers_s[call.call_id]


@pytest.mark.parametrize("who", ["edge-proxy", "call-admission", "the others", "*"])
async def test_talked_seconds_are_charged_whichever_clock_is_wrong_and_set(state_dir: Path, who: str) -> None:
    names = OTHERS if who == "the others" else (who,)
    clock = WallClock(state_dir / "clock", SKEWS_S[0])
    async with (
        LocalSystem(state_dir / "system", env=dict.fromkeys(names, clock.environment)) as system,
        Phones(system.sip_address) as answering,
        Phones(system.sip_address, answer=False) as ringing,
        Phones(system.sip_address) as phones,
        OperatorClient(system) as operator,
    ):
        await operator.deck()
        await operator.carrier(answering.address)
        await operator.carrier(ringing.address, name="ringing", prefix="4940")
        await operator.account("alice", lines=20, credit_micros=100_000_000)
        await operator.apply_policy(POLICY)
        assert await phones.register("alice", PASSWORD, DEFAULT_REALM) == 200
        wrong: list[str] = []
        for before_s, after_s in itertools.pairwise([*SKEWS_S, 0]):
            talks = [phones.call("alice", PASSWORD, DEFAULT_REALM, "4930123456") for _ in range(2)]
            rings = phones.call("alice", PASSWORD, DEFAULT_REALM, "4940123456")
            assert [await call.status for call in talks] == [200, 200]
            await eventually(partial(ringing.rings, rings.call_id), what="the callee's phone rings")
            skew_s = await edge_skew_s(system)
            late_s = before_s * {"edge-proxy": 1, "call-admission": -1}.get(who, 0) - skew_s
            if not -0.1 <= late_s <= LATE_S_MAX:
                wrong.append(f"{before_s:+} s, but the metric says {skew_s:+}")
            await asyncio.sleep(1.5)
            ended = talks[0], *await talked(phones, talks[0], answering)
            clock.set(after_s)
            ringing.pick_up(rings.call_id)
            assert await rings.status == 200
            await asyncio.sleep(TALK_S)
            for call, least_s, most_s in [
                ended,
                (talks[1], *await talked(phones, talks[1], answering)),
                (rings, *await talked(phones, rings, ringing)),
            ]:
                record = await record_of(operator, call)
                if call.cut or not (
                    least_s <= record.duration_s <= math.ceil(most_s)
                    and record.billed_s == record.duration_s
                    and record.price_micros + record.corrected_micros == record.billed_s * MICROS_A_SECOND
                ):
                    talk = f"talked {least_s:.1f} to {most_s:.1f} s, cut {call.cut}"
                    wrong.append(f"{before_s:+} then {after_s:+} s, {talk}: {record}")
        assert wrong == []
        if who in ("edge-proxy", "call-admission"):
            assert '"edge.clock_apart"' in system.process("call-admission").log.read_text()


async def record_of(operator: OperatorClient, call: PhoneCall) -> pb.Call:
    async def settled() -> pb.Call | bool:
        found = [one for one in await operator.calls() if one.call_id == call.call_id]
        return found[0] if found and found[0].state == "settled" else False

    found = await eventually(settled, timeout_s=60, what="the call is settled")
    assert isinstance(found, pb.Call)
    return found


async def edge_skew_s(system: LocalSystem) -> float:
    """The edge's clock less call-admission's, as that one's metric says."""
    url = f"http://{system.process('call-admission').endpoint.metrics}/metrics"
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("callwarden_admission_edge_clock_skew_seconds{")]
    return float(line.rpartition(" ")[2])
