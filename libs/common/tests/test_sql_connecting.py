"""How connections are made: one URL for engine and pool, verified TLS, nothing looked up before a statement runs."""

import datetime
import decimal
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import bindparam, make_url, text
from sqlalchemy.dialects import postgresql as types
from sqlalchemy.types import UUID, BigInteger, Text

from callwarden.common.sql import Database
from callwarden.common.sql.connecting import database_url as read
from callwarden.common.sql.connecting import dsn
from callwarden.kernel.errors import Invalid, Unavailable
from callwarden.testing.certificates import Authority
from callwarden.testing.cockroachdb import CockroachDBFace
from callwarden.testing.databases import needs_postgres

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ARRAYS: dict[str, list[Any]] = {
    "uuid": [uuid.UUID(int=7)],
    "int8": [2**40],
    "int4": [7],
    "int2": [7],
    "text": ["a", 'b"\\'],
    "varchar": ["a"],
    "bool": [True, False],
    "float8": [0.5],
    "numeric": [decimal.Decimal("1.5")],
    "bytea": [b"\x00\xff"],
    "date": [NOW.date()],
    "timestamp": [NOW.replace(tzinfo=None)],
    "timestamptz": [NOW],
}


@pytest_asyncio.fixture
async def face(database_url: str) -> AsyncIterator[CockroachDBFace]:
    port = make_url(database_url).port
    assert port is not None
    async with CockroachDBFace(port, types_take_s=3_600) as face:
        yield face


@pytest.mark.integration
async def test_arrays_are_never_looked_up(face: CockroachDBFace, database_url: str) -> None:
    async with Database(face.url(database_url)) as database, await database.hot(connections=1) as pool:
        for name, value in ARRAYS.items():
            statement = f"SELECT $1::{name}[]"
            answer = await pool.run("x", lambda c, s=statement, v=value: c.fetchval(s, v))  # type: ignore[misc]
            assert answer == value, name
        ids = text("SELECT :ids, :numbers, :words").bindparams(
            _parameter("ids", types.ARRAY(UUID), ARRAYS["uuid"]),
            _parameter("numbers", types.ARRAY(BigInteger), ARRAYS["int8"]),
            _parameter("words", types.ARRAY(Text), ARRAYS["text"]),
        )
        row = (await database.outside("x", lambda c: c.execute(ids))).one()
        assert [list(each) for each in row] == [ARRAYS["uuid"], ARRAYS["int8"], ARRAYS["text"]]
    assert face.type_lookups == 0


def _parameter(name: str, kind: Any, value: Any) -> Any:
    return bindparam(name, value, type_=kind)


@needs_postgres
@pytest.mark.integration
async def test_the_face_counts_what_is_looked_up(face: CockroachDBFace, database_url: str) -> None:
    """Or the test above could not fail."""
    face.types_take_s = 0.0
    async with Database(face.url(database_url)) as database, await database.hot(connections=1) as pool:
        assert await pool.run("x", lambda c: c.fetchval("SELECT $1::interval[]", [datetime.timedelta(1)]))
    assert face.type_lookups > 0


# ------------------------------------------------------------------ the URL


@pytest.mark.parametrize("query", ["ssl=verify-full", "sslmode=verify-full", "ssl=verify-full&sslmode=verify-full"])
def test_both_words_for_tls_are_one(query: str) -> None:
    assert dsn(read(f"cockroachdb+asyncpg://u:p@db:1/c?{query}")) == "postgresql://u:p@db:1/c?sslmode=verify-full"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ssl=verify-full&sslmode=disable", "they differ"),
        ("sslmode=verified", "'verified'"),
        ("sslmode=", "'sslmode' without a value"),
        ("ssl=true", "'true'"),
        ("sslmod=verify-full", "'sslmod'"),
        ("sslmode=require&sslmode=disable", "twice"),
        ("password=hunter2", "'password'"),
        ("prepared_statement_cache_size=0", "'prepared_statement_cache_size'"),
    ],
)
def test_a_word_that_nobody_would_heed_is_refused(query: str, said: str) -> None:
    """A misspelt sslmode must not become a connection in clear."""
    with pytest.raises(Invalid, match=said) as caught:
        Database(f"postgresql+asyncpg://u:hunter2@db:1/c?{query}")
    assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------ TLS on a server


async def tried(face: CockroachDBFace, url: str) -> dict[str, str]:
    """What came of it: by the engine, and by the pool. "TLS", "clear" or the error."""

    async def by_engine(database: Database) -> None:
        await database.outside("x", lambda c: c.execute(text("SELECT 1")))

    async def by_pool(database: Database) -> None:
        async with await database.hot(connections=1) as pool:
            await pool.run("x", lambda c: c.fetchval("SELECT 1"))

    found = {}
    async with Database(url) as database:
        ways: dict[str, Callable[[Database], Awaitable[None]]] = {"engine": by_engine, "pool": by_pool}
        for name, way in ways.items():
            before = face.encrypted
            try:
                await way(database)
                found[name] = "TLS" if face.encrypted > before else "clear"
            except Unavailable as error:
                assert error.__cause__ is not None
                found[name] = type(error.__cause__).__name__
    return found


@needs_postgres
@pytest.mark.integration
@pytest.mark.parametrize("driver", ["postgresql", "cockroachdb"])
async def test_tls_is_what_the_url_says_by_engine_and_pool_alike(
    face: CockroachDBFace, tmp_path: Path, driver: str, database_url: str
) -> None:
    """The PostgreSQL of the tests has no TLS; the face in front of it has."""
    right, wrong = Authority(tmp_path, "right").files("server"), Authority(tmp_path, "wrong").files("server")
    by_address = make_url(face.url(database_url)).set(drivername=f"{driver}+asyncpg")
    url = by_address.set(host="localhost").render_as_string(hide_password=False)
    address = by_address.render_as_string(hide_password=False)
    untrusted = "SSLCertVerificationError"
    face.version = face.version if driver == "cockroachdb" else None
    face.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    face.tls.load_cert_chain(right.cert, right.key)
    for word in ("ssl", "sslmode"):
        for case, expected in {
            f"{url}?{word}=verify-full&sslrootcert={right.ca}": "TLS",
            f"{url}?{word}=verify-full&sslrootcert={wrong.ca}": untrusted,
            f"{address}?{word}=verify-full&sslrootcert={right.ca}": untrusted,  # the certificate says localhost
            f"{address}?{word}=verify-ca&sslrootcert={right.ca}": "TLS",
            f"{url}?{word}=require": "TLS",
            f"{url}?{word}=disable": "clear",
        }.items():
            assert await tried(face, case) == {"engine": expected, "pool": expected}, case
    face.tls = None  # a server without a certificate
    assert await tried(face, f"{url}?sslmode=verify-full&sslrootcert={right.ca}") == {
        "engine": "ConnectionError",
        "pool": "ConnectionError",
    }
