"""`callwarden-schema`: brings a database to this release's schema and its roles to their rights. Run once per release.

    CALLWARDEN_DATABASE_URL         the owner of the tables, who may make roles
    CALLWARDEN_ROLE_<SERVICE>       the URL that the service is given: its user and password are made the service's role

A service without such a URL, or with the owner's user, keeps what it has. It waits for a database that doesn't answer
yet, for CALLWARDEN_START_TIMEOUT_S seconds (15). A schema of a later release is left as it is, and so are the roles:
going back to this release needs neither. Exit codes: 0 done, 1 failed, 2 not told enough.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from callwarden.common.sql import Database, connecting, schema
from callwarden.kernel.errors import Invalid, Unavailable
from callwarden.schema import migrate, roles

_OWNER: Final = "CALLWARDEN_DATABASE_URL"
_DUPLICATE: Final = "42710"  # SQLSTATE duplicate_object
_PREFIX: Final = "CALLWARDEN_ROLE_"
_PATIENCE: Final = "CALLWARDEN_START_TIMEOUT_S"
_ASK_EVERY_S: Final = 1.0


class BadSettings(ValueError):
    """The environment doesn't say what it must; the message holds no secret."""


def wanted(environment: Mapping[str, str]) -> tuple[str, dict[str, tuple[str, str]]]:
    """The owner's URL, and user and password by service."""
    owner = environment.get(_OWNER, "")
    if not owner:
        raise BadSettings(f"{_OWNER} is not set")
    found: dict[str, tuple[str, str]] = {}
    for name, value in environment.items():
        if not name.startswith(_PREFIX):
            continue
        service = name.removeprefix(_PREFIX).lower().replace("_", "-")
        if service not in roles.RIGHTS:
            raise BadSettings(f"{name}: no service of that name has a database role")
        user, password = _login(name, value)
        if user != _login(_OWNER, owner)[0]:
            found[service] = user, password
    if len({user for user, _ in found.values()}) != len(found):
        raise BadSettings("two services have the same user: give each a role of its own, or all the owner's")
    return owner, found


def _login(name: str, url: str) -> tuple[str, str]:
    try:
        parsed = connecting.database_url(url)
    except Invalid as error:
        raise BadSettings(f"{name}: {error}") from None
    if not parsed.username:
        raise BadSettings(f"{name} names no user")
    return parsed.username, parsed.password or ""


async def apply_roles(engine: AsyncEngine, logins: Mapping[str, tuple[str, str]]) -> None:
    """Makes the roles, then gives what they lack and takes what is too much: a running service never sees a gap."""
    for role, password in logins.values():
        try:  # Asked by trying: the catalogue of roles is each database's own.
            async with engine.begin() as connection:
                await connection.exec_driver_sql(roles.make_role(role, password, exists=False))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") != _DUPLICATE:
                raise
            async with engine.begin() as connection:
                await connection.exec_driver_sql(roles.make_role(role, password, exists=True))
    async with engine.connect() as connection:
        given = {}
        for service, (role, _) in logins.items():
            rows = await connection.exec_driver_sql(roles.GIVEN, (role,))
            given[service] = {(row["name"], row["right"]) for row in rows.mappings()}
        await connection.rollback()
        for service, (role, _) in sorted(logins.items()):
            for statement in roles.changes(service, role, given[service], at_once=engine.dialect.name == "postgresql"):
                await connection.exec_driver_sql(statement)
        await connection.commit()


async def make_roles(owner: str, logins: Mapping[str, tuple[str, str]]) -> None:
    """`apply_roles` on the database of that URL, whose connections it closes."""
    engine = connecting.make_engine(connecting.database_url(owner), pool_size=1)
    try:
        await apply_roles(engine, logins)
    finally:
        await engine.dispose()


async def find_revision(owner: str, patience_s: float) -> str:
    """The database's last migration, "" before the first. Unavailable where it doesn't answer for that time."""
    until_s = time.monotonic() + patience_s
    said = False
    async with Database(owner, connections_max=1, application="schema") as database:
        while True:
            try:
                return await schema.revision(database)
            except Unavailable as error:
                if time.monotonic() > until_s:
                    raise
                if not said:
                    print(f"callwarden-schema: waiting: {error}", file=sys.stderr, flush=True)  # noqa: T201
                said = True
            await asyncio.sleep(_ASK_EVERY_S)


def main() -> None:
    try:
        owner, logins = wanted(os.environ)
        patience_s = _patience_s(os.environ)
    except BadSettings as error:
        print(f"callwarden-schema: {error}", file=sys.stderr)  # noqa: T201 - a job: this is its log
        sys.exit(2)
    try:
        found = asyncio.run(find_revision(owner, patience_s))
    except Unavailable as error:
        print(f"callwarden-schema: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    if found > schema.REVISION:
        print(f"callwarden-schema: left as it is: {found}, of a later release than {schema.REVISION}")  # noqa: T201
        return
    migrate.upgrade(owner)
    asyncio.run(make_roles(owner, logins))
    print(f"callwarden-schema: schema is up to date, roles: {', '.join(sorted(logins)) or 'none'}")  # noqa: T201


def _patience_s(environment: Mapping[str, str]) -> float:
    try:
        return float(environment.get(_PATIENCE, "15"))
    except ValueError:
        raise BadSettings(f"{_PATIENCE} is a number of seconds") from None


if __name__ == "__main__":
    main()
