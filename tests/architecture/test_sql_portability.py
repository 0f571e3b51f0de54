"""Every statement that a service can run is one that CockroachDB and PostgreSQL both run, and carries no data."""

import importlib.util
import io
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from alembic.migration import MigrationContext
from alembic.operations import Operations

import callwarden.schema
from callwarden.call_admission.admission.adapters import statements
from callwarden.common.sql import Database
from callwarden.common.sql.schema import VERSION_TABLE
from callwarden.schema.roles import RIGHTS
from callwarden.testing.servers import as_roles
from tests.architecture import statement_coverage
from tests.architecture.portable_sql import LACKS, Lack, found_in, rights_for
from tests.architecture.recorded_sql import Recorder, dialects, sites

VERSIONS = sorted((Path(callwarden.schema.__path__[0]) / "migrations/versions").glob("[0-9]*.py"))


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: lack.name)
def test_a_statement_that_is_not_portable_is_found(lack: Lack) -> None:
    assert lack in list(found_in(lack.example))
    assert lack.why
    assert lack.reference.startswith("https://")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sums without a cast", "SELECT sum(held_micros) + 1 FROM counter"),
        ("sums without a cast", "SELECT coalesce(sum(held_micros) FILTER (WHERE shard > 0), 0) FROM counter"),
        ("mixed types", "SELECT greatest(held_micros, 0.5) FROM counter"),
        ("mixed types", "SELECT least(count(*), sum(held_micros)::DECIMAL) FROM counter"),
        ("mixed types", "SELECT coalesce(held_micros::TEXT, spent_micros) FROM counter"),
        ("mixed types", "SELECT CASE WHEN shard > 0 THEN held_micros ELSE $1::DOUBLE PRECISION END FROM counter"),
        ("mixed types", "SELECT CASE WHEN shard > 0 THEN name WHEN shard > 1 THEN id END FROM account"),
        ("arrays without a type", "SELECT x FROM unnest($1) AS w(x)"),
        ("arrays without a type", "SELECT x FROM unnest($1::uuid[], $2) AS w(x, y)"),
        ("arrays without a type", "DELETE FROM hold WHERE id <> ALL($1)"),
    ],
)
def test_types_that_do_not_go_together_are_found(name: str, text: str) -> None:
    assert name in {lack.name for lack in found_in(text)}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT coalesce(CAST(sum(held_micros) AS BIGINT), 0) FROM counter",
        "SELECT coalesce(CAST(sum(held_micros) FILTER (WHERE shard > 0) AS BIGINT), $1::BIGINT) FROM counter",
        "SELECT greatest(held_micros + $1::BIGINT, 0), coalesce(name, 'none') FROM counter, account",
        "SELECT CASE WHEN shard > 0 THEN held_micros ELSE 0 END FROM counter",
        "SELECT x FROM unnest($1::uuid[]) AS w(x) WHERE x = ANY(CAST($2 AS uuid[]))",
    ],
)
def test_types_that_go_together_are_not(text: str) -> None:
    assert list(found_in(text)) == []


def not_portable(texts: dict[str, str]) -> list[str]:
    """What is wrong, with the statement and its place."""
    return [
        f"{lack.name} ({lack.why}; {lack.reference}) at {place}: {text}"
        for text, place in texts.items()
        for lack in found_in(text)
    ]


# ------------------------------------------------------------------ all that adapters run


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest_asyncio.fixture
async def recorded(recorder: Recorder, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorder]:
    async with AsyncExitStack() as stack:
        owner, seed = [await stack.enter_async_context(Database(database_url)) for _ in range(2)]
        connections = {}
        for service, url in as_roles(database_url).items():
            database = recorder.watch(await stack.enter_async_context(Database(url)))
            connections[service] = statement_coverage.RoleConnection(
                database, await stack.enter_async_context(recorder.hot(database))
            )
        await statement_coverage.run_all(connections, recorder.watch(owner), seed, monkeypatch)
        yield recorder


@pytest.mark.integration
@pytest.mark.setting("db-roles")
async def test_what_adapters_run_is_portable_allowed_to_their_role_and_none_of_it_is_forgotten(
    recorded: Recorder,
) -> None:
    """One test: recording takes longer than looking."""
    forgotten = [str(site) for site in sites() if not recorded.is_run(site)]
    assert not forgotten, f"nothing runs it: add a call to statement_coverage: {chr(10).join(forgotten)}"
    assert not_portable(recorded.texts) == []
    data = statement_coverage.MARK, statement_coverage.DIGITS, str(statement_coverage.AMOUNT)
    written_into = [text for text in recorded.texts if any(piece in text for piece in data)]
    assert written_into == [], "data belongs into parameters"
    # Of these statement_coverage runs a few only; admission's own tests run them all.
    recorded.of_service["call-admission"] |= {statements.statement(1, *names) for names in writes()}
    for service, texts in recorded.of_service.items():
        needed = {right for text in texts for right in rights_for(text)}
        given = {(table, right) for table, rights in RIGHTS[service].items() for right in rights}
        needed.discard((VERSION_TABLE, "SELECT"))  # which every role has
        assert sorted(given - needed) == [], f"{service} has rights that none of its statements needs"
        assert needed <= given, "though the database has let it through"


# ------------------------------------------------------------------ what is put together of parts


def writes() -> Iterator[tuple[str, ...]]:
    """The largest combination of each kind of write (store_sql._writes_of): what a smaller one has, it has, too."""
    before, after = ("moved", "checked", "counters"), ("decisions",)
    for kind in (
        ("holds", "asked", "known"),
        ("updated",),
        ("closed",),
        ("ends", "gone", "entries", "records", "days"),
        ("ends", "entries", "kept_records", "days"),
        ("late", "late_gone", "late_entries", "late_records", "days"),
        ("lowered_days",),
        (),
    ):
        yield (*before, *kind, *after)


def shape(statement: str) -> str:
    """Without numbers of parameters, and one row for many."""
    row = re.sub(r"\$\d+", "$", statement)
    return re.sub(r"(\([^()]*\))(?:, \1)+", r"\1", row)


@pytest.mark.parametrize("names", list(writes()), ids=lambda names: "-".join(names[3:]))
def test_what_admission_writes_is_portable_in_all_sizes(names: tuple[str, ...]) -> None:
    texts = {size: statements.statement(size, *names) for size in (0, *statements.SIZES)}
    assert len({shape(text) for size, text in texts.items() if size}) == 1
    assert not_portable({texts[size]: f"statement({size}, …)" for size in (0, 1)}) == []


def test_no_part_of_a_write_is_left_out() -> None:
    assert set(itertools.chain(*writes())) == statements.CLAUSES.keys()


def test_two_kinds_of_change_in_one_statement_would_be_found() -> None:
    found = {lack.name for lack in found_in(statements.statement(1, "updated", "ends", "gone"))}
    assert "two changes of one table in a statement" in found


def test_settings_of_the_planner_go_to_postgresql_only() -> None:
    """CockroachDB knows none of them."""
    wiring = Path(statements.__file__).parents[2] / "wiring.py"
    assert 'session = SESSION if database.dialect == "postgresql" else None' in wiring.read_text()


# ------------------------------------------------------------------ migrations


def migration(path: Path, dialect: str) -> list[str]:
    """The statements of a migration, as Alembic would run them."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = io.StringIO()
    context = MigrationContext.configure(dialect=dialects()[dialect], opts={"as_sql": True, "output_buffer": written})
    with Operations.context(context):
        module.upgrade()
    return [statement for statement in written.getvalue().split(";\n") if statement.strip()]


@pytest.mark.parametrize("dialect", list(dialects()))
@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_migrations_are_portable(path: Path, dialect: str) -> None:
    statements = migration(path, dialect)
    assert len(statements) > 10 or path is not VERSIONS[0]
    assert not_portable(dict.fromkeys(statements, path.name)) == []
