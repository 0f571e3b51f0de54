"""Channels to our other services, and the one way to make a unary call.

No retries: who calls knows whether a second try is safe and whether there is time; grpc's hidden ones would double a
load that is too high already.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import grpc.aio

from callwarden.common.rpc.interceptors import ERROR_KEY, ClientInterceptor
from callwarden.common.rpc.renewing import RenewingChannel, TokenChannel
from callwarden.common.rpc.server import CONNECTION_OPTIONS, MESSAGE_BYTES_MAX, TlsFiles
from callwarden.common.rpc.status import to_error
from callwarden.common.rpc.tokens import TokenFile
from callwarden.kernel.errors import CallwardenError

# Who a client is.
Credentials: TypeAlias = TlsFiles | TokenFile

Request = TypeVar("Request")
Reply = TypeVar("Reply")

RECONNECT_MIN_MS: Final = 50
RECONNECT_MAX_MS: Final = 1_000  # A restarted pod is back in seconds; a minute (grpc's default) would be an outage.

_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    *CONNECTION_OPTIONS,
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", RECONNECT_MIN_MS),
    ("grpc.min_reconnect_backoff_ms", RECONNECT_MIN_MS),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
    # Of a name behind which pods have changed; gRPC's default would be half a minute without anybody.
    ("grpc.dns_min_time_between_resolutions_ms", RECONNECT_MAX_MS),
    # Channels to one target share no connection, so that closing one or a stuck one does not touch the other.
    ("grpc.use_local_subchannel_pool", 1),
)


def channel(target: str, credentials: Credentials | None = None, *, peer: str = "") -> grpc.aio.Channel:
    """A channel to `host:port`. Connects when first used. Close it: `async with channel(…) as c` or runtime.open().

    `credentials` say who we are: certificates of mutual TLS, or a token; our servers answer nobody else. With
    certificates the server must be `peer`, a service's name (`rate-guard`), whatever the address is: pods are found by
    theirs, which no certificate can name. Empty: the target's host, as on the web. OSError if its files can't be read.
    """
    interceptors = (ClientInterceptor(),)
    if not isinstance(credentials, TlsFiles):
        plain = grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=interceptors)
        return plain if credentials is None else TokenChannel(credentials, plain)
    options = (*_OPTIONS, ("grpc.ssl_target_name_override", peer)) if peer else _OPTIONS
    return RenewingChannel(
        credentials,
        lambda read: grpc.aio.secure_channel(target, read, options=options, interceptors=interceptors),
    )


async def unary(method: Any, request: Any, *, timeout_s: float | None = None) -> Any:
    """Call `stub.Method` and give the reply; every failure is a CallwardenError, as the server meant it.

    The deadline is `timeout_s` (5 s if None) but never later than that of the request we are serving ourselves.
    """
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise _translated(error) from error


async def streamed(method: Any, request: Any, *, timeout_s: float) -> AsyncIterator[Any]:
    """Call `stub.Method` that answers with a stream; failures, also midway, are as of `unary`."""
    try:
        async for part in method(request, timeout=timeout_s):
            yield part
    except grpc.aio.AioRpcError as error:
        raise _translated(error) from error


def _translated(error: grpc.aio.AioRpcError) -> CallwardenError:
    # Only our own servers' texts are meant for callers; grpc's name addresses and sockets.
    metadata: Mapping[Any, Any] = dict(error.trailing_metadata() or ())
    text = (error.details() or "") if ERROR_KEY in metadata else ""
    return to_error(error.code().value[0], text, field=str(metadata.get(ERROR_KEY, "")))
