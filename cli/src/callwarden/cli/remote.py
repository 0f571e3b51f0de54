"""Speaking to the services: channels by endpoint, errors as one line."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import typer

from callwarden.cli.failure import Failure
from callwarden.cli.state import Endpoints, find

if TYPE_CHECKING:
    import grpc.aio

    from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceAsyncStub
    from callwarden.api.admission.v1.lists_pb2_grpc import ListServiceAsyncStub
    from callwarden.api.auth.v1.auth_pb2_grpc import AuthServiceAsyncStub
    from callwarden.api.payment.v1.payment_pb2_grpc import PaymentServiceAsyncStub
    from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceAsyncStub
    from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceAsyncStub
    from callwarden.common.rpc.client import Credentials
    from callwarden.common.rpc.tokens import TokenFile

Result = TypeVar("Result")

PAGE: Final = 1_000  # The services give no more at once.
TIMEOUT_S: Final = 10.0  # A person waits no longer without a word; imports ask for more.


# The service whose stub was taken last, with its address: for the line that says who doesn't answer.
_asked: ContextVar[str] = ContextVar("asked", default="a service")


class Remote:
    """Stubs of a running system; channels are opened when first used and closed at the end of `async with`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, service: str) -> "grpc.aio.Channel":
        from callwarden.common.rpc.client import channel

        # Any process of a service answers; the first is as good as the others for one question.
        address = self.endpoints.of(service)[0]
        _asked.set(f"{service} ({address})")
        if service not in self._channels:
            self._channels[service] = channel(
                address, _credentials(os.environ, self.endpoints.token_file), peer=service
            )
        return self._channels[service]

    @property
    def accounts(self) -> "AccountServiceAsyncStub":
        from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceStub

        return AccountServiceStub(self._channel("administration"))

    @property
    def lists(self) -> "ListServiceAsyncStub":
        from callwarden.api.admission.v1.lists_pb2_grpc import ListServiceStub

        return ListServiceStub(self._channel("administration"))

    @property
    def auth(self) -> "AuthServiceAsyncStub":
        from callwarden.api.auth.v1.auth_pb2_grpc import AuthServiceStub

        return AuthServiceStub(self._channel("auth"))

    @property
    def rating(self) -> "RatingServiceAsyncStub":
        from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceStub

        return RatingServiceStub(self._channel("rating"))

    @property
    def rate_guard(self) -> "RateGuardServiceAsyncStub":
        from callwarden.api.rateguard.v1.rateguard_pb2_grpc import RateGuardServiceStub

        return RateGuardServiceStub(self._channel("rate-guard"))

    @property
    def payment(self) -> "PaymentServiceAsyncStub":
        from callwarden.api.payment.v1.payment_pb2_grpc import PaymentServiceStub

        return PaymentServiceStub(self._channel("payment"))


def _credentials(environment: Mapping[str, str], token_file: Path | None) -> "Credentials | None":
    """Mutual TLS by the variables that the services use, all three or none; else the token. Failure for half of them,
    and for files that can't be read.
    """
    files = [environment.get(f"CALLWARDEN_TLS_{name}", "") for name in ("CERT", "KEY", "CA")]
    if not any(files):
        return None if token_file is None else _token(token_file)
    if not all(files):
        raise Failure("CALLWARDEN_TLS_CERT, CALLWARDEN_TLS_KEY and CALLWARDEN_TLS_CA belong together: set all or none")
    from callwarden.common.rpc.server import TlsFiles

    for file in files:
        if not os.access(file, os.R_OK):
            raise Failure(f"{file}: can't be read; the CALLWARDEN_TLS_ variables name it")
    return TlsFiles(*map(Path, files))


def _token(file: Path) -> "TokenFile":
    from callwarden.common.rpc.tokens import TokenFile
    from callwarden.kernel.errors import Invalid

    try:
        return TokenFile(file)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}: the administrator's token can't be read") from error
    except Invalid as error:
        raise Failure(f"{file} holds no token") from error


async def ask(method: Callable[..., Awaitable[Result]], request: Any, *, timeout_s: float = TIMEOUT_S) -> Result:
    """One question, one answer. Raises CallwardenError as the service meant it; Failure if nobody answers."""
    from callwarden.common.rpc.client import unary

    with _explained(timeout_s):
        reply: Result = await unary(method, request, timeout_s=timeout_s)
    return reply


async def ask_pages(
    method: Callable[..., Awaitable[Any]], request: Any, of: Callable[[Any], Iterable[Result]], limit: int
) -> tuple[list[Result], bool]:
    """At most `limit` of what `of` finds in the replies, page by page, and whether there is more. Raises as `ask`."""
    found: list[Result] = []
    while True:
        request.page_size = min(PAGE, limit - len(found))
        reply = await ask(method, request)
        found += of(reply)
        request.after = reply.next
        if not reply.next or len(found) >= limit:
            return found, bool(reply.next)


async def ask_parts(method: Callable[..., Any], request: Any, *, timeout_s: float) -> list[Any]:
    """All parts of a streamed answer. Raises as `ask`."""
    from callwarden.common.rpc.client import streamed

    with _explained(timeout_s):
        return [part async for part in streamed(method, request, timeout_s=timeout_s)]


async def save(method: Callable[..., Any], request: Any, file: Path | None, *, timeout_s: float) -> None:
    """Writes the pieces of a file that a service streams to `file`, or to standard output, as they come.

    The file takes its name at the end only: half an export never looks like a whole one. Raises as `ask`, and Failure
    where the file can't be written.
    """
    from callwarden.common.rpc.client import streamed

    partial = None if file is None else file.with_name(f"{file.name}.part")
    try:
        with ExitStack() as held:
            out = typer.get_binary_stream("stdout") if partial is None else held.enter_context(partial.open("wb"))
            with _explained(timeout_s):
                async for part in streamed(method, request, timeout_s=timeout_s):
                    out.write(part.data)
            out.flush()
        if partial is not None and file is not None:
            partial.replace(file)
    except OSError as error:
        raise Failure(f"{file or 'standard output'}: {error.strerror}") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


@contextmanager
def _explained(timeout_s: float) -> Iterator[None]:
    """Silence of a service, told as what to do about it."""
    from callwarden.common.rpc.status import UNSAID
    from callwarden.kernel.errors import TimedOut, Unauthenticated, Unavailable

    service = _asked.get()
    try:
        yield
    except Unavailable as error:
        if error.message.startswith(UNSAID):
            raise Failure(f"{service} doesn't answer: is the system running? `callwarden up` starts one") from error
        raise Failure(f"{service} can't do it now: {error.message}; try again, or look into its log") from error
    except Unauthenticated as error:
        raise Failure(
            f"{service} doesn't know us: run this as the user who started the system, or set CALLWARDEN_TOKEN_FILE or"
            " the CALLWARDEN_TLS_ variables to the administrator's"
        ) from error
    except TimedOut as error:
        raise Failure(f"{service} gave no answer within {timeout_s:g} s: try again, or look into its log") from error


def speak(work: Callable[[Remote], Coroutine[Any, Any, Result]]) -> Result:
    """Runs one command's work against the system found."""
    endpoints = find()

    async def session() -> Result:
        async with Remote(endpoints) as remote:
            return await work(remote)

    return asyncio.run(session())
