"""Our services as child processes: what each is called and told, when it is ready, how it is stopped, killed,
restarted.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from callwarden.local.files import rotate_log
from callwarden.local.ports import LOOPBACK, Port
from callwarden.local.process import Child, ChildFailed, describe_exit, file_appears
from callwarden.local.run_file import ServiceEndpoint

START_TIMEOUT_S = 60.0  # Imports take about a second of CPU a process, and eight start at once on two cores.
STOP_MARGIN_S = 10.0  # After the drain: resources are closed, each within five seconds, and telemetry is flushed.


@dataclass(frozen=True, slots=True)
class Service:
    """What the launcher knows of a service. `secrets` are the names in `Keys` that it is given, and no other's."""

    name: str
    targets_variable: str = ""
    """The variable that tells the others where it is; empty: nobody calls it."""
    secrets: tuple[str, ...] = ()
    speaks_sip: bool = False
    module: str = ""
    database_role: str = ""
    """Whose role in the database it has; empty: one of its own name, where there is such a role."""

    @property
    def module_name(self) -> str:
        return self.module or f"callwarden.{self.name.replace('-', '_')}.main"

    @property
    def role(self) -> str:
        return self.database_role or self.name


# In the order in which each finds those it calls; all are started at once and wait for each other by themselves.
SERVICES = (
    Service("rating", "CALLWARDEN_RATING_TARGETS"),
    Service("auth", "CALLWARDEN_AUTH_TARGETS", secrets=("credential_key",)),
    Service("rate-guard", "CALLWARDEN_RATE_GUARD_TARGETS"),
    Service("call-admission", "CALLWARDEN_ADMISSION_TARGETS"),
    Service(
        "administration",
        "CALLWARDEN_ADMINISTRATION_TARGETS",
        module="callwarden.call_admission.administration",
        database_role="call-admission",
    ),
    Service("payment", "CALLWARDEN_PAYMENT_TARGETS"),
    Service("edge-proxy", secrets=("nonce_key",), speaks_sip=True),
)


_INHERITED = frozenset(
    {
        *("PATH", "HOME", "TMPDIR", "LANG", "TZ"),
        # Where an interpreter, and the libraries of one that isn't the system's, are found.
        *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "LD_LIBRARY_PATH"),
        # The machine's certificate authorities.
        *("SSL_CERT_FILE", "SSL_CERT_DIR"),
        # The one setting with a name that all services of a machine share.
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
)


class ServiceProcess:
    """One process of a service, on one port for all its lives."""

    def __init__(
        self, service: Service, index: int, *, port: Port, folder: Path, env: Mapping[str, str], drain_timeout_s: float
    ) -> None:
        """`env` is the whole environment but for what this class adds; `folder` holds its log and its ready file."""
        self.service = service
        self.index = index
        self.name = f"{service.name}-{index}"
        self.port = port
        self.log = folder / "log" / f"{self.name}.log"
        self.sip_address = env.get("CALLWARDEN_SIP_LISTEN", "") if service.speaks_sip else ""
        self._ready_file = folder / "run" / f"{self.name}.json"
        self._drain_timeout_s = drain_timeout_s
        self._env = {
            # Its C core writes lines of its own between our JSON, and reads this when it is imported.
            "GRPC_VERBOSITY": "ERROR",
            **env,
            "CALLWARDEN_GRPC_LISTEN": self.address,
            "CALLWARDEN_METRICS_LISTEN": f"{LOOPBACK}:0",
            "CALLWARDEN_INSTANCE": self.name,
            "CALLWARDEN_READY_FILE": str(self._ready_file),
            "CALLWARDEN_DRAIN_TIMEOUT_S": f"{drain_timeout_s:g}",
        }
        self._child: Child | None = None
        self._metrics_address = ""
        self.is_wanted = False
        """Whether it should be running now: a process that ends while it is wanted has crashed."""

    @property
    def address(self) -> str:
        """Where it serves gRPC, `host:port`."""
        return f"{LOOPBACK}:{self.port.number}"

    @property
    def child(self) -> Child:
        """Its process, running or ended; LookupError when it was never started."""
        if self._child is None:
            raise LookupError(f"{self.name} was not started")
        return self._child

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    @property
    def endpoint(self) -> ServiceEndpoint:
        return ServiceEndpoint(self.index, self.child.pid, self.address, self._metrics_address, self.sip_address)

    async def start(self) -> None:
        """Start it and wait until it says that it is ready; ChildFailed, with the log's tail, if that fails."""
        if self.is_running:
            raise RuntimeError(f"{self.name} is running")
        self._ready_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        rotate_log(self.log)
        self.is_wanted = True
        # -P: a folder named callwarden in the current one is not ours.
        argv = [sys.executable, "-P", "-m", self.service.module_name]
        self._child = child = await Child.start(self.name, argv, log=self.log, env=self._env)
        try:
            await child.until(asyncio.ensure_future(file_appears(self._ready_file)), START_TIMEOUT_S)
            ready = json.loads(self._ready_file.read_text())
        except BaseException:
            self.is_wanted = False
            await child.kill()
            raise
        self._metrics_address = f"{LOOPBACK}:{ready['metrics_port']}" if ready.get("metrics_port") else ""

    async def stop(self) -> None:
        """Let it drain (SIGTERM). ChildFailed if it had to be killed or ended with an error."""
        self.is_wanted = False
        if not self.is_running:
            return
        # Twice: consumers finish what they have taken, then gRPC is drained (callwarden.common.runtime).
        grace_s = 2 * self._drain_timeout_s + STOP_MARGIN_S
        code = await self.child.stop((signal.SIGTERM, grace_s))
        if code == -signal.SIGKILL:
            raise self.child.failed(f"did not stop within {grace_s:g} s and was killed")
        if code != 0:
            raise self.child.failed(f"ended with an error when told to stop ({describe_exit(code)})")

    async def kill(self) -> None:
        """SIGKILL: what the kernel does when memory runs out."""
        self.is_wanted = False
        await self.child.kill()

    def crash(self) -> ChildFailed | None:
        """The error that says it ended though it was wanted; None if it runs, or was stopped."""
        code = self._child.returncode if self._child is not None else None
        if not self.is_wanted or code is None:
            return None
        return self.child.failed(f"ended by itself ({describe_exit(code)})")


def base_environment(callers: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a service inherits from the caller: those that say where programs, files and certificates are
    and how text and time are written. Nothing else, since a shell holds credentials that are no business of ours."""
    return {name: value for name, value in callers.items() if name in _INHERITED or name.startswith("LC_")}
