"""Settings that every process shares, read from the environment (`CALLWARDEN_…`) when they are made, never at import.

A service subclasses `Settings` with its own fields; the prefix stays, nested models use `__`
(`CALLWARDEN_LIMITS__LINES_MAX`). What belongs to an operator's policy is not here but in the policy bundle.
"""

import ipaddress
import os
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def bracketed(text: object) -> object:
    """v6:port as [v6]:port: what `$(POD_IP):7000` gives in a pod. Anything else is returned unchanged."""
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    try:
        return f"[{ipaddress.IPv6Address(host)}]:{port}"
    except ValueError:
        return text


Bracketed = BeforeValidator(bracketed)

# host:port, [v6]:port; port 0 lets the kernel choose (the ready file says which).
Listen = Annotated[str, Bracketed, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.\-]+):[0-9]{1,5}$")]


def _default_instance() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class Settings(BaseSettings):
    """The process-wide part. Frozen: a change of settings is a new process, a change of policy is a new bundle."""

    model_config = SettingsConfigDict(
        env_prefix="CALLWARDEN_",
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # a URL that does not parse may hold a password
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    grpc_listen: Listen = "127.0.0.1:0"
    """Where gRPC (health, reflection, the service itself) is served."""

    metrics_listen: Listen = "127.0.0.1:0"
    """Where /metrics, /healthz and /readyz are served, over plain HTTP."""

    nats_url: SecretStr = SecretStr("nats://127.0.0.1:4222")
    """One URL or several with commas. Secret because it may hold user and password; never logged."""

    nats_replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Replicas of the streams and buckets: 1 on one machine, 3 on a cluster of three NATS servers or more."""

    database_url: SecretStr = SecretStr("postgresql+asyncpg://callwarden@127.0.0.1:5432/callwarden")
    """`postgresql+asyncpg://` or `cockroachdb+asyncpg://`. Never logged."""

    database_connections_max: Annotated[int, Field(ge=1, le=200)] = 8
    """Connections a pool may open. A PostgreSQL takes 100 by default, from all processes together."""

    otlp_endpoint: str = Field(
        default="", validation_alias=AliasChoices("CALLWARDEN_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )
    """OTLP over gRPC for traces and metrics, e.g. `http://collector:4317`. Empty: nothing is exported."""

    trace_sample_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Share of new traces that are recorded; decided where a call enters and followed by every hop."""

    start_timeout_s: Annotated[float, Field(gt=0.0, le=600.0)] = 15.0
    """How long to wait at start for what the process can't do without (NATS); then it ends, to be started again. For
    the database's schema it waits as long as it takes."""

    drain_timeout_s: Annotated[float, Field(ge=0.0, le=600.0)] = 10.0
    """How long running requests may take to finish after SIGTERM. Keep below terminationGracePeriodSeconds."""

    instance: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,127}$")] = Field(
        default_factory=_default_instance, validate_default=False
    )
    """This process among its equals: the pod's name. Part of NATS KV keys, so no dots."""

    ready_file: Path | None = None
    """JSON with pid and chosen ports, written atomically when the process is ready, removed when it stops."""

    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    """PEM files for mutual TLS between services; all three or none. The certificate names the service (`auth`), which
    its callers ask for. Renewed ones are read when they are there, for connections made from then on."""

    token_file: Path | None = None
    """This process's own token, where there is no mutual TLS: it proves to other services which one this is."""

    callers_file: Path | None = None
    """JSON with the SHA-256 of every role's tokens (`{"edge-proxy": ["…"]}`): whom this process serves, without TLS."""

    grpc_open: bool = False
    """Serve everyone who can connect, without certificate or token. Otherwise a process with neither does not start."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if len({path is None for path in (self.tls_cert, self.tls_key, self.tls_ca)}) != 1:
            raise ValueError("tls_cert, tls_key and tls_ca belong together: set all three or none")
        return self


def split_listen(listen: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` into host (without brackets) and port."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def redact_url(url: str) -> str:
    """The URL without user, password and query, fit for a log: `postgresql://…@db:5432/callwarden`."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "…"
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    return f"{scheme}://{'…@' if at else ''}{host.partition('?')[0]}{slash}{path.partition('?')[0]}"
