"""Calls through a cluster's edge, from its network: `python -m tests.cluster.calls '{"edge": "10.96.0.9:5060", …}'`.

A program of its own, because whoever calls must be inside the node's network. Prints what became of each call as JSON;
the line `ready` comes before, as soon as the carrier answers.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from callwarden.testing.phones import PhoneCall, Phones
from tests.cluster.layout import CARRIER, PHONES

ANSWER_S: Final = 40.0
"""RFC 3261 gives a request 32 s."""
SIP_PORT: Final = 5_060
NO_ANSWER: Final = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be called: `rate` calls a second for `seconds`, each talked in for `talk_s`; `held` more calls from
    the first second to the last."""

    edge: str
    users: Sequence[str]
    password: str
    realm: str
    prefix: str
    rate: float = 1.0
    seconds: float = 1.0
    talk_s: float = 1.0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call. Statuses are SIP's, NO_ANSWER if none came."""

    at_s: float
    """When it began, from the start of the load."""
    call_id: str
    invite: int
    bye: int = NO_ANSWER
    cut: bool = False
    """The edge or the carrier ended it."""
    held: bool = False


async def main(load: Load) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    async with Phones(load.edge, host=CARRIER, port=SIP_PORT), Phones(load.edge, host=PHONES) as phones:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        start_s = loop.time()
        over = asyncio.Event()

        async def answered(future: "asyncio.Future[int]") -> int:
            try:
                return await asyncio.wait_for(future, ANSWER_S)
            except (TimeoutError, OSError):
                return NO_ANSWER

        async def make(number: int, *, held: bool) -> Outcome:
            at_s = loop.time() - start_s
            user = load.users[number % len(load.users)]
            call: PhoneCall = phones.call(user, load.password, load.realm, f"{load.prefix}{number:07}")
            status = await answered(call.status)
            if status != 200:
                return Outcome(at_s, call.call_id, status, held=held)
            if held:
                await over.wait()
            else:
                await asyncio.wait([ended := loop.create_task(call.ended.wait())], timeout=load.talk_s)
                ended.cancel()
            if call.cut:
                return Outcome(at_s, call.call_id, status, cut=True, held=held)
            bye = await answered(loop.create_task(phones.hang_up(call)))
            return Outcome(at_s, call.call_id, status, bye, call.cut, held)

        tasks = [loop.create_task(make(number, held=True)) for number in range(load.held)]
        for number in range(max(1, round(load.rate * load.seconds))):
            # Each at its time, however long the one before takes: a slow system isn't spared.
            await asyncio.sleep(max(0.0, start_s + number / load.rate - loop.time()))
            tasks.append(loop.create_task(make(load.held + number, held=False)))
        await asyncio.sleep(max(0.0, start_s + load.seconds - loop.time()))
        over.set()
        return list(await asyncio.gather(*tasks))


if __name__ == "__main__":
    results = asyncio.run(main(Load(**json.loads(sys.argv[1]))))
    sys.stdout.write(json.dumps([asdict(each) for each in results]) + "\n")
