"""`run.json`: where a running local system listens, for the command line. Light to import.

It holds the passwords of the bus and the database, so it is 0600; it exists while the system runs.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from callwarden.local.files import is_claimed, write_private

NAME = "run.json"
LOCK = "lock"
_VERSION = 2


def token_path(state_dir: Path, role: str) -> Path:
    """Where the token of a role is while the system runs, e.g. of `admin`; see callwarden.local.tokens."""
    return state_dir / "tokens" / role


class NotRunning(Exception):
    """No system runs in that folder."""


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """One process of a service. Addresses are `host:port`; empty where it has none."""

    index: int
    pid: int
    grpc: str
    metrics: str = ""
    sip: str = ""


@dataclass(frozen=True, slots=True)
class RunFile:
    """What the file says."""

    pid: int
    state_dir: str
    nats_url: str = field(repr=False)
    database_url: str = field(repr=False)  # As the owner of the tables.
    role_urls: dict[str, str] = field(repr=False)  # As the services have it, by service.
    sip: list[str]
    services: dict[str, list[ServiceEndpoint]]
    version: int = _VERSION

    def targets(self, service: str) -> list[str]:
        """The gRPC addresses of a service's processes."""
        return [endpoint.grpc for endpoint in self.services.get(service, [])]

    def write(self) -> None:
        write_private(Path(self.state_dir) / NAME, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, state_dir: Path) -> Self:
        """What runs there. NotRunning if nothing does, also when a killed system left its file behind."""
        try:
            if not is_claimed(state_dir / LOCK):
                raise NotRunning(f"no system runs in {state_dir}: start one with `callwarden up`")
            stored: dict[str, Any] = json.loads((state_dir / NAME).read_text())
        except FileNotFoundError:
            raise NotRunning(f"the system in {state_dir} is still starting") from None
        if stored.get("version") != _VERSION:
            raise NotRunning(f"the system in {state_dir} was started by another version of Callwarden")
        services = {
            name: [ServiceEndpoint(**entry) for entry in entries] for name, entries in stored.pop("services").items()
        }
        return cls(services=services, **stored)
