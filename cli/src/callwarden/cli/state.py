"""Where the system is that a command speaks to: from the environment, or from the state folder of `callwarden up`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from callwarden.cli.failure import Failure

if TYPE_CHECKING:
    from callwarden.local.run_file import RunFile

TOKEN_VARIABLE: Final = "CALLWARDEN_TOKEN_FILE"  # noqa: S105 - its name
STATE_VARIABLE: Final = "CALLWARDEN_STATE"
NATS_VARIABLE: Final = "CALLWARDEN_NATS_URL"
# The same variables by which the services find each other.
TARGETS_VARIABLE: Final = {
    "administration": "CALLWARDEN_ADMINISTRATION_TARGETS",
    "auth": "CALLWARDEN_AUTH_TARGETS",
    "rate-guard": "CALLWARDEN_RATE_GUARD_TARGETS",
    "rating": "CALLWARDEN_RATING_TARGETS",
    "payment": "CALLWARDEN_PAYMENT_TARGETS",
}

_chosen: Path | None = None


def choose(state_dir: Path | None) -> None:
    """What `--state-dir` said, for the commands of this process."""
    global _chosen
    _chosen = state_dir


def directory() -> Path:
    """The state folder: --state-dir, $CALLWARDEN_STATE or ./.callwarden; it need not exist."""
    return _chosen if _chosen is not None else Path(".callwarden")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of a running system; `targets` has `host:port` by service."""

    targets: Mapping[str, tuple[str, ...]]
    nats_url: str = field(default="", repr=False)
    instances: tuple[str, ...] = ()
    """`<service>.<instance>` of each process that should run; empty where that isn't known (a cluster)."""
    token_file: Path | None = None
    """What proves to the services that we are the administrator; None: nothing, or certificates do."""

    def of(self, service: str) -> tuple[str, ...]:
        """Addresses of one service. Failure if none is known."""
        found = self.targets.get(service, ())
        if not found:
            raise Failure(
                f"don't know where {service} is: start a system with `callwarden up`"
                f" or set {TARGETS_VARIABLE[service]}=host:port"
            )
        return found

    def nats(self) -> str:
        """URL of the bus; may hold a password. Failure if it isn't known."""
        if not self.nats_url:
            raise Failure(
                f"don't know where NATS is: start a system with `callwarden up` or set {NATS_VARIABLE}=nats://host:4222"
            )
        return self.nats_url


def find(environment: Mapping[str, str] | None = None) -> Endpoints:
    """The system to speak to. Variables go before the state folder, each by itself. Failure if nothing is known."""
    env = os.environ if environment is None else environment
    targets = {
        service: tuple(part.strip() for part in env.get(variable, "").split(",") if part.strip())
        for service, variable in TARGETS_VARIABLE.items()
    }
    nats_url = env.get(NATS_VARIABLE, "")
    token_file = Path(named) if (named := env.get(TOKEN_VARIABLE, "")) else None
    if nats_url and all(targets.values()):
        return Endpoints(targets, nats_url, token_file=token_file)
    from callwarden.local.run_file import NotRunning, RunFile

    try:
        running = RunFile.read(directory())
    except (NotRunning, ValueError, KeyError, OSError) as error:
        if nats_url or any(targets.values()):
            return Endpoints(targets, nats_url, token_file=token_file)
        reason = f" ({error.strerror})" if isinstance(error, PermissionError) else ""
        raise Failure(
            f"no running system found in {directory()}{reason}: start one with `callwarden up`, name its folder with"
            f" --state-dir, or set {TARGETS_VARIABLE['administration']} and the like"
        ) from error
    found = of_run_file(running)
    return Endpoints(
        {service: targets[service] or found.targets[service] for service in TARGETS_VARIABLE},
        nats_url or found.nats_url,
        found.instances,
        token_file or found.token_file,
    )


def of_run_file(running: "RunFile") -> Endpoints:
    """The system that a state folder's run.json tells of."""
    from callwarden.local.run_file import token_path

    return Endpoints(
        {service: tuple(running.targets(service)) for service in TARGETS_VARIABLE},
        running.nats_url,
        tuple(
            f"{service}.{service}-{endpoint.index}"
            for service, endpoints in sorted(running.services.items())
            for endpoint in endpoints
        ),
        token_path(Path(running.state_dir), "admin"),
    )
