"""What operators do with accounts: create, change, list, import and export them.

Out: trunks (trunk_service), what is known of calls (record_service), limits (limit_queries), deciding calls
(admission), what an account may be (core.accounts), how it is kept (ports).
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from callwarden.call_admission.accounts.app.account_import import AccountImporter, Imported, ImportRequest
from callwarden.call_admission.accounts.core import account_csv
from callwarden.call_admission.accounts.core.accounts import AccountChange, AccountFilter, AccountRef
from callwarden.call_admission.accounts.core.views import AccountView
from callwarden.call_admission.accounts.ports import AccountEvents, Accounts
from callwarden.call_admission.model.sources import PolicySource
from callwarden.common.logs import get_logger
from callwarden.common.pace import Pace
from callwarden.kernel.account import NewAccount
from callwarden.kernel.clock import Clock

log = get_logger(__name__)

# Of the time: an import takes four times as long as it could, and calls notice little of it (docs/benchmarks.md).
IMPORT_SHARE: Final = 0.25
_NOBODY: Final = UUID(int=0)
# No decision depends on these.
_UNSEEN: Final = frozenset({"active", "email", "email_verified", "phone", "phone_verified"})


@dataclass(frozen=True, slots=True)
class PolicyCeilings:
    """Implements ports.AccountCeilings by the policies."""

    policies: PolicySource

    @property
    def system(self) -> int | None:
        return self.policies.for_realm("").accounts_max

    def realm(self, name: str) -> int | None:
        return self.policies.for_realm(name).realm_accounts_max


class AccountService:
    """What operators do with accounts. Every change is published once it is made."""

    def __init__(
        self,
        accounts: Accounts,
        events: AccountEvents,
        policies: PolicySource,
        clock: Clock,
        new_id: Callable[[], UUID],
    ) -> None:
        self._accounts = accounts
        self._ceilings = PolicyCeilings(policies)
        self._importer = AccountImporter(accounts, self._ceilings, new_id, Pace(clock, IMPORT_SHARE))
        self._events = events
        self._clock = clock
        self._new_id = new_id

    async def create(self, account: NewAccount) -> AccountView:
        """Raises Conflict, Invalid, Exhausted, Unavailable."""
        account_id = self._new_id()
        await self._accounts.create(account_id, account, self._ceilings)
        if account.numbers:
            self._events.account_changed(account_id, "numbers", account.realm, account.numbers)
        return await self._accounts.get(account_id, self._clock.unix_s())

    async def get(self, ref: AccountRef) -> AccountView:
        """Raises NotFound, Conflict for a name that several realms have, Unavailable."""
        return await self._accounts.get(await self._accounts.find(ref), self._clock.unix_s())

    async def list(
        self,
        after: str,
        limit: int,
        wanted: AccountFilter = AccountFilter(),  # noqa: B008
    ) -> Sequence[AccountView]:
        return await self._accounts.list(after, limit, self._clock.unix_s(), wanted)

    async def update(self, ref: AccountRef, change: AccountChange) -> AccountView:
        """All of the change or nothing. Raises as get, and Conflict or Invalid for numbers."""
        account_id = await self._accounts.find(ref)
        await self._accounts.update(account_id, change)
        view = await self._accounts.get(account_id, self._clock.unix_s())
        for what in _aspects(change):
            self._events.account_changed(account_id, what, view.account.realm, _numbers(change, what))
        return view

    async def import_(self, request: ImportRequest) -> Imported:
        """All accounts of the file or none; with `keep_going` those that are right. Raises as create."""
        done = await self._importer.run(request)
        if done.created and not request.dry_run:
            # Subscribers that know numbers read all of them again, whichever account is named.
            self._events.account_changed(_NOBODY, "numbers", "")
            log.info("accounts.imported", count=done.created, errors=done.errors_total)
        return done

    async def export(self, wanted: AccountFilter) -> AsyncIterator[str]:
        """A file that `import_` takes, in pieces."""
        yield account_csv.header()
        async for page in self._accounts.pages(wanted):
            yield account_csv.write(page)


def _numbers(change: AccountChange, what: str) -> tuple[str, ...]:
    return (*change.add.get("numbers", ()), *change.remove.get("numbers", ())) if what == "numbers" else ()


def _aspects(change: AccountChange) -> Iterator[str]:
    """What subscribers are told has changed."""
    if "active" in change.values:
        yield "status"
    if "numbers" in change.add or "numbers" in change.remove:
        yield "numbers"
    if change.values.keys() - _UNSEEN or change.clear or (change.add.keys() | change.remove.keys()) - {"numbers"}:
        yield "limits"
