"""What call-admission needs of the world, in its own words. Each docstring is the contract."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from callwarden.call_admission.admission.core.book import Changes, Loaded
from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.core.snapshot import SourceTrunk
from callwarden.call_admission.model.calls import Expired, NoQuote, Pricing, Quote
from callwarden.kernel.verdict import Reason

T = TypeVar("T")


class ReadSet(Protocol):
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


class AdmissionStore(Protocol):
    """Where accounts, holds, ledger and records are kept."""

    async def update(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
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

    async def look(self, read: ReadSet, work: Callable[[Loaded], tuple[Changes, T]]) -> T:
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


class SourceTrunks(Protocol):
    """Trunks by which calls come in."""

    def get(self, name: str) -> SourceTrunk | None:
        """What is said of it; None if there is none of that name. Doesn't block."""
        ...


class Notifier(Protocol):
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


class CallObserver(Protocol):
    """Sees how calls go on: numbers that keep failing, or under attack, may be listed. Doesn't block."""

    def ended(
        self,
        account_id: UUID,
        destination: str,
        caller_number: str,
        talk_s: float | None,
        sip_status: int,
        reason: str,
        *,
        local: bool,
    ) -> None:
        """A call was settled just now. `talk_s` None: it wasn't answered."""
        ...

    def refused(self, account_id: UUID, destination: str, reason: Reason, *, local: bool) -> None:
        """A call was refused just now."""
        ...
