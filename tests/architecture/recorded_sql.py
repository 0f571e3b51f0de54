"""Which statements our services run, and from which line: recorded while their adapters run on a database.

In: what an engine and a hot pool execute, and the calls in the source that execute something. Out: what is done with
the adapters (statement_coverage), what is right (portable_sql).
"""

import ast
import inspect
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import greenlet
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, registry
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from callwarden.common.sql import Database, HotPool

ROOT: Final = Path(__file__).parents[2]
EXECUTING: Final = frozenset(
    {
        "execute", "executemany", "exec_driver_sql", "scalar", "scalars", "stream", "stream_scalars", "fetch",
        "fetchrow", "fetchval", "cursor", "copy_from_query", "copy_from_table", "copy_records_to_table",
        "copy_to_table",
    }
)  # fmt: skip
# Runs the servers of one machine and of tests, which are PostgreSQL: it makes and drops databases.
LOCAL: Final = ("libs/local/", "libs/testing/")


@dataclass(frozen=True, order=True)
class CallSite:
    """A call that executes something: the file below the root and its lines."""

    path: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path}:{self.first}"


def sites() -> Iterator[CallSite]:
    """All of them in the product."""
    for path in sorted(ROOT.glob("*/src/**/*.py")) + sorted(ROOT.glob("*/*/src/**/*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith((*LOCAL, "libs/api/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTING:
                yield CallSite(name, node.lineno, node.end_lineno or node.lineno)


def dialects() -> dict[str, Dialect]:
    cockroachdb = registry.load("cockroachdb.asyncpg")
    return {"postgresql": postgresql.asyncpg.dialect(), "cockroachdb": cockroachdb()}  # type: ignore[no-untyped-call]


@dataclass
class Recorder:
    """`texts`: every statement in every dialect, with the place that ran it first; `of_service`: whose each is."""

    texts: dict[str, str] = field(default_factory=dict)
    of_service: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    places: set[tuple[str, int]] = field(default_factory=set)
    dialects: dict[str, Dialect] = field(default_factory=dialects)

    def watch(self, database: Database) -> Database:
        """Records what goes by its engine from now on."""
        event.listen(database.engine.sync_engine, "before_execute", self._core)
        event.listen(database.engine.sync_engine, "before_cursor_execute", self._text)
        return database

    @asynccontextmanager
    async def hot(self, database: Database) -> AsyncIterator[HotPool]:
        """A hot pool whose statements are recorded."""
        async with await database.hot(connections=2) as pool:
            yield _RecordedPool(pool, self)

    def is_run(self, site: CallSite) -> bool:
        return any(path == site.path and site.first <= line <= site.last for path, line in self.places)

    def _core(self, _: Any, clause: ClauseElement, many: Any, one: Any, __: Any) -> None:
        """As each dialect writes it: the one we run on tests says nothing about the other."""
        place = self._place(_asked_from())
        rows = many or ([one] if one else [])
        keys = list(rows[0]) if rows else None
        for dialect in self.dialects.values():
            compiled = clause.compile(dialect=dialect, column_keys=keys, compile_kwargs={"render_postcompile": True})
            self._keep(str(compiled), place)

    def _text(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        """And as it was sent, with as many rows as an INSERT had."""
        self._keep(statement, self._place(_asked_from()))

    def _keep(self, text: str, place: str) -> None:
        self.texts.setdefault(text, place)
        if place.startswith("services/"):
            self.of_service[place.split("/")[1]].add(text)

    def _place(self, frame: FrameType | None) -> str:
        """The innermost line of ours above libs/common; remembers it, and those of libs/common below it."""
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(ROOT) and "src" in path.parts and ".venv" not in path.parts:
                place = path.relative_to(ROOT).as_posix(), frame.f_lineno
                self.places.add(place)
                if not place[0].startswith("libs/common/"):
                    return f"{place[0]}:{place[1]}"
            frame = frame.f_back
        return "?"


def _asked_from() -> FrameType | None:
    """Where the code stands that awaits: SQLAlchemy runs its own part in a greenlet."""
    parent = greenlet.getcurrent().parent
    return None if parent is None else parent.gr_frame


class _RecordedPool(HotPool):
    """The pool, with statements told to a recorder."""

    def __init__(self, pool: HotPool, recorder: Recorder) -> None:
        super().__init__(pool._pool, pool._retry)
        self._recorder = recorder

    @asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Any]:
        async with super()._acquire() as connection:
            yield _RecordedConnection(connection, self._recorder)


class _RecordedConnection:
    def __init__(self, connection: Any, recorder: Recorder) -> None:
        self._connection, self._recorder = connection, recorder

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._connection, name)
        if name not in EXECUTING:
            return attribute

        async def recorded(statement: str, *arguments: Any, **options: Any) -> Any:
            frame = inspect.currentframe()
            self._recorder._keep(statement, self._recorder._place(frame and frame.f_back))
            return await attribute(statement, *arguments, **options)

        return recorded
