"""What the administration of accounts needs of the world. Each docstring is the contract."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from uuid import UUID

from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.call_admission.accounts.core.accounts import AccountChange, AccountFilter, AccountRef
from callwarden.call_admission.accounts.core.trunks import TrunkUpdate
from callwarden.call_admission.accounts.core.views import AccountView, CallView, Explanation, LedgerAudit
from callwarden.kernel.account import NewAccount
from callwarden.kernel.clock import UnixS
from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.trunk import Trunk


class Accounts(Protocol):
    """Accounts, for operators. All methods raise Unavailable."""

    async def create(self, account_id: UUID, account: NewAccount, ceilings: "AccountCeilings | None" = None) -> None:
        """Raises Conflict when the name or one of the numbers is taken, Invalid when the reseller or the deck isn't one
        for it, Exhausted when a ceiling is reached; then nothing was written."""
        ...

    async def check(self, lines: Sequence[Line], resellers: "Resellers") -> Sequence[LineError]:
        """What stands in the way of creating these: as `create`, but all that is wrong, by line."""
        ...

    async def create_all(
        self,
        pages: Callable[[], AsyncIterable[Sequence[Line]]],
        new_id: Callable[[], UUID],
        resellers: "Resellers",
        ceilings: "AccountCeilings",
    ) -> int:
        """Creates all of them or none; how many. `pages` may be called again. Raises as `create`."""
        ...

    def pages(self, wanted: AccountFilter) -> AsyncIterator[Sequence[NewAccount]]:
        """All that are meant, by realm and name."""
        ...

    async def find(self, ref: AccountRef) -> UUID:
        """The account's id. Raises NotFound; Conflict when several realms have one of that name."""
        ...

    async def owner_of(self, number: str) -> UUID | None:
        """The account that the number (E.164 digits) was given to."""
        ...

    async def get(self, account_id: UUID, unix_s: UnixS) -> AccountView:
        """Raises NotFound."""
        ...

    async def list(self, after: str, limit: int, unix_s: UnixS, wanted: AccountFilter) -> Sequence[AccountView]:
        """By name, then realm, after that name."""
        ...

    async def update(self, account_id: UUID, change: AccountChange) -> None:
        """All of it or nothing. Raises NotFound; Conflict when a number is another account's, or the currency of an
        account with ledger entries is to change; Invalid when what is to be removed isn't there, or the result can't be
        meant."""
        ...


class Trunks(Protocol):
    """Trunks, for operators. All methods raise Unavailable."""

    async def create(self, trunk: Trunk, account_id: UUID) -> None:
        """Raises Conflict when the name is taken, Invalid when the account is of another kind, NotFound."""
        ...

    async def update(self, name: str, change: TrunkUpdate) -> tuple[Trunk, UUID]:
        """All of it or nothing; the trunk as it is then, and its account. Raises NotFound, Invalid."""
        ...

    async def list(self) -> Sequence[Trunk]:
        """By name."""
        ...

    async def delete(self, name: str) -> UUID | None:
        """Its account; None if there is none of that name. Raises Conflict while routes lead to it."""
        ...


class CallHistory(Protocol):
    """What is known of calls, and the sums of the ledger, for operators. All methods raise Unavailable."""

    async def list(self, account_id: UUID | None, since_s: float, limit: int, *, running: bool) -> Sequence[CallView]:
        """Newest first: those that run, and (unless `running`) those that are settled."""
        ...

    async def explain(self, call_id: str) -> Explanation:
        """Empty when nothing is known of it."""
        ...

    async def audit(self, account_id: UUID | None) -> LedgerAudit:
        """One account's sums, or those of all. Doesn't get in the way of calls."""
        ...


class AccountCeilings(Protocol):
    """How many accounts there may be; None: any number."""

    @property
    def system(self) -> int | None: ...

    def realm(self, name: str) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Reseller:
    """One that an import itself makes."""

    id: UUID
    currency: str
    line: int
    """That makes it; accounts of later ones may belong to it."""


Resellers: TypeAlias = dict[tuple[str, str], Reseller]
"""By realm and name."""


class AccountEvents(Protocol):
    """Where changes of accounts are published."""

    def account_changed(self, account_id: UUID, what: str, realm: str, numbers: Sequence[str] = ()) -> None:
        """Notifies all processes that cache something of it; doesn't block. `what`: "status", "limits", "numbers",
        "trunk"; with "numbers" those that were given or taken away, none: any may have been."""
        ...
