"""Channels that show what their files hold at each call: certificates or a token, which may be renewed.

Files are checked before each call, and read again if they changed.

A call here is a unary one or the opening of a stream, so that the frames of a stream cost nothing more. gRPC binds
certificates to a channel, hence a new channel beneath for each reading. A renewal does not break open
connections: TLS authenticated the peer once, and what runs on the old channel continues until it ends.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from callwarden.common.logs import get_logger
from callwarden.common.rpc.server import Stamp, TlsFiles
from callwarden.common.rpc.tokens import TokenFile

log = get_logger(__name__)

# A channel that was replaced goes when nothing runs on it any more. One a stream at most is kept, so this is no bound
# that is ever met: gRPC wants one.
LINGER_S: Final = 400 * 86_400.0

Connect = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class PerCallChannel(grpc.aio.Channel):
    """Looks up at each call which channel it goes to, and what metadata it shows."""

    def newest(self) -> grpc.aio.Channel:
        """The channel beneath, as of now."""
        raise NotImplementedError

    def shown(self) -> tuple[tuple[str, str], ...]:
        """Metadata for this call."""
        return ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self.newest().close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.newest().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.newest().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.newest().channel_ready()

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return self._method("unary_unary", args, options)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return self._method("unary_stream", args, options)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return self._method("stream_unary", args, options)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return self._method("stream_stream", args, options)

    def _method(self, kind: str, args: tuple[Any, ...], options: dict[str, Any]) -> Callable[..., Any]:
        """A method as a stub stores it: resolved on the newest channel at each call (5 µs)."""

        def call(*call_args: Any, **call_options: Any) -> Any:
            if shown := self.shown():
                call_options["metadata"] = (*(call_options.get("metadata") or ()), *shown)
            return getattr(self.newest(), kind)(*args, **options)(*call_args, **call_options)

        return call


class TokenChannel(PerCallChannel):
    """Shows a token with each call. The token is in clear: for a connection that stays on this machine, or where a
    network is trusted as much."""

    def __init__(self, token: TokenFile, inner: grpc.aio.Channel) -> None:
        self._token = token
        self._inner = inner

    def newest(self) -> grpc.aio.Channel:
        return self._inner

    def shown(self) -> tuple[tuple[str, str], ...]:
        return self._token.metadata()


class RenewingChannel(PerCallChannel):
    """What `connect` makes of the certificates as they are now."""

    def __init__(self, tls: TlsFiles, connect: Connect) -> None:
        """OSError if the files can't be read."""
        self._tls = tls
        self._connect = connect
        self._stamp, self._inner = self._open()
        self._lingering: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def _open(self) -> tuple[Stamp, grpc.aio.Channel]:
        stamp, credentials = self._tls.channel_credentials()
        return stamp, self._connect(credentials)

    def newest(self) -> grpc.aio.Channel:
        """The channel with the certificates of now. 10 µs."""
        try:
            if self._tls.stamp() != self._stamp:
                old, (self._stamp, self._inner) = self._inner, self._open()
                log.info("tls.renewed", side="client", certificate=str(self._tls.cert))
                task = asyncio.create_task(old.close(LINGER_S))
                self._lingering[task] = old
                task.add_done_callback(self._lingering.pop)
        except OSError as error:  # between an old file and a new one, or gone: what was read is still good
            log.warning("tls.unreadable", error=error, side="client")
        return self._inner

    async def close(self, grace: float | None = None) -> None:
        lingering = dict(self._lingering)
        for task in lingering:
            task.cancel()
        await asyncio.gather(*lingering, return_exceptions=True)
        await asyncio.gather(*(inner.close(grace) for inner in (*lingering.values(), self._inner)))
