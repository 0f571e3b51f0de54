"""The database, PostgreSQL or CockroachDB by its URL: transactions that are retried, and a bare pool for hot
statements.
"""

from callwarden.common.sql.database import Database
from callwarden.common.sql.hot import HotPool
from callwarden.common.sql.retry import OutcomeUnknown, RetriesExhausted

__all__ = ["Database", "HotPool", "OutcomeUnknown", "RetriesExhausted"]
