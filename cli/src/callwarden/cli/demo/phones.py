"""Phones as the story uses them: register, call, be called, hang up. Each is a process with a SIP stack not ours.

What such a process does is in callwarden.cli.demo.phone_process; here are its lines turned into calls to wait for.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from callwarden.local.services import base_environment

REPLY_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3.0


class PhoneFailed(Exception):
    """A phone's process ended or answered with an error; the message says which and why."""


@dataclass(frozen=True, slots=True)
class PhoneRegistration:
    """The registrar's final answer."""

    registered: bool
    status: int
    reason: str


@dataclass(eq=False)
class BaresipCall:
    """One call as a phone sees it. Times are seconds of the machine's monotonic clock."""

    phone: "PhoneProcess"
    name: str
    call_id: str = ""
    peer: str = ""
    answered_at_s: float = 0.0
    closed_at_s: float = 0.0
    closing: str = ""
    """What ended it: "486 Busy Here" and the like for a refusal, other words of the stack for a BYE."""
    packets_received: int = 0
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_up(self) -> bool:
        return self.answered_at_s > 0 and not self._closed.is_set()

    @property
    def status(self) -> int:
        """Final SIP status of a call that was refused; 200 of one that was answered; 0 while neither."""
        if self.answered_at_s:
            return 200
        head = self.closing.partition(" ")[0]
        return int(head) if head.isdigit() else 0

    @property
    def talked_s(self) -> float:
        """Seconds from the answer to the end."""
        return self.closed_at_s - self.answered_at_s if self.answered_at_s and self.closed_at_s else 0.0

    async def outcome(self, timeout_s: float = 15.0) -> int:
        """Wait until it is answered or refused; the final status. PhoneFailed if neither comes."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._answered, self._closed)]
        try:
            done, _ = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not done:
            raise PhoneFailed(f"{self.phone.user} got no final answer from {self.peer} within {timeout_s:g} s")
        return self.status

    async def closed(self, timeout_s: float = 30.0) -> None:
        """Wait for its end, by either side. PhoneFailed if it doesn't come."""
        if not await self.ends_within(timeout_s):
            raise PhoneFailed(f"the call of {self.phone.user} didn't end within {timeout_s:g} s")

    async def ends_within(self, timeout_s: float) -> bool:
        """Wait for its end, but no longer than that; whether it came."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()
        except TimeoutError:
            return False
        return True

    async def hang_up(self) -> None:
        """End it and wait for its end."""
        await self.phone.ask("hang_up", call=self.name)
        await self.closed(timeout_s=5.0)

    def take(self, event: dict[str, Any]) -> None:
        """An event of the phone's process."""
        self.call_id = self.call_id or event.get("call_id", "")
        self.peer = self.peer or event.get("peer", "")
        if event["event"] == "established":
            self.answered_at_s = event["at_s"]
            self._answered.set()
        elif event["event"] == "closed":
            self.closed_at_s = event["at_s"]
            self.closing = event["text"]
            self.packets_received = event["packets_received"]
            self._closed.set()


class PhoneProcess:
    """A running phone inside `async with`."""

    def __init__(self, user: str, log: Path) -> None:
        self.user = user
        self.incoming: asyncio.Queue[BaresipCall] = asyncio.Queue()
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._calls: dict[str, BaresipCall] = {}
        self._requests = 0
        self._dialled = 0

    async def __aenter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then ends its phones in order.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "callwarden.cli.demo.phone_process",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=base_environment(),
                start_new_session=True,
            )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()  # Its input ends, and so does it: unregistered calls are hung up by the stack.
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reading is not None:
            await self._reading

    @property
    def pid(self) -> int:
        """Its process; LookupError before it is started."""
        if self._process is None:
            raise LookupError(f"the phone of {self.user} was not started")
        return self._process.pid

    async def start(
        self,
        *,
        domain: str,
        listen: str,
        password: str = "",
        proxy: str = "",
        register: bool = False,
        answer_after_s: float = 0.0,
        any_number: bool = False,
        address: str = "127.0.0.1",
    ) -> None:
        """Listen on `listen` (host:port) as `user`@`domain`; everything goes to `proxy` (sip:host:port) if given.
        With `any_number` it takes calls to whatever number, as a carrier does.
        """
        await self.ask(
            "start",
            user=self.user,
            domain=domain,
            password=password,
            proxy=proxy,
            listen=listen,
            register=register,
            answer_after_s=answer_after_s,
            any_number=any_number,
            address=address,
        )

    async def register(self) -> PhoneRegistration:
        """Register and stay registered."""
        reply = await self.ask("register")
        return PhoneRegistration(reply["registered"], reply["status"], reply["reason"])

    async def dial(self, uri: str) -> BaresipCall:
        """Send an INVITE; the call to wait for."""
        self._dialled += 1
        call = BaresipCall(self, f"dialled-{self._dialled}", peer=uri)
        self._calls[call.name] = call
        reply = await self.ask("dial", uri=uri, call=call.name)
        call.call_id = call.call_id or reply["call_id"]
        return call

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request to the process. PhoneFailed if it refuses, has ended, or is silent."""
        assert self._process is not None
        assert self._process.stdin is not None
        if self._reading is None or self._reading.done():
            raise PhoneFailed(f"the phone of {self.user} can't {do}: its process has ended")
        self._requests += 1
        number = self._requests
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._process.stdin.write(json.dumps({"id": number, "do": do, **arguments}).encode() + b"\n")
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                reply: dict[str, Any] = await future
        except TimeoutError as error:
            raise PhoneFailed(f"the phone of {self.user} doesn't {do}") from error
        finally:
            del self._waiting[number]
        if "error" in reply:
            raise PhoneFailed(f"the phone of {self.user} can't {do}: {reply['error']}")
        return reply

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        take: dict[bool, Callable[[dict[str, Any]], None]] = {True: self._take_reply, False: self._take_event}
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            take["reply" in message](message)
        for future in self._waiting.values():
            if not future.done():
                future.set_result({"error": "its process has ended"})

    def _take_reply(self, message: dict[str, Any]) -> None:
        future = self._waiting.get(message["reply"])
        if future is not None and not future.done():
            future.set_result(message)

    def _take_event(self, event: dict[str, Any]) -> None:
        call = self._calls.get(event["call"])
        if call is None:
            call = self._calls[event["call"]] = BaresipCall(self, event["call"])
        call.take(event)
        if event["event"] == "incoming":
            self.incoming.put_nowait(call)
