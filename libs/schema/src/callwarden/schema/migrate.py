"""Brings a database to the newest schema. Run once per release, before the services (Helm hook, `callwarden up`)."""

from pathlib import Path

from alembic import command
from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"


def config(database_url: str) -> Config:
    """Alembic's configuration for this schema. The URL is handed over as an attribute: it holds a password, and
    Alembic's own option would interpolate "%" in it."""
    configuration = Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS))
    configuration.attributes["database_url"] = database_url
    return configuration


def upgrade(database_url: str, revision: str = "head") -> None:
    """Applies all migrations up to `revision`. Runs an event loop of its own: call it from a thread without one."""
    command.upgrade(config(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Takes migrations back down to `revision` ("base": all)."""
    command.downgrade(config(database_url), revision)
