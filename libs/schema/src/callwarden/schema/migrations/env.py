"""How Alembic reaches the database: through the same async drivers as the services, one connection, no pool."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool

from callwarden.common.sql import connecting
from callwarden.schema.tables import metadata


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


async def _online(database_url: str) -> None:
    engine = connecting.make_engine(connecting.database_url(database_url), poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(_online(context.config.attributes["database_url"]))
