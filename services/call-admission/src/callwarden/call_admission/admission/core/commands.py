"""What call-admission is asked to do in one transaction, and what it answers.

Out: the calls themselves (model.calls), what a command changes (transaction), what it reads (state.ReadSet).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from callwarden.call_admission.model.calls import (
    CallRequest,
    Decision,
    Ended,
    Expired,
    ExtendRequest,
    Hold,
    NoQuote,
    Pricing,
    Quote,
    Route,
    Started,
    Unclaimed,
)
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.verdict import Reason, Refuse

_MONEY_REASONS = frozenset({Reason.CREDIT, Reason.DAILY_SPEND, Reason.MONTHLY_SPEND})


@dataclass(slots=True)
class Admission:
    """A request, with rating's answer. `quote` None: a local call, or rating hasn't been asked yet."""

    request: CallRequest
    quote: Quote | NoQuote | None = None


@dataclass(slots=True)
class Extension:
    """A request for the next slice."""

    request: ExtendRequest


@dataclass(slots=True)
class DecisionRecord:
    """A decision that is stored without a call record: a refusal or a cut, or another service's decision, whose `body`
    is stored as it came."""

    id: UUID
    call_id: str
    account_id: UUID | None
    at_s: float
    outcome: str
    decision: Decision | None
    body: bytes = b""

    @classmethod
    def of(cls, record_id: UUID, call_id: str, account_id: UUID, decision: Decision) -> "DecisionRecord":
        return cls(record_id, call_id, account_id, decision.at_s, decision.outcome, decision)


Command: TypeAlias = Admission | Extension | Started | Ended | Expired | Unclaimed | DecisionRecord


# ------------------------------------------------------------------ outcomes


@dataclass(slots=True)
class Admitted:
    """The call may be placed, by these routes."""

    hold: Hold
    routes: tuple[Route, ...]
    policy_revision: int


@dataclass(slots=True)
class Extended:
    """The call may go on until the end of what its hold grants."""

    hold: Hold


@dataclass(slots=True)
class Refused:
    """The call must not be placed, or must not go on."""

    refuse: Refuse
    sip_status: int
    policy_revision: int


@dataclass(slots=True)
class NeedsQuote:
    """The account has another price list than the one quoted: ask rating with this pricing and submit again."""

    pricing: Pricing


@dataclass(slots=True)
class PlacedElsewhere:
    """The same call was admitted for another edge, which places it: its INVITE has come to both."""


@dataclass(slots=True)
class Done:
    """The event took effect."""


@dataclass(slots=True)
class EndedLate:
    """A call whose hold had lapsed was booked: by its end, or as expired since none was told."""

    corrected: bool
    """The call had a record as expired before: only its end can come then."""
    more_micros: int
    """What was charged now; negative: given back."""
    uncharged_micros: int
    """What a prepaid account could no longer pay: its money was free, and has gone elsewhere."""


@dataclass(slots=True)
class Ignored:
    """The event changed nothing: `why` is "settled" (repeated or late), "unknown", "elsewhere" (of another
    edge's call), "not-expired", or "not-due" where
    another process has done it."""

    why: str


@dataclass(slots=True)
class NoHold:
    """The call to be extended isn't running, or no longer is."""


@dataclass(slots=True)
class NeedsCounters:
    """The counters in `Changes.missing_counters` have to be read first; the batch is decided again then."""


Outcome: TypeAlias = (
    Admitted | Extended | Refused | NeedsQuote | PlacedElsewhere | Done | EndedLate | Ignored | NoHold | NeedsCounters
)


# ------------------------------------------------------------------ what commands are about


def account_of(command: Command) -> UUID | None:
    """The account that a command concerns; None for a decision record, which touches none."""
    match command:
        case Admission() | Extension():
            return command.request.account_id
        case DecisionRecord():
            return None
    return command.account_id


def hold_of(command: Command) -> UUID | None:
    """The hold that has to be read for a command."""
    match command:
        case Admission() | Extension():
            return command.request.hold_id
        case DecisionRecord():
            return None
    return command.hold_id


def accounts_of(commands: Iterable[Command]) -> list[UUID]:
    """The accounts of a batch, each once and in key order, in which every process locks them."""
    return sorted({account for command in commands if (account := account_of(command)) is not None})


def holds_of(commands: Collection[Command]) -> list[UUID]:
    """The holds of a batch, each once."""
    return sorted({hold for command in commands if (hold := hold_of(command)) is not None})


def carriers_of(commands: Iterable[Command]) -> list[UUID]:
    """The carriers that the batch's new calls may use, each once."""
    quotes = [command.quote for command in commands if isinstance(command, Admission)]
    return sorted({carrier for quote in quotes if isinstance(quote, Quote) for carrier in quote.carriers})


def sip_status(refuse: Refuse, policy: AdmissionPolicy) -> int:
    """The SIP status that policy sets for this refusal; 0: the edge's table decides."""
    return policy.reject_status if refuse.reason in _MONEY_REASONS else 0
