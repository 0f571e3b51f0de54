"""The long work on large decks in a process of its own: the event loop that answers quotes only moves bytes.

In: both ends. `ProcessDeckWork` starts this module as a program, which serves one request and ends; it inherits
environment and log. Out: the work (app.deck_work).

Requests and replies are frames: eight bytes of length, then a pickle or plain bytes. A request is a pickled `_Request`,
then the parts of the file and an empty frame. Replies are pickled but for `PackedRows`: the columns follow as plain
frames, so that none is copied twice. The program's input stays open until its parent has the reply. If it ends before
that, nobody waits any more: the work is given up, and an import deletes what it has written.
"""

import asyncio
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any, Final

from callwarden.common import logs
from callwarden.common.clock import SystemClock
from callwarden.common.pace import let_others_first
from callwarden.common.settings import Settings
from callwarden.common.sql import Database
from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.errors import ERROR_OF_KIND, CallwardenError, ErrorKind, Unavailable
from callwarden.rating.adapters.decks_sql import SqlDeckStore
from callwarden.rating.app.deck_work import StoreDeckWork
from callwarden.rating.core.deck import DeckHead, ImportedDeck, PackedRows, RowPacker
from callwarden.rating.ports import DeckStore, DeckWork

log = logs.get_logger(__name__)

SMALL_BYTES: Final = 16_384
"""A file up to this size, some 400 rows, takes 5 ms here; a process takes a second to start."""
SMALL_PAGES: Final = 1
"""Pages of rows that are packed here, in 8 ms each."""

_LENGTH_BYTES: Final = 8
_BUFFER_BYTES: Final = 256 * 1024
_END_S: Final = 5.0  # How long the process may take to give up an import and delete what it has written.


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be done: an import, or packing the version of the deck that `head` names."""

    head: DeckHead
    is_import: bool


@dataclass(frozen=True, slots=True)
class _Failed:
    """The error of a request."""

    kind: ErrorKind
    message: str
    field: str


class ProcessDeckWork:
    """ports.DeckWork: small decks `here`, in this process, and others in one that is started for them."""

    def __init__(self, store: DeckStore, here: DeckWork) -> None:
        self._store = store
        self._here = here

    async def replace(self, head: DeckHead, content: AsyncIterable[bytes]) -> ImportedDeck | list[LineError]:
        parts = aiter(content)
        begin = b""
        async for part in parts:
            begin += part
            if len(begin) > SMALL_BYTES:
                break
        else:
            return await self._here.replace(head, _given([begin]))
        async with _process() as process:
            await _send(process, pickle.dumps(_Request(head, is_import=True)), begin)
            async for part in parts:
                if part:
                    await _send(process, part)
            await _send(process, b"")
            reply = await _reply(process)
        if not isinstance(reply, ImportedDeck | list):
            raise AssertionError(f"the answer to an import is a {type(reply).__name__}")
        return reply

    async def pack(self, head: DeckHead) -> PackedRows:
        packer, pages = RowPacker(), 0
        async for page in self._store.rows(head.name, head.version):
            pages += 1
            if pages > SMALL_PAGES:
                break
            packer.add(page)
        else:
            return packer.pack()
        async with _process() as process:
            await _send(process, pickle.dumps(_Request(head, is_import=False)))
            await _reply(process)
            return PackedRows(*[await _frame(_output(process)) for _ in fields(PackedRows)])


async def _given(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@asynccontextmanager
async def _process() -> AsyncIterator[Process]:
    """One that serves a request. Raises Unavailable if it can't be started, or ends before it has answered."""
    try:
        process = await asyncio.create_subprocess_exec(
            # -P: a folder named callwarden in the current one is not ours.
            *(sys.executable, "-P", "-m", "callwarden.rating.adapters.deck_process"),
            stdin=PIPE,
            stdout=PIPE,
            limit=_BUFFER_BYTES,
        )
    except OSError as error:
        log.warning("deck_process.not_started", error=error)
        raise Unavailable("the process for price lists can't be started") from error
    try:
        yield process
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise Unavailable("the process for price lists ended before its work was done") from error
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await process.wait()
        finally:
            if process.returncode is None:  # What it hasn't deleted of an import, the next one deletes.
                process.kill()
        if process.returncode:
            log.warning("deck_process.failed", code=process.returncode)


async def _send(process: Process, *frames: bytes) -> None:
    pipe = process.stdin
    if pipe is None:
        raise AssertionError("it was started with a pipe")
    for frame in frames:
        pipe.write(len(frame).to_bytes(_LENGTH_BYTES))
        pipe.write(frame)
    await pipe.drain()


def _output(process: Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise AssertionError("it was started with a pipe")
    return process.stdout


async def _frame(pipe: asyncio.StreamReader) -> bytes:
    return await pipe.readexactly(int.from_bytes(await pipe.readexactly(_LENGTH_BYTES)))


async def _reply(process: Process) -> Any:
    """What it answered. Raises the error that it answered."""
    reply = pickle.loads(await _frame(_output(process)))  # noqa: S301 - from our own program, by a pipe of our own
    if isinstance(reply, _Failed):
        raise ERROR_OF_KIND[reply.kind](reply.message, field=reply.field)
    return reply


# The other end.


async def _serve(settings: Settings) -> None:
    pipe = asyncio.StreamReader(_BUFFER_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(pipe), sys.stdin.buffer)
    try:
        request = pickle.loads(await _frame(pipe))  # noqa: S301 - from our parent
        parts = [part async for part in _parts(pipe)] if request.is_import else []
    except asyncio.IncompleteReadError:
        return
    async with Database(settings.database_url.get_secret_value(), connections_max=1, application="rating") as database:
        working = asyncio.create_task(_answer(StoreDeckWork(SqlDeckStore(database), SystemClock()), request, parts))
        reading = asyncio.create_task(pipe.read(1))  # Nothing more is sent: this returns when nobody waits any more.
        reading.add_done_callback(lambda _: working.cancel())
        try:
            for frame in await working:
                sys.stdout.buffer.write(len(frame).to_bytes(_LENGTH_BYTES))
                sys.stdout.buffer.write(frame)
            sys.stdout.buffer.flush()
        except asyncio.CancelledError:
            if not reading.done():
                raise
            log.info("deck_process.given_up", deck=request.head.name)
        finally:
            reading.cancel()


async def _parts(pipe: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while part := await _frame(pipe):
        yield part


async def _answer(work: DeckWork, request: _Request, parts: list[bytes]) -> list[bytes]:
    """The frames of the reply."""
    try:
        if request.is_import:
            return [pickle.dumps(await work.replace(request.head, _given(parts)))]
        packed = await work.pack(request.head)
        return [pickle.dumps(None), *(getattr(packed, field.name) for field in fields(packed))]
    except CallwardenError as error:
        return [pickle.dumps(_Failed(error.kind, error.message, error.field))]


def main() -> None:
    let_others_first()
    settings = Settings()
    logs.configure("rating", settings.instance, level=settings.log_level, style=settings.log_format)
    try:
        asyncio.run(_serve(settings))
    except Exception as error:
        log.error("deck_process.failed", error=error)
        sys.exit(1)


if __name__ == "__main__":
    main()
