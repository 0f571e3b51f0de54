"""The database by its URL, through SQLAlchemy for everything that is not hot."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from callwarden.common.metrics import Metrics
from callwarden.common.sql import connecting
from callwarden.common.sql.hot import STATEMENT_TIMEOUT_S, HotPool
from callwarden.common.sql.retry import Retry

T = TypeVar("T")

POOL_TIMEOUT_S: Final = 5.0  # waiting for a free connection
CONNECTION_AGE_MAX_S: Final = 1_800  # so that connections spread over the nodes again after one came back


class Database:
    """One process's connections. `await runtime.database()` gives it; `transaction` for cold work, `hot` for the
    rest.
    """

    def __init__(
        self, url: str, *, connections_max: int = 8, application: str = "callwarden", metrics: Metrics | None = None
    ) -> None:
        """No connection is made yet. Raises Invalid for a URL that isn't one of ours."""
        self._url = connecting.database_url(url)
        self._connections_max = connections_max
        self._application = application
        self._retry = Retry(metrics)
        self.engine: AsyncEngine = connecting.make_engine(
            self._url,
            connect={
                "server_settings": {"application_name": application},
                "command_timeout": 4 * STATEMENT_TIMEOUT_S,  # reports and imports are slower than calls
            },
            isolation_level="SERIALIZABLE",
            pool_size=connections_max,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_S,
            pool_recycle=CONNECTION_AGE_MAX_S,
            pool_pre_ping=True,  # cold work: a round trip is cheaper than an error after a failover
        )

    def __repr__(self) -> str:
        return f"Database({self._url.render_as_string(hide_password=True)})"

    @property
    def dialect(self) -> str:
        """ "postgresql" or "cockroachdb"."""
        return self._url.get_backend_name()

    async def __aenter__(self) -> "Database":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.engine.dispose()

    async def transaction(self, name: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work(connection)` in one SERIALIZABLE transaction, all of it again on a conflict, and commit.

        So `work` must have no effect but on the database. `name` names it in metrics. Raises RetriesExhausted or
        Unavailable; what else `work` raises passes through, after the rollback.
        """

        async def attempt() -> T:
            async with self.engine.begin() as connection:
                return await work(connection)

        return await self._retry.run(name, attempt)

    async def insertion(self, name: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work(connection)`, which only inserts new rows, in one transaction, and commit. Raises as `transaction`.

        For imports. PostgreSQL notes what a SERIALIZABLE transaction reads by pages of indexes, and a foreign key's
        check reads: one that inserts 100,000 rows shares pages with every call and loses against all of them. Unique
        and foreign keys hold at READ COMMITTED as well. CockroachDB stays SERIALIZABLE.
        """

        async def attempt() -> T:
            async with self.engine.connect() as connection:
                if self.dialect == "postgresql":
                    connection = await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    return await work(connection)

        return await self._retry.run(name, attempt)

    async def outside(self, name: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work(connection)` with each statement by itself: one statement sees one moment, two may see two.

        For what reads many rows: in a SERIALIZABLE transaction it would make those fail that write any of them. It is
        run again, and raises, as `transaction`.
        """

        async def attempt() -> T:
            async with self.engine.connect() as connection:
                return await work(await connection.execution_options(isolation_level="AUTOCOMMIT"))

        return await self._retry.run(name, attempt)

    async def rows(self, name: str, query: Select[*tuple[Any, ...]]) -> Sequence[Row[Any]]:
        """All rows of a query, of one moment, `outside` any transaction."""

        async def work(connection: AsyncConnection) -> Sequence[Row[Any]]:
            rows: Sequence[Row[Any]] = (await connection.execute(query)).all()
            return rows

        return await self.outside(name, work)

    async def hot(self, *, connections: int | None = None, session: Mapping[str, str] | None = None) -> HotPool:
        """A bare asyncpg pool on the same database: `pool = await runtime.open(await database.hot())`.

        `session`: settings of the server for its connections, such as what the planner may use.
        """
        size = connections or self._connections_max
        return await HotPool.open(
            connecting.dsn(self._url),
            size_min=min(2, size),
            size_max=size,
            application=self._application,
            retry=self._retry,
            session=session,
        )
