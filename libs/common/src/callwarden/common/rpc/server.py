"""The gRPC server of a process: bounded messages, keep-alive, health, reflection, the interceptor, mutual TLS if
set.
"""

import asyncio
import os
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from callwarden.common.logs import get_logger
from callwarden.common.rpc.access import callers_of
from callwarden.common.rpc.interceptors import ServerInterceptor, Serving
from callwarden.kernel.errors import Internal, Invalid

log = get_logger(__name__)

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024  # gRPC's own default, said aloud: a rate deck goes by pages below this.
METADATA_BYTES_MAX: Final = 16 * 1024
READ_TRIES: Final = 10  # of certificates that are being exchanged at this very moment
STREAMS_MAX: Final = 1_000  # concurrent RPCs a connection; ours need a handful, since the hot ones share a stream

# Both sides.
# No probing of the bandwidth: gRPC raises and lowers the largest frame it accepts by what it measures, and one that was
# under way when it lowered it ends the connection ("Frame size … is larger than max frame size"), with all its streams.
# Within a cluster the windows it starts with are wide enough.
# A peer whose machine vanished is noticed after 20 + 5 s instead of the kernel's 15 min, which is what
# otherwise keeps a stream half dead.
CONNECTION_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_SERVER_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    *CONNECTION_OPTIONS,
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # must allow what our clients do
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.so_reuseport", 0),  # two processes on one port by accident would share its calls silently
)


class Server(grpc.aio.Server):
    """Hand it to a generated `add_…Servicer_to_server(servicer, server)`; the runtime starts and drains it."""

    def __init__(self, listen: str, serving: Serving, tls: "TlsFiles | None" = None, *, direct: bool = True) -> None:
        """`direct`: offer streams a bare connection outside gRPC, see rpc.direct; never with `tls`. Who is served is
        what `serving.gate` says.
        """
        self.serving = serving
        self._direct = direct and tls is None
        self._listen = listen
        self._tls = tls
        self._services: list[str] = []
        self._server = grpc.aio.server(interceptors=(ServerInterceptor(serving),), options=_SERVER_OPTIONS)
        self._health = health_aio.HealthServicer()
        self._starting: asyncio.Future[None] | None = None
        self.port = 0

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Called by generated code."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Called by generated code. Raises Internal for a method that doesn't say who may call it."""
        for name in method_handlers:
            if not self.serving.gate.is_open and not callers_of(f"/{service_name}/{name}"):
                raise Internal(f"{service_name}/{name} doesn't say who may call it")
        self._services.append(service_name)
        self._server.add_registered_method_handlers(service_name, method_handlers)

    async def start(self) -> None:
        """Bind, answer health with SERVING. Raises Invalid if the address can't be had."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            if self._tls is None:
                self.port = self._server.add_insecure_port(self._listen)
            else:
                self.port = self._server.add_secure_port(self._listen, self._tls.server_credentials())
        except RuntimeError as error:
            raise Invalid(f"can't listen on {self._listen} for gRPC", field="grpc_listen") from error
        if self._direct:
            await self.serving.direct.start(self._listen.rpartition(":")[0].strip("[]"))
        # gRPC's own start must run to its end: cancelled halfway (a process stopped while it starts) it leaves a
        # server whose stop raises InvalidStateError.
        self._starting = asyncio.ensure_future(self._server.start())
        await asyncio.shield(self._starting)
        for name in ("", *self._services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def not_ready(self) -> None:
        """Answer health with NOT_SERVING from now on, so that no new client connects."""
        await self._health.enter_graceful_shutdown()

    def add_insecure_port(self, address: str) -> int:
        """A further port, without TLS; the one from the settings is bound by `start`."""
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """A further port, with TLS."""
        return self._server.add_secure_port(address, server_credentials)

    async def stop(self, grace: float | None) -> None:
        """As grpc's own: refuse what is new, cancel what runs after `grace` seconds. `drain` is what you want."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Return when the server has stopped (True) or `timeout` seconds have passed."""
        return await self._server.wait_for_termination(timeout)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new RPCs, let running ones finish for at most `timeout_s`, then cancel them."""
        self.serving.direct.stop()
        self.serving.stopping.set()  # the streams tell their clients to go elsewhere, see rpc/stream.py
        await self.stop(timeout_s)


# Distinguishes one reading of the files from another.
Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class TlsFiles:
    """Mutual TLS: who we are and whom we trust, as PEM files. They may be renewed while we run: each new connection is
    made with what they hold then; those that stand go on.
    """

    def __init__(self, cert: Path, key: Path, ca: Path) -> None:
        self.cert, self.key, self.ca = cert, key, ca

    def server_credentials(self) -> grpc.ServerCredentials:
        """Clients must show a certificate of our CA. OSError if the files can't be read now."""
        read, configuration = self._server_configuration()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            # By a thread of gRPC, before each handshake. None: as before; also where gRPC can't use what it is given.
            nonlocal read
            try:
                if self.stamp() == read:
                    return None
                read, new = self._server_configuration()
            except OSError as error:
                log.warning("tls.unreadable", error=error, side="server")
                return None
            log.info("tls.renewed", side="server", certificate=str(self.cert))
            return new

        return grpc.dynamic_ssl_server_credentials(
            configuration,
            renewed,  # type: ignore[arg-type]  # None is what gRPC itself says for "as before"; its types forgot
            require_client_authentication=True,
        )

    def channel_credentials(self) -> tuple[Stamp, grpc.ChannelCredentials]:
        """Servers must show a certificate of our CA for the name we connect to. OSError if the files can't be read."""
        stamp, cert, key, ca = self._read()
        return stamp, grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)

    def stamp(self) -> Stamp:
        """Another one when any of the files has changed. 6 µs. OSError if one isn't there."""
        found = (os.stat(path) for path in (self.cert, self.key, self.ca))
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def _server_configuration(self) -> tuple[Stamp, grpc.ServerCertificateConfiguration]:
        stamp, cert, key, ca = self._read()
        return stamp, grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)

    def _read(self) -> tuple[Stamp, bytes, bytes, bytes]:
        """All three of one renewal: a kubelet exchanges them together, but not while we read."""
        for _ in range(READ_TRIES):
            before = self.stamp()
            read = self.cert.read_bytes(), self.key.read_bytes(), self.ca.read_bytes()
            if self.stamp() == before:
                return before, *read
        raise OSError(f"{self.cert} and the files next to it keep changing")
