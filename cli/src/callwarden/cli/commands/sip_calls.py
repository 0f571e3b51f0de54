"""`callwarden sip call` and `callwarden sip answer`: the two ends of a test call.

Both are baresip, a SIP stack that is not ours, each in a process of its own (`callwarden.cli.demo.phones`), so that a
call can be tried without a phone and without a carrier. What Callwarden decided about it is in `callwarden explain`.
"""

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from callwarden.cli import output, state, values
from callwarden.cli.failure import CliMisuse, Failure

if TYPE_CHECKING:
    from callwarden.cli.demo.phones import BaresipCall, PhoneProcess

_REALM: Final = "callwarden.local"
_ANSWER_TIMEOUT_S: Final = 180.0  # A far end may ring for as long as `spec.session.ringTimeout` lets it.
_CALL_MAX_S: Final = 24 * 3600


def call(
    to: Annotated[str, typer.Argument(help="A number such as +493023125042, or the name of a local user.")],
    user: Annotated[str, typer.Option(help="Account that calls; its name is its SIP user name.")],
    password: Annotated[
        str | None,
        typer.Option(help="Its SIP password; [bold]-[/bold] reads it from standard input.", show_default=False),
    ] = None,
    realm: Annotated[str, typer.Option(help="SIP domain of the account.")] = _REALM,
    talk: Annotated[str, typer.Option("--for", help="Hang up after this time, such as 3s.")] = "3s",
    proxy: Annotated[
        str | None,
        typer.Option(
            help="host:port of the edge; without it the one that `callwarden up` started.", show_default=False
        ),
    ] = None,
) -> None:
    """Place a call as an account, talk, hang up. The exit code is 1 if the call is refused.

    Example: [bold]callwarden sip call +493023125042 --user alice --for 3s[/bold]
    """
    talk_s = values.seconds(talk, name="--for")
    if not 0 < talk_s <= _CALL_MAX_S:
        raise CliMisuse("--for: write a time of up to 24h, such as 3s")
    uri = f"sip:+{values.number(to, name='number')}@{realm}" if to.startswith("+") else f"sip:{to}@{realm}"
    edge = _edge() if proxy is None else _address(proxy, name="--proxy")
    secret = values.password_of(user, password)
    asyncio.run(_place(uri, user=user, password=secret, realm=realm, edge=edge, talk_s=talk_s))


def answer(
    listen: Annotated[str, typer.Option(help="host:port to listen on (UDP).")] = "127.0.0.1:5080",
) -> None:
    """Answer calls to every number, as a carrier would, until Ctrl-C.

    Example: [bold]callwarden sip answer --listen 127.0.0.1:5080[/bold]
    """
    asyncio.run(_answer(*_address(listen, name="--listen")))


async def _place(uri: str, *, user: str, password: str, realm: str, edge: tuple[str, int], talk_s: float) -> None:
    from callwarden.local import ports

    host, port = edge
    async with _phone(user) as phone:
        mine = ports.reserve()
        try:
            address = await _own_address(host, port)
            listen = f"{address}:{mine.number}"
            await phone.start(
                domain=realm, listen=listen, password=password, proxy=f"sip:{host}:{port}", address=address
            )
            placed = await phone.dial(uri)
            status = await placed.outcome(_ANSWER_TIMEOUT_S)
            if status != 200:
                raise Failure(f"{placed.closing or 'no answer'}; `callwarden explain {placed.call_id}` shows why")
            output.echo(f"200 OK from {placed.peer}")
            ended = "ended by the other side"
            if not await placed.ends_within(talk_s):
                await placed.hang_up()
                ended = "hung up"
            output.echo(
                f"{ended} after {placed.talked_s:.1f} s of talk, which count as begun seconds; "
                f"`callwarden explain {placed.call_id}` shows the record"
            )
        finally:
            mine.release()


async def _answer(host: str, port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with _phone("carrier") as phone:
        await phone.start(domain="carrier.example", listen=f"{host}:{port}", any_number=True, address=host)
        output.echo(f"answering every number on {host}:{port} (UDP); Ctrl-C ends it")
        taking = asyncio.create_task(_take_calls(phone))
        waiting = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait((taking, waiting), return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                taking.result()
        finally:
            for task in (taking, waiting):
                task.cancel()
            await asyncio.gather(taking, waiting, return_exceptions=True)


async def _take_calls(phone: "PhoneProcess") -> None:
    """One line at the start of each call and one at its end."""
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(_follow(await phone.incoming.get()))


async def _follow(taken: "BaresipCall") -> None:
    output.echo(f"answered a call from {taken.peer}")
    await taken.closed(float(_CALL_MAX_S))
    output.echo(f"the call from {taken.peer} ended after {taken.talked_s:.1f} s")


@contextlib.asynccontextmanager
async def _phone(user: str) -> "AsyncIterator[PhoneProcess]":
    """A running phone; its log is gone with it. Failure with its own words where it can't."""
    from callwarden.cli.demo.phones import PhoneFailed, PhoneProcess

    with tempfile.TemporaryDirectory(prefix="callwarden-phone-") as folder:
        try:
            async with PhoneProcess(user, Path(folder) / "phone.log") as phone:
                yield phone
        except PhoneFailed as error:
            raise Failure(str(error)) from error


async def _own_address(host: str, port: int) -> str:
    """The address of this machine that packets to the edge leave from."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(host, port)
    )
    try:
        return str(transport.get_extra_info("sockname")[0])
    finally:
        transport.close()


def _edge() -> tuple[str, int]:
    """Where the system in the state folder listens for SIP."""
    from callwarden.local.run_file import NotRunning, RunFile

    try:
        listening = RunFile.read(state.directory()).sip
    except (NotRunning, OSError, ValueError, KeyError) as error:
        raise Failure(
            "no running system found: start one with `callwarden up`, or name the edge with --proxy"
        ) from error
    host, port = _address(listening[0], name="run.json")
    return ("127.0.0.1" if host == "0.0.0.0" else host), port  # noqa: S104  Compared, not bound.


def _address(text: str, *, name: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535):
        raise CliMisuse(f"{name}: {text[:64]!r} is not host:port, such as 127.0.0.1:5060")
    return host, int(port)
