"""SIPp, a SIP traffic generator that isn't ours: runs its scenarios and reads its figures.

Scenarios stand beside this module as XML. Callers without it skip by callwarden.testing.programs.
"""

import asyncio
import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# How callers prove who they are is left at its default: SIPp 3.6 answers the first challenge of a response only, and
# only if it is MD5. All its calls come from one address, which the limits for a stranger would ban.
POLICY: Final = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: sipp}
spec:
  firewall: {allow: [127.0.0.0/8]}
  # Thousands of calls of a second each to one number are what these lists are for.
  fraud: {smartList: {enabled: false}, dynamicList: {enabled: false}}
"""

SCENARIOS: Final = Path(__file__).with_name("scenarios")
_COUNTS = re.compile(
    r"^\s*(Successful call|Failed call|Total Calls created|Retransmissions?)\s*\|\s*\S*\s*\|\s*(\d+)", re.M
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one SIPp process saw. `delays_ms`: for each call, from its timed request to the timed answer."""

    exit_code: int
    created: int
    successful: int
    failed: int
    delays_ms: tuple[float, ...]
    errors: str

    def delay_ms(self, quantile: float) -> float:
        """The quantile (0 to 1) of the delays; NaN where none was measured."""
        if not self.delays_ms:
            return float("nan")
        ordered = sorted(self.delays_ms)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def users_file(path: Path, users: Sequence[tuple[str, str]]) -> Path:
    """An injection file of (user name, password) in the order in which calls take them."""
    lines = [f"{user};[authentication username={user} password={password}]" for user, password in users]
    path.write_text("SEQUENTIAL\n" + "\n".join(lines) + "\n")
    return path


async def run(
    scenario: str,
    remote: str,
    *,
    folder: Path,
    local_port: int,
    injection: Path,
    called: str,
    realm: str,
    calls: int,
    rate: float,
    hold_ms: int = 0,
    simultaneous: int = 15_000,
    local_host: str = "127.0.0.1",
    timeout_s: float = 120,
    measure: bool = False,
) -> Result:
    """Runs a caller's scenario until all its calls have ended. `scenario` is the name of a file in scenarios/.

    All calls go to one number: SIPp takes the digest's URI, which must be the request's, from its command line.
    """
    arguments = _arguments(scenario, folder, local_host, local_port, timeout_s)
    arguments += ["-m", str(calls), "-r", f"{rate:g}", "-rp", "1000", "-l", str(simultaneous), "-d", str(hold_ms)]
    arguments += ["-inf", str(injection), "-auth_uri", f"{called}@{realm}"]
    arguments += ["-key", "called", called, "-key", "realm", realm]
    if measure:
        # SIPp's own response times have a resolution of 1 ms; the message log's stamps have microseconds.
        arguments += ["-trace_shortmsg"]
    process = await asyncio.create_subprocess_exec(
        "sipp",
        *arguments,
        remote,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TERM": "dumb"},
    )
    try:
        async with asyncio.timeout(timeout_s + 15):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    # The last screen is the final one; counters stand in it as "Successful call | 0 | 5".
    counts = {name: int(value) for name, value in _COUNTS.findall(text)}
    errors = _errors(folder)
    return Result(
        exit_code=process.returncode if process.returncode is not None else -1,
        created=_created(text),
        successful=counts.get("Successful call", 0),
        failed=counts.get("Failed call", 0),
        delays_ms=tuple(_delays(folder)) if measure else (),
        errors=errors or text[-2000:],
    )


async def registers(
    remote: str, *, folder: Path, local_port: int, user: str, password: str, realm: str, timeout_s: float = 30
) -> bool:
    """Whether a phone that SIPp plays gets a 200 to its REGISTER."""
    arguments = _arguments("registration.xml", folder, "127.0.0.1", local_port, timeout_s)
    arguments += ["-m", "1", "-s", user, "-au", user, "-ap", password, "-key", "realm", realm]
    process = await asyncio.create_subprocess_exec(
        *("sipp", *arguments, remote), cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(timeout_s + 15):
            return await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Answerer:
    """A SIPp that answers calls until it is left: a carrier's switch. Use as `async with`."""

    def __init__(self, scenario: str, folder: Path, local_port: int, local_host: str = "127.0.0.1") -> None:
        self._arguments = [*_arguments(scenario, folder, local_host, local_port, 3600), "-l", "15000"]
        self._folder = folder
        self.address = f"{local_host}:{local_port}"

    async def __aenter__(self) -> "Answerer":
        self._process = await asyncio.create_subprocess_exec(
            "sipp",
            *self._arguments,
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "TERM": "dumb"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid


def _arguments(scenario: str, folder: Path, local_host: str, local_port: int, timeout_s: float) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *("-sf", str(SCENARIOS / scenario)),
        *("-i", local_host, "-p", str(local_port)),
        *("-timeout", f"{timeout_s:g}s", "-timeout_error"),
        *(
            "-recv_timeout",
            "20000",
            "-trace_err",
            "-nostdin",
            "-cp",
            str(local_port + 1 if local_port < 65535 else 1024),
        ),
        *("-buff_size", "1048576"),
    ]


def _created(text: str) -> int:
    found = re.findall(r"(\d+)\s*Total calls created|Total Calls? created\s*\|\s*\S*\s*\|?\s*(\d+)", text, re.I)
    numbers = [int(first or second) for first, second in found]
    return max(numbers, default=0)


def _delays(folder: Path) -> list[float]:
    """Milliseconds from the last INVITE that was sent of each call to its 2xx."""
    sent: dict[str, float] = {}
    delays = []
    for path in folder.glob("*_shortmessages.log"):
        with path.open(errors="replace", newline="") as file:
            for row in csv.reader(file, delimiter="\t"):
                if len(row) < 7 or not row[5].endswith("INVITE"):
                    continue
                at_s, direction, call_id, line = float(row[2]), row[3], row[4], row[6]
                if direction == "S":
                    sent[call_id] = at_s
                elif line.startswith("SIP/2.0 2") and call_id in sent:
                    delays.append((at_s - sent.pop(call_id)) * 1000)
    return delays


def _errors(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[:4000] for path in folder.glob("*_errors.log"))
