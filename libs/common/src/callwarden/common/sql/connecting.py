"""How a connection is made: the same words of a URL for SQLAlchemy's engine and the bare pool, no look-up of types."""

from typing import Any, Final
from urllib.parse import parse_qsl

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from callwarden.kernel.errors import Invalid

DRIVERS: Final = frozenset({"postgresql+asyncpg", "cockroachdb+asyncpg"})
# What may stand after the question mark: libpq's words (PostgreSQL, 32.1.2), which CockroachDB's documentation uses,
# as asyncpg reads them. `ssl` is SQLAlchemy's word for `sslmode`.
_PARAMETERS: Final = frozenset(
    {
        "host", "port", "passfile", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl",
        "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs",
    }
)  # fmt: skip
_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FIELD: Final = "database_url"

# Arrays of the types that we have, with the OIDs that both databases give them (PostgreSQL's pg_type.dat). asyncpg
# knows the elements and asks each new connection about the arrays, by a recursive query of the catalogue that takes
# CockroachDB before 25.1 up to ten seconds: longer than a call waits.
_ARRAYS: Final = (
    (1000, "_bool", 16, "bool"),
    (1001, "_bytea", 17, "bytea"),
    (1005, "_int2", 21, "int2"),
    (1007, "_int4", 23, "int4"),
    (1009, "_text", 25, "text"),
    (1015, "_varchar", 1043, "varchar"),
    (1016, "_int8", 20, "int8"),
    (1022, "_float8", 701, "float8"),
    (1115, "_timestamp", 1114, "timestamp"),
    (1182, "_date", 1082, "date"),
    (1185, "_timestamptz", 1184, "timestamptz"),
    (1231, "_numeric", 1700, "numeric"),
    (2951, "_uuid", 2950, "uuid"),
)
_TYPES: Final = [
    {
        "oid": oid,
        "ns": "pg_catalog",
        "name": name,
        "kind": b"b",
        "basetype": None,
        "basetype_name": None,
        "elemtype": element,
        "elemtype_name": element_name,
        "elemdelim": ",",
        "range_subtype": None,
        "range_subtype_name": None,
        "attrtypoids": None,
        "attrnames": None,
        "depth": 0,
    }
    for oid, name, element, element_name in _ARRAYS
]


def database_url(text: str) -> URL:
    """The URL, read. Raises Invalid for one that isn't ours; the message doesn't hold it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number
        raise Invalid("the database URL doesn't parse", field=_FIELD) from None  # its text has the password
    if url.drivername not in DRIVERS:
        raise Invalid(
            f"the database URL begins with {' or '.join(sorted(DRIVERS))}, not {url.drivername}", field=_FIELD
        )
    for word, given in parse_qsl(text.partition("?")[2], keep_blank_values=True):
        if not given:  # make_url leaves it out
            raise Invalid(f"the database URL has {word!r} without a value", field=_FIELD)
    for word, value in url.query.items():
        if not isinstance(value, str):
            raise Invalid(f"the database URL has {word} twice", field=_FIELD)
    unknown = sorted(set(url.query) - _PARAMETERS - {"ssl"})
    if unknown:
        raise Invalid(
            f"the database URL has {unknown[0]!r} after its question mark; known are {', '.join(sorted(_PARAMETERS))}",
            field=_FIELD,
        )
    modes = {url.query[word] for word in ("ssl", "sslmode") if word in url.query}
    if len(modes) > 1:
        raise Invalid("the database URL has ssl and sslmode, and they differ", field=_FIELD)
    for mode in modes:
        if mode not in _MODES:
            raise Invalid(f"the database URL's sslmode is one of {', '.join(_MODES)}, not {mode!r}", field=_FIELD)
        url = url.difference_update_query(["ssl"]).update_query_dict({"sslmode": mode})
    return url


def dsn(url: URL) -> str:
    """The URL as asyncpg takes it, with the password: not for logs."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def know_arrays(connection: Any) -> None:
    """Tells a new connection of asyncpg the array types, so that no statement has to look them up.

    To be called when all other codecs are set: that forgets these.
    """
    # Not part of asyncpg's interface, which has no other way; its version is locked, and tests/test_sql_connecting.py
    # counts look-ups.
    connection._protocol.get_settings().register_data_types(_TYPES)


def make_engine(url: URL, *, connect: dict[str, Any] | None = None, **options: Any) -> AsyncEngine:
    """SQLAlchemy's engine on connections made as those of the bare pool.

    `connect`: options of asyncpg.connect; `options`: of create_async_engine.
    """
    target = dsn(url)

    async def connection() -> Any:
        return await asyncpg.connect(target, **(connect or {}))

    engine = create_async_engine(
        url.set(query={}),  # the dialect would hand it to asyncpg in its own way
        async_creator=connection,
        hide_parameters=True,  # they would stand in errors and logs
        **options,
    )
    event.listen(engine.sync_engine, "connect", lambda made, _: know_arrays(made.driver_connection))
    return engine
