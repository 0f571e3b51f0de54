"""Trunks in SQL for both databases. Cold: SQLAlchemy Core throughout."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.call_admission.accounts.adapters.account_rows import trunk_of, trunk_row
from callwarden.call_admission.accounts.core.trunks import TrunkUpdate
from callwarden.common.sql import Database
from callwarden.kernel.errors import Conflict, Invalid, NotFound
from callwarden.kernel.trunk import Trunk
from callwarden.schema.tables import account, route, trunk


class SqlTrunks:
    """Implements ports.Trunks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, new: Trunk, account_id: UUID) -> None:
        async def work(connection: AsyncConnection) -> None:
            query = select(account.c.type).where(account.c.id == account_id)
            type_ = (await connection.execute(query)).scalar()
            if type_ is None:
                raise NotFound(f"there is no account {account_id}", field="account")
            if type_ != new.direction.value:
                raise Invalid(f"the trunk is a {new.direction.value}, its account is of type {type_}", field="account")
            await connection.execute(insert(trunk).values(name=new.name, account_id=account_id, **trunk_row(new)))

        try:
            await self._database.transaction("trunk-create", work)
        except IntegrityError as error:
            raise Conflict(f"there is a trunk {new.name} already", field="name") from error

    async def update(self, name: str, change: TrunkUpdate) -> tuple[Trunk, UUID]:
        async def work(connection: AsyncConnection) -> tuple[Trunk, UUID]:
            query = (
                select(trunk, account.c.name.label("owner"), account.c.realm).join(account).where(trunk.c.name == name)
            )
            row = (await connection.execute(query.with_for_update(of=trunk))).one_or_none()
            if row is None:
                raise NotFound(f"there is no trunk {name}", field="name")
            after = change.of(trunk_of(row))
            await connection.execute(update(trunk).where(trunk.c.name == name).values(**trunk_row(after)))
            return after, row.account_id

        return await self._database.transaction("trunk-update", work)

    async def list(self) -> Sequence[Trunk]:
        query = select(trunk, account.c.name.label("owner"), account.c.realm).join(account).order_by(trunk.c.name)
        return [trunk_of(row) for row in await self._database.rows("trunk-list", query)]

    async def delete(self, name: str) -> UUID | None:
        async def work(connection: AsyncConnection) -> UUID | None:
            used = (await connection.execute(select(route.c.prefix).where(route.c.trunk == name).limit(1))).first()
            if used is not None:
                where = f"+{used.prefix}" if used.prefix else "all numbers"
                raise Conflict(f"a route for {where} leads to trunk {name}", field="name")
            deleted = delete(trunk).where(trunk.c.name == name).returning(trunk.c.account_id)
            owner: UUID | None = (await connection.execute(deleted)).scalar()
            return owner

        return await self._database.transaction("trunk-delete", work)
