"""What call-admission needs of the world, in its own words. Each docstring is the contract."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, TypeVar
from uuid import UUID

from callwarden.call_admission.core.account_csv import Line
from callwarden.call_admission.core.accounts import (
    AccountChange,
    AccountFilter,
    AccountRef,
    AccountView,
    Audit,
    CallView,
    Explanation,
    NewAccount,
    Trunk,
    TrunkChange,
)
from callwarden.call_admission.core.book import Changes, Loaded
from callwarden.call_admission.core.calls import Expired, NoQuote, Pricing, Quote
from callwarden.call_admission.core.corrections import Corrected
from callwarden.call_admission.core.lists import Lists
from callwarden.call_admission.core.notices import Notice
from callwarden.call_admission.core.policy import AdmissionPolicy
from callwarden.call_admission.core.records import CallRecord, Decisions, LedgerEntries, Place
from callwarden.call_admission.core.snapshot import SourceTrunk
from callwarden.kernel.csv_rows import LineError

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
    def looked(self) -> Sequence[UUID]:
        """Accounts that are only looked at, beside the resellers of `accounts`: carriers."""
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
        result. It may be given what was true a while ago; what `Changes.doubtful` names is then decided again. While
        `Changes.missing` isn't empty nothing is written: `work` is called again with those counters, too.

        Raises Unavailable if the database can't be asked or doesn't answer in time; it may have written then, and
        commands are such that doing them again is harmless. Raises Conflict when others came between too often.
        Anything else means that some change can't be written; then nothing was.
        """
        ...

    async def look(self, read: Read, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
        """As `update`, on what is true now, and nothing is written."""
        ...

    async def expired(self, now_s: float, limit: int) -> Sequence[Expired]:
        """Holds whose time has passed, the oldest first. Raises Unavailable."""
        ...


class Quotes(Protocol):
    """Prices and routes."""

    def known(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote | None:
        """What is known without asking; None if nothing is."""
        ...

    async def ask(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote:
        """The price and routes of an E.164 number (digits). NoQuote with reason UNAVAILABLE when rating can't be
        asked and nothing is known."""
        ...


class PolicySource(Protocol):
    """The policy that holds now."""

    @property
    def revision(self) -> int: ...

    def for_realm(self, realm: str) -> AdmissionPolicy: ...


class ListSource(Protocol):
    """The number lists that hold now."""

    @property
    def current(self) -> Lists: ...


class SourceTrunks(Protocol):
    """Trunks by which calls come in."""

    def get(self, name: str) -> SourceTrunk | None:
        """What is said of it; None if there is none of that name. Doesn't block."""
        ...


class Notices(Protocol):
    """Where limits that come near, and calls that were blocked, are told."""

    def tell(self, notice: Notice) -> None:
        """Doesn't block."""
        ...


class Shards(Protocol):
    """In how many rows an account is counted."""

    async def grow(self, account_id: UUID, before: int, shards: int) -> bool:
        """From so many (1: none) to so many, all counts taken along; False if it has another number by now. Raises
        Unavailable, Conflict."""
        ...


class Accounts(Protocol):
    """Accounts, trunks and what is known of calls, for people. All methods raise Unavailable."""

    async def create(self, account_id: UUID, account: NewAccount, ceilings: "Ceilings | None" = None) -> None:
        """Raises Conflict when the name or one of the numbers is taken, Invalid when the reseller or the deck isn't one
        for it, Exhausted when a ceiling is reached; then nothing was written."""
        ...

    async def check(self, lines: Sequence[Line], resellers: "Resellers") -> Sequence[LineError]:
        """What stands in the way of creating these: as `create`, but all that is wrong, by line."""
        ...

    async def create_all(
        self,
        pages: Callable[[], Iterable[Sequence[Line]]],
        new_id: Callable[[], UUID],
        resellers: "Resellers",
        ceilings: "Ceilings",
    ) -> int:
        """Creates all of them or none; how many. `pages` may be called again. Raises as `create`."""
        ...

    def pages(self, wanted: AccountFilter) -> AsyncIterator[Sequence[NewAccount]]:
        """All that are meant, by realm and name."""
        ...

    async def find(self, ref: AccountRef) -> UUID:
        """The account's id. Raises NotFound; Conflict when several realms have one of that name."""
        ...

    async def get(self, account_id: UUID, now_s: float) -> AccountView:
        """Raises NotFound."""
        ...

    async def list(self, after: str, limit: int, now_s: float, wanted: AccountFilter) -> Sequence[AccountView]:
        """By name, then realm, after that name."""
        ...

    async def update(self, account_id: UUID, change: AccountChange) -> None:
        """All of it or nothing. Raises NotFound; Conflict when a number is another account's, or the currency of an
        account with ledger entries is to change; Invalid when what is to be removed isn't there, or the result can't be
        meant."""
        ...

    async def create_trunk(self, trunk: Trunk, account_id: UUID) -> None:
        """Raises Conflict when the name is taken, Invalid when the account is of another kind, NotFound."""
        ...

    async def update_trunk(self, name: str, change: TrunkChange) -> tuple[Trunk, UUID]:
        """All of it or nothing; the trunk as it is then, and its account. Raises NotFound, Invalid."""
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


class Ceilings(Protocol):
    """How many accounts there may be; None: any number."""

    @property
    def system(self) -> int | None: ...

    def realm(self, name: str) -> int | None: ...


KEPT: Final = ("cdr", "decision", "counter", "spend_day")
"""What doesn't stay for ever."""

Slice: TypeAlias = tuple[UUID, UUID | None]
"""Account ids from the first up to the second; None: to the last."""


@dataclass(frozen=True, slots=True)
class Reseller:
    """One that an import itself makes."""

    id: UUID
    currency: str
    line: int
    """That makes it; accounts of later ones may belong to it."""


Resellers: TypeAlias = dict[tuple[str, str], Reseller]
"""By realm and name."""


class Records(Protocol):
    """Calls that are over, and what was decided about calls. All methods raise Unavailable."""

    def export(self, account_id: UUID | None, since_s: float, until_s: float) -> AsyncIterator[Sequence[CallRecord]]:
        """Records of calls that began in that time, by account and start, page by page. What is settled meanwhile may
        be among them."""
        ...

    async def decisions(
        self, account_id: UUID, since_s: float, outcome: str, after: Place | None, limit: int
    ) -> Decisions:
        """The newest first, beginning after that place."""
        ...

    async def ledger(self, account_id: UUID, since_s: float, after: Place | None, limit: int) -> LedgerEntries:
        """What was booked on the account, the newest first, beginning after that place."""
        ...

    async def correct_call(self, hold_id: UUID, price_micros: int, note: str, key: str) -> Corrected:
        """Makes a settled call cost so much, by a reversing entry: balance and spend of its day follow in the same
        transaction. Once for each key. Raises NotFound; Conflict when the call still runs, the account can't bear it,
        or the key has done something else."""
        ...

    async def reverse_entry(self, entry_id: UUID, note: str, key: str) -> Corrected:
        """Takes back what is left of an entry, likewise. Raises as correct_call; Invalid for a reversal."""
        ...

    async def forget(self, kind: str, slice_: Slice, before_s: float, limit: int) -> int:
        """Deletes at most `limit` rows of one of KEPT that are older, of accounts of the slice; how many it found.
        Several processes may do so at once."""
        ...


class News(Protocol):
    """Where changes are told."""

    def account_changed(self, account_id: UUID, what: str, realm: str) -> None:
        """Tells everybody who remembers something of it; doesn't block. `what`: "status", "limits", "numbers",
        "trunk"."""
        ...
