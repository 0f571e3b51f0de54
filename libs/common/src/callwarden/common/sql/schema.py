"""Whether the database has the tables that this release reads: asked before a service does anything else with it.

A service may come up before its schema does: the first install, an upgrade whose migrations still run, a database that
is being restored. Then it waits, not ready, and says why. Out: the tables and their migrations (callwarden.schema).
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.common.sql.database import Database
from callwarden.common.sql.retry import sqlstate_of
from callwarden.kernel.errors import Unavailable

REVISION: Final = "0004"
"""The migration that this release needs at least. The next release's schema is read as well, so later ones do, too."""

VERSION_TABLE: Final = "alembic_version"
"""Alembic's own: one row, the last migration. Every service's role may read it."""

# SQLSTATEs (PostgreSQL appendix A) of what is not there yet, until the migrations have run.
_UNDEFINED_TABLE: Final = "42P01"
_NOT_YET: Final = {
    "3D000": "the database doesn't exist yet",
    "28000": "the database doesn't know this service's role yet",
    "28P01": "the database doesn't take this service's role and password yet",
    "42501": f"this service's role may not read {VERSION_TABLE} yet",
}


async def revision(database: Database) -> str:
    """The database's last migration, "" before the first. Raises Unavailable, and what isn't foreseen."""
    try:
        return await database.outside("schema_revision", _revision)
    except Exception as error:
        if sqlstate_of(error) == _UNDEFINED_TABLE:
            return ""
        raise


async def schema_problem(database: Database) -> str:
    """Why this release can't work on the database now, or "" if it can. Raises what isn't foreseen."""
    try:
        found = await revision(database)
    except Unavailable:
        return "the database doesn't answer"
    except Exception as error:
        if (problem := _NOT_YET.get(sqlstate_of(error))) is not None:
            return problem
        raise
    if not found:
        return "the database has no tables yet"
    return "" if found >= REVISION else f"the database's schema is {found}, this release needs {REVISION}"


async def _revision(connection: AsyncConnection) -> str:
    return await connection.scalar(text("SELECT max(version_num) FROM alembic_version")) or ""
