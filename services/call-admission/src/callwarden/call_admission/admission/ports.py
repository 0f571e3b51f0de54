"""What call-admission needs of the world, in its own words. Each docstring is the contract."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.core.snapshot import SourceTrunk
from callwarden.call_admission.admission.core.state import Changes, CounterKey, Loaded, ReadSet
from callwarden.call_admission.model.calls import Expired, NoQuote, Pricing, Quote, Unclaimed
from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Reason


@dataclass(frozen=True, slots=True)
class Written:
    """All changes are committed."""


@dataclass(frozen=True, slots=True)
class WriteConflict:
    """Nothing was written, as far as is known: another process came between the read and the write.

    `error`: what the store says, where a version that has moved isn't the only explanation (a CHECK was violated, a key
    exists already, the outcome of the commit isn't known). Reading again shows what is true.
    """

    error: Exception | None = None


class AdmissionStore(Protocol):
    """Where accounts, holds, ledger and records are kept. All methods raise Unavailable if it can't be reached."""

    async def load(self, read: ReadSet, counters: Collection[CounterKey]) -> Loaded:
        """What is true now. Rows that don't exist are left out, except counters: those are new ones with version 0.

        Accounts, holds and referenced accounts are of one moment; counters are of the same moment or an earlier one.
        The result belongs to the caller, who may change it.
        """
        ...

    async def write(self, changes: Changes) -> Written | WriteConflict:
        """Writes all of the changes or nothing.

        It is a conflict if an account has another version than `versions` or `checked` says, a counter another one than
        its row (if there is one), a hold another expiry than `expiries` says, or if the id of a new or closed hold has
        a hold already; with `check_hold_ids` also if a new hold's has a call record or a refusal. Each account in
        `versions` and each counter gets a version one higher. A decision record whose id exists already is left out.
        Any other exception means that a change can't be written at all.
        """
        ...

    async def expired(self, unix_s: UnixS, limit: int) -> Sequence[Expired]:
        """Running holds whose time has passed (Unix time), at most so many, in any order."""
        ...

    async def lapsed(self, unix_s: UnixS, limit: int) -> Sequence[Unclaimed]:
        """Lapsed holds that expired by then (Unix time), at most so many, in any order."""
        ...

    async def forget_recorded(self, unix_s: UnixS) -> None:
        """Deletes the holds that expired by then (Unix time) and have a call record as expired, or were closed before
        they were placed."""
        ...


class EventProgress(Protocol):
    """How far the events of calls have been heard."""

    async def heard_until(self) -> UnixS | None:
        """Whatever edges have told, or were about to tell, before this moment (Unix time) has taken effect; None: not
        known, since NATS is away or was until a moment ago, or events wait."""
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
    """Publishes notices: a limit is nearly or fully used, or a call was blocked."""

    def notify(self, notice: Notice) -> None:
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
        source: str = "",
    ) -> None:
        """A call from the address `source` was settled just now. `talk_s` None: it wasn't answered."""
        ...

    def refused(self, account_id: UUID, destination: str, reason: Reason, *, local: bool, source: str = "") -> None:
        """A call from the address `source` was refused just now."""
        ...
