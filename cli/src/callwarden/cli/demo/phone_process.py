"""One phone in a process of its own: baresip (a SIP stack that is not ours), driven by JSON lines on standard input.

Run as `python -m callwarden.cli.demo.phone_process`. In: requests {"id", "do", …}, answered by {"reply": id, …}; out:
events {"event", "call", …}. It ends when its input does, so it never outlives who started it. baresip's state is global
to a process, which is why a phone is one. The parent's side is callwarden.cli.demo.phones.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TextIO

import baresip

_CALLS_MAX = 16  # Calls a request may name; the demo makes seven.


class BaresipPhone:
    """Accounts and calls of this process."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._runtime = baresip.Runtime()
        self._agent: Any = None
        self._calls: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._early: dict[int, list[Any]] = {}
        self._answers_after_s = 0.0
        self._incoming = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self,
        *,
        user: str,
        domain: str,
        password: str,
        proxy: str,
        listen: str,
        register: bool,
        answer_after_s: float,
        any_number: bool,
        address: str,
    ) -> dict[str, Any]:
        self._answers_after_s = answer_after_s
        await self._runtime.start(
            baresip.Config(
                net_interface=address,
                max_concurrent_calls=None,
                sip_trace=True,
                extra_config_text=f"sip_listen {listen}\n",
            )
        )
        self._agent = await baresip.UserAgent.create(
            self._runtime,
            baresip.Account(
                user=user,
                domain=domain,
                password=password,
                registrar=proxy or None,
                reg_interval=600 if register else 0,
                extra_params=("catchall=yes",) if any_number else (),
            ),
        )
        self._runtime.subscribe(self._on_event)
        self._agent.on_incoming(self._on_incoming)
        return {}

    async def register(self) -> dict[str, Any]:
        try:
            await self._agent.register(timeout=5.0)
        except baresip.RegistrationError as error:
            return {"registered": False, "status": error.status or 0, "reason": error.reason}
        return {"registered": True, "status": 200, "reason": "OK"}

    async def dial(self, *, uri: str, call: str) -> dict[str, Any]:
        if len(self._calls) >= _CALLS_MAX:
            raise ValueError("too many calls")
        made = await self._agent.dial(uri)
        self._calls[call] = made
        self._names[made.handle] = call
        for event in self._early.pop(made.handle, ()):
            self._on_event(event)
        return {"call_id": made.call_id or ""}

    async def hang_up(self, *, call: str) -> dict[str, Any]:
        with contextlib.suppress(baresip.StaleHandleError):  # The other side was faster.
            await self._calls[call].hangup()
        return {}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._runtime.close()

    def emit(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def _on_incoming(self, call: Any) -> None:
        self._incoming += 1
        name = f"incoming-{self._incoming}"
        self._calls[name] = call
        self._names[call.handle] = name
        self.emit({"event": "incoming", "call": name, "call_id": call.call_id or "", "peer": call.peer or ""})
        task = asyncio.ensure_future(self._answer(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: Any) -> None:
        await asyncio.sleep(self._answers_after_s)  # A person picks up after a ring.
        with contextlib.suppress(baresip.BaresipError):
            await call.answer()

    def _on_event(self, event: Any) -> None:
        name = self._names.get(event.call)
        if name is None:
            # An answer may be faster than the command that dialled; it is told when the call has its name.
            if event.call and len(self._early) < _CALLS_MAX:
                self._early.setdefault(event.call, []).append(event)
            return
        kind = {
            baresip.Event.CALL_RINGING: "ringing",
            baresip.Event.CALL_ESTABLISHED: "established",
            baresip.Event.CALL_CLOSED: "closed",
        }.get(event.event)
        if kind is None:
            return
        # CLOCK_MONOTONIC is one clock for all processes of a machine.
        self.emit(
            {
                "event": kind,
                "call": name,
                "call_id": event.call_id or "",
                "text": event.text or "",
                "at_s": time.monotonic(),
                "packets_received": event.stats.get("rx", {}).get("packets", 0),
            }
        )
        if kind == "closed":
            self._calls.pop(name, None)
            self._names.pop(event.call, None)


async def serve(out: TextIO) -> None:
    phone = BaresipPhone(out)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    actions: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
        "start": phone.start,
        "register": phone.register,
        "dial": phone.dial,
        "hang_up": phone.hang_up,
    }
    try:
        while line := await reader.readline():
            request = json.loads(line)
            number, action = request.pop("id"), actions[request.pop("do")]
            try:
                phone.emit({"reply": number, **await action(**request)})
            except (baresip.BaresipError, ValueError, KeyError) as error:
                phone.emit({"reply": number, "error": f"{type(error).__name__}: {error}"})
    finally:
        await phone.close()


def main() -> None:
    # Only our lines may go to standard output; whatever the native stack prints goes to the log.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Every SIP message as the phone saw it, with its time: what a puzzle is solved by.
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("baresip.native.sip").setLevel(logging.DEBUG)
    asyncio.run(serve(out))


if __name__ == "__main__":
    main()
