"""The desk where operators change accounts and trunks and ask about calls: found, changed, then told.

Out: deciding calls (app), what an account may be (core.accounts), how it is kept (ports).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from callwarden.call_admission.core.accounts import (
    AccountChange,
    AccountRef,
    AccountView,
    Audit,
    CallView,
    Explanation,
    NewAccount,
    Trunk,
)
from callwarden.call_admission.ports import Accounts, News
from callwarden.kernel.clock import Clock


class AccountDesk:
    """What operators do with accounts and trunks, and ask about calls: found, changed, then told."""

    def __init__(self, accounts: Accounts, news: News, clock: Clock, new_id: Callable[[], UUID]) -> None:
        self._accounts = accounts
        self._news = news
        self._clock = clock
        self._new_id = new_id

    async def create(self, account: NewAccount) -> AccountView:
        """Raises Conflict, Unavailable."""
        account_id = self._new_id()
        await self._accounts.create(account_id, account)
        if account.numbers:
            self._news.account_changed(account_id, "numbers", account.realm)
        return await self._accounts.get(account_id, self._clock.now_s())

    async def get(self, ref: AccountRef) -> AccountView:
        """Raises NotFound, Conflict for a name that several realms have, Unavailable."""
        return await self._accounts.get(await self._accounts.find(ref), self._clock.now_s())

    async def list(self, after: str, limit: int) -> Sequence[AccountView]:
        return await self._accounts.list(after, limit, self._clock.now_s())

    async def update(self, ref: AccountRef, change: AccountChange) -> AccountView:
        """All of the change or nothing. Raises as get, and Conflict or Invalid for numbers."""
        account_id = await self._accounts.find(ref)
        await self._accounts.update(account_id, change)
        view = await self._accounts.get(account_id, self._clock.now_s())
        for what, changed in (
            ("status", change.active is not None),
            ("numbers", bool(change.add_numbers or change.remove_numbers)),
            ("limits", any(v is not None for v in (change.deck, change.max_lines, change.daily_micros))
             or bool(change.clear)),
        ):  # fmt: skip
            if changed:
                self._news.account_changed(account_id, what, view.account.realm)
        return view

    async def create_trunk(self, trunk: Trunk) -> Trunk:
        account_id = await self._accounts.find(AccountRef.parse(trunk.account))
        await self._accounts.create_trunk(trunk, account_id)
        view = await self._accounts.get(account_id, self._clock.now_s())
        self._news.account_changed(account_id, "trunk", view.account.realm)
        return replace(trunk, account=view.account.name)

    async def trunks(self) -> Sequence[Trunk]:
        return await self._accounts.trunks()

    async def delete_trunk(self, name: str) -> bool:
        """Whether there was one. Raises Conflict while routes lead to it."""
        account_id = await self._accounts.delete_trunk(name)
        if account_id is not None:
            view = await self._accounts.get(account_id, self._clock.now_s())
            self._news.account_changed(account_id, "trunk", view.account.realm)
        return account_id is not None

    async def calls(self, ref: AccountRef | None, since_s: float, limit: int, *, running: bool) -> Sequence[CallView]:
        account_id = None if ref is None else await self._accounts.find(ref)
        return await self._accounts.calls(account_id, since_s, limit, running=running)

    async def explain(self, call_id: str) -> Explanation:
        return await self._accounts.explain(call_id)

    async def audit(self, ref: AccountRef | None) -> Audit:
        return await self._accounts.audit(None if ref is None else await self._accounts.find(ref))
