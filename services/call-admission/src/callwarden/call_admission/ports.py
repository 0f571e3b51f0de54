"""What call-admission needs of the world, in its own words. Each docstring is the contract."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
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
from callwarden.call_admission.core.book import Changes, Loaded
from callwarden.call_admission.core.calls import Expired, NoQuote, Quote
from callwarden.call_admission.core.policy import AdmissionPolicy

T = TypeVar("T")


class Read(Protocol):
    """What a batch stands on. Each key once and in order, so that everybody locks rows in the same one."""

    @property
    def accounts(self) -> Sequence[UUID]:
        """All accounts of the batch."""
        ...

    @property
    def counted(self) -> Sequence[UUID]:
        """Those of them whose lines and days are asked for."""
        ...

    @property
    def holds(self) -> Sequence[UUID]:
        """The holds (and, by the same ids, records and refusals) of the batch."""
        ...

    @property
    def now_s(self) -> float:
        """Holds that expire later count as lines."""
        ...


class Books(Protocol):
    """Where accounts, holds, ledger and records are kept."""

    async def update(self, read: Read, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        """Calls `work` with what the batch stands on and writes the changes that it returns, all or nothing, and only
        if nothing they stand on has changed by then. Returns work's other result.

        `work` is called again, with what is true then, when somebody came between; it must have no effect beside its
        result. It may be given what was true a while ago; what `Changes.doubtful` names is then decided again.

        Raises Unavailable if the database can't be asked or doesn't answer in time; it may have written then, and
        commands are such that doing them again is harmless. Raises Conflict when others came between too often.
        Anything else means that some change can't be written; then nothing was.
        """
        ...

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        """Holds whose time has passed, the oldest first. Raises Unavailable."""
        ...


class Quotes(Protocol):
    """Prices and routes."""

    def known(self, deck: str, destination: str, at_s: float) -> Quote | NoQuote | None:
        """What is known without asking; None if nothing is."""
        ...

    async def ask(self, deck: str, destination: str, at_s: float) -> Quote | NoQuote:
        """The price and routes of an E.164 number (digits). NoQuote with reason UNAVAILABLE when rating can't be
        asked and nothing is known."""
        ...


class PolicySource(Protocol):
    """The policy that holds now."""

    @property
    def revision(self) -> int: ...

    def for_realm(self, realm: str) -> AdmissionPolicy: ...


class Accounts(Protocol):
    """Accounts, trunks and what is known of calls, for people. All methods raise Unavailable."""

    async def create(self, account_id: UUID, account: NewAccount) -> None:
        """Raises Conflict when the name or one of the numbers is taken; then nothing was written."""
        ...

    async def find(self, ref: AccountRef) -> UUID:
        """The account's id. Raises NotFound; Conflict when several realms have one of that name."""
        ...

    async def get(self, account_id: UUID, now_s: float) -> AccountView:
        """Raises NotFound."""
        ...

    async def list(self, after: str, limit: int, now_s: float) -> Sequence[AccountView]:
        """By name, then realm, after that name."""
        ...

    async def update(self, account_id: UUID, change: AccountChange) -> None:
        """All of it or nothing. Raises NotFound; Conflict when a number is another account's; Invalid when a number to
        be removed isn't the account's."""
        ...

    async def create_trunk(self, trunk: Trunk, account_id: UUID) -> None:
        """Raises Conflict when the name is taken, Invalid when the account is of another kind, NotFound."""
        ...

    async def trunks(self) -> Sequence[Trunk]:
        """By name."""
        ...

    async def delete_trunk(self, name: str) -> UUID | None:
        """Its account; None if there is none of that name. Raises Conflict while routes lead to it."""
        ...

    async def calls(self, account_id: UUID | None, since_s: float, limit: int, *, running: bool) -> Sequence[CallView]:
        """Newest first: those that run, and (unless `running`) those that are settled."""
        ...

    async def explain(self, call_id: str) -> Explanation:
        """Empty when nothing is known of it."""
        ...

    async def audit(self, account_id: UUID | None) -> Audit:
        """One account's books, or all. Doesn't get into the way of calls."""
        ...


class News(Protocol):
    """Where changes are told."""

    def account_changed(self, account_id: UUID, what: str, realm: str) -> None:
        """Tells everybody who remembers something of it; doesn't block. `what`: "status", "limits", "numbers",
        "trunk"."""
        ...
