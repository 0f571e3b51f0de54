"""Trunks by which calls come in, kept in memory: looked up for each call, read again when one changes."""

from collections.abc import Mapping
from typing import Final

from nats.aio.msg import Msg
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from callwarden.api.events.v1 import events_pb2
from callwarden.call_admission.admission.adapters.events_nats import ACCOUNT_CHANGED
from callwarden.call_admission.admission.core.snapshot import SourceTrunk
from callwarden.common.bus import Bus
from callwarden.common.follower import Follower
from callwarden.common.logs import get_logger
from callwarden.common.sql import Database
from callwarden.kernel.errors import CallwardenError, Unavailable
from callwarden.schema.tables import trunk

log = get_logger(__name__)

TRUNKS_MAX: Final = 100_000  # 0.3 KB each and their prefixes; beyond, the first by name count
REFRESH_S: Final = 30.0  # should a message have been lost


class SqlSourceTrunks:
    """Implements ports.SourceTrunks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._trunks: Mapping[str, SourceTrunk] = {}
        self._follower = Follower(self._refresh_again, lambda: REFRESH_S, self._failed)

    def get(self, name: str) -> SourceTrunk | None:
        return self._trunks.get(name)

    async def refresh(self) -> None:
        """Reads all of them. Raises Unavailable."""
        columns = (trunk.c.name, trunk.c.only_local, trunk.c.allow_prefixes, trunk.c.block_prefixes)
        query = select(*columns).where(trunk.c.direction == "traffic-sender").order_by(trunk.c.name).limit(TRUNKS_MAX)
        async with self._database.engine.connect() as connection:
            # One statement sees one moment; in a serializable transaction it would stand in the way of others.
            plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
            rows = (await plain.execute(query)).all()
        if len(rows) == TRUNKS_MAX:
            log.warning("trunks.too_many", kept=TRUNKS_MAX)
        self._trunks = {
            row.name: SourceTrunk(
                row.name, row.only_local, _prefixes(row.allow_prefixes), _prefixes(row.block_prefixes)
            )
            for row in rows
        }

    async def follow(self, bus: Bus) -> None:
        """Reads them again when one changes, or after a while, for ever."""

        async def account_changed(message: Msg) -> None:
            if events_pb2.AccountChanged.FromString(message.data).what == "trunk":
                self._follower.changed()

        await bus.subscribe(ACCOUNT_CHANGED, account_changed)
        await self._follower.run()

    async def _refresh_again(self) -> None:
        try:
            await self.refresh()
        except (SQLAlchemyError, OSError) as error:
            raise Unavailable("the trunks can't be read") from error

    def _failed(self, error: CallwardenError) -> None:
        log.warning("trunks.not_read", error=error.__cause__ or error)


def _prefixes(text: str) -> frozenset[str]:
    return frozenset(text.split(",")) if text else frozenset()
