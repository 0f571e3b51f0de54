"""What operators do with trunks. Every change is published once it is made.

Out: what a trunk may be (core.trunks), how it is kept (ports).
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from callwarden.call_admission.accounts.core.accounts import AccountRef
from callwarden.call_admission.accounts.core.trunks import TrunkUpdate
from callwarden.call_admission.accounts.core.views import AccountView
from callwarden.call_admission.accounts.ports import AccountEvents, Accounts, Trunks
from callwarden.kernel.clock import Clock
from callwarden.kernel.trunk import Trunk


class TrunkService:
    """Creates, changes, lists and deletes trunks."""

    def __init__(self, trunks: Trunks, accounts: Accounts, events: AccountEvents, clock: Clock) -> None:
        self._trunks = trunks
        self._accounts = accounts
        self._events = events
        self._clock = clock

    async def create(self, trunk: Trunk) -> Trunk:
        """Raises NotFound, Conflict, Invalid, Unavailable."""
        account_id = await self._accounts.find(AccountRef.parse(trunk.account))
        await self._trunks.create(trunk, account_id)
        owner = await self._publish(account_id)
        return replace(trunk, account=owner.account.name, realm=owner.account.realm)

    async def update(self, name: str, change: TrunkUpdate) -> Trunk:
        """All of the change or nothing. Raises NotFound, Invalid, Unavailable."""
        trunk, account_id = await self._trunks.update(name, change)
        await self._publish(account_id)
        return trunk

    async def list(self) -> Sequence[Trunk]:
        return await self._trunks.list()

    async def delete(self, name: str) -> bool:
        """Whether there was one. Raises Conflict while routes lead to it."""
        account_id = await self._trunks.delete(name)
        if account_id is not None:
            await self._publish(account_id)
        return account_id is not None

    async def _publish(self, account_id: UUID) -> AccountView:
        owner = await self._accounts.get(account_id, self._clock.unix_s())
        self._events.account_changed(account_id, "trunk", owner.account.realm)
        return owner
