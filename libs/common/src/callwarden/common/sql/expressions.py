"""What PostgreSQL and CockroachDB write differently, written once."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, func


def total(amount: Any) -> ColumnElement[Any]:
    """The sum of a column of integers, as an integer; NULL of no rows.

    Both databases make it a decimal, and CockroachDB doesn't mix decimals with integers in COALESCE, CASE and GREATEST.
    """
    return cast(func.sum(amount), BigInteger)
