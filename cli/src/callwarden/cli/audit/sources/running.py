"""The system that other commands speak to: one that `callwarden up` started, or whose addresses the variables name."""

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import column, exists, func, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.cli import policies, remote, state
from callwarden.cli.audit.finding import AuditPlace
from callwarden.cli.audit.local import AuditTrunk, DatabaseRole, Listener, LocalFacts, SecretFile
from callwarden.cli.audit.report import Evidence
from callwarden.common.settings import redact_url
from callwarden.common.sql import Database
from callwarden.kernel.errors import CallwardenError
from callwarden.local.run_file import NotRunning, RunFile
from callwarden.schema.tables import ledger_entry

# Keys and passwords, what the services say of calls, and the data themselves.
_SECRETS: Final = ("keys.json", "run.json", "tokens/*", "nats/nats.conf", "log/*.log*", "postgres", "spool/*")
_DATABASE_TIMEOUT_S: Final = 5.0
_GRANT: Final = ("grantee", "table_name", "privilege_type")


def evidence() -> Evidence:
    """Failure if no system is found or it doesn't answer."""
    return asyncio.run(_evidence(state.find()))


async def _evidence(endpoints: state.Endpoints) -> Evidence:
    notes: list[str] = []
    async with policies.connect(endpoints.nats(), endpoints.instances) as store:
        held = await store.load()
    trunks = await _trunks(endpoints)
    try:
        run_file = RunFile.read(state.directory())
    except (NotRunning, ValueError, KeyError, OSError):
        notes.append("no folder of `callwarden up`: files, listening addresses and the database were not looked at")
        return Evidence("running system", held, trunks=trunks, notes=tuple(notes))
    roles: tuple[DatabaseRole, ...] = ()
    try:
        roles = tuple([await _role_of_url(url) for url in _database_urls(run_file)])
    except (CallwardenError, OSError, TimeoutError) as error:
        notes.append(f"the database doesn't answer ({type(error).__name__}): its roles' rights were not looked at")
    facts = LocalFacts(
        tuple(_listeners(run_file)),
        tuple(_secret_files(Path(run_file.state_dir))),
        roles,
        _host_port(run_file.database_url),
        "ssl" in urlsplit(run_file.database_url).query,
    )
    return Evidence(f"system in {run_file.state_dir}", held, system=facts, trunks=trunks, notes=tuple(notes))


async def _trunks(endpoints: state.Endpoints) -> tuple[AuditTrunk, ...]:
    from callwarden.api.admission.v1 import admission_pb2 as pb

    async with remote.Remote(endpoints) as system:
        found = (await remote.ask(system.accounts.ListTrunks, pb.ListTrunksRequest())).trunks
    return tuple(
        AuditTrunk(one.name, one.tech_prefix, AuditPlace(f"trunk {one.name}"), False)
        for one in found
        if one.direction == "traffic-sender" and one.enabled
    )


def _listeners(run_file: RunFile) -> Iterator[Listener]:
    for service, endpoints in sorted(run_file.services.items()):
        for endpoint in endpoints:
            yield Listener(f"{service}-{endpoint.index}", endpoint.grpc)
            if endpoint.metrics:
                yield Listener(f"{service}-{endpoint.index} (metrics)", endpoint.metrics)
    yield Listener("NATS", _host_port(run_file.nats_url), run_file.nats_url.startswith("tls://"))


def _secret_files(folder: Path) -> Iterator[SecretFile]:
    for pattern in _SECRETS:
        for path in sorted(folder.glob(pattern)):
            try:
                yield SecretFile(str(path), stat.S_IMODE(path.stat().st_mode))
            except OSError:
                continue  # Gone, or not for our eyes: then it isn't for others'.


def _host_port(url: str) -> str:
    """Without what is secret."""
    return redact_url(url).partition("://")[2].removeprefix("…@").partition("/")[0]


def _database_urls(run_file: RunFile) -> list[str]:
    """As the services have them."""
    return sorted(run_file.role_urls.values()) or [run_file.database_url]


async def _role_of_url(url: str) -> DatabaseRole:
    """Raises CallwardenError or TimeoutError."""
    async with Database(url, connections_max=1, application="callwarden-audit") as database:
        async with asyncio.timeout(_DATABASE_TIMEOUT_S):
            return await database_role(database)


async def database_role(database: Database) -> DatabaseRole:
    """The rights of the role that is connected, as the database has them."""
    return await database.transaction("audit-role", _role)


async def _role(connection: AsyncConnection) -> DatabaseRole:
    granted = table("table_privileges", *map(column, _GRANT), schema="information_schema")
    may_delete = exists(
        select(granted.c.grantee).where(
            granted.c.grantee == func.current_user(),
            granted.c.table_name == ledger_entry.name,
            granted.c.privilege_type == "DELETE",
        )
    )
    name, may_delete_ledger = (await connection.execute(select(func.current_user(), may_delete))).one()
    return DatabaseRole(str(name), bool(may_delete_ledger))
