"""Calls as tables of verdicts speak of them: whose, with what is counted, under which policy."""

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from admission_line import (
    CARRIER_ID,
    NOW_S,
    ROUTE,
    TODAY,
    account,
    counted,
    policy,
    postpaid,
    priced,
    quote,
    request,
    reseller,
    snapshot,
)

from callwarden.call_admission.admission.core.decide import Evaluation, decide
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot, SourceTrunk
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import NoQuote, Pricing
from callwarden.call_admission.model.leases import Leases
from callwarden.call_admission.model.scopes import CARRIER, RESELLER
from callwarden.call_admission.model.spans import CalendarSpan
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.verdict import Reason

BERLIN, PARIS, CUBA, NOWHERE = "493012345678", "33142345678", "5371234567", "999123456"
DAY, MONTH = TODAY.toordinal(), TODAY.year * 12 + TODAY.month - 1


def spent(micros: int, talk_s: int = 0) -> Usage:
    """Of today, which is all of this month."""
    return Usage(
        days=[CalendarSpan(DAY, micros, talk_s=talk_s)], months=[CalendarSpan(MONTH, micros, talk_s=talk_s)],
        spent_micros=micros,
    )  # fmt: skip


def running(calls: int) -> Usage:
    return Usage(leases=Leases([[int(NOW_S) // 8 + 10, calls]]))


@dataclass(frozen=True)
class Asked:
    """A call, and all that decides about it."""

    account: Account = field(default_factory=postpaid)
    owners: tuple[CounterView, ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    destination: str = BERLIN
    of: dict[str, Any] = field(default_factory=dict)
    """Fields of the snapshot."""

    @property
    def snapshot(self) -> Snapshot:
        return snapshot(self.account, *self.owners, **self.of)

    @property
    def decided(self) -> Evaluation:
        local = self.of.get("quote", True) is None
        return decide(self.snapshot, request(self.destination, local=local), policy(**self.spec))


def to(destination: str, home: str = "", **listed: object) -> Asked:
    """A call where destinations are listed."""
    return Asked(postpaid(country=home), spec={"fraud": {"destinations": listed}}, destination=destination)


def by_trunk(allowed: str = "", blocked: str = "") -> Asked:
    prefixes = (frozenset({each} if each else ()) for each in (allowed, blocked))
    return Asked(of={"trunk": SourceTrunk("pbx", False, *prefixes)})


def unpriced(reason: Reason, deck: str) -> Asked:
    return Asked(of={"quote": NoQuote(Pricing(deck), reason)})


def costing(*micros: int | None, **billing: object) -> Asked:
    """A call for 0.06 EUR a minute that may go by routes that cost so much; None: nobody knows."""
    ways = [
        replace(ROUTE, trunk=str(index), cost=None if each is None else priced(each))
        for index, each in enumerate(micros)
    ]
    return Asked(spec={"billing": billing}, of={"quote": quote(priced(60_000), *ways)})


def billed(level: int, destination: str = BERLIN, parent: UUID | None = None, **changes: Any) -> Asked:
    return Asked(
        postpaid(parent=parent), spec={"billing": {"blockNotBilled": level}}, destination=destination,
        of={"quote": replace(quote(), **changes)},
    )  # fmt: skip


def by_carriers(*talked_s: int) -> Asked:
    """A call that may go by carriers "a", "b" … of which each has an hour a day, and has used so much of it."""
    names = "abc"[: len(talked_s)]
    ways = [replace(ROUTE, trunk=name, carrier_account_id=name) for name in names]
    carriers = {
        name: counted(
            CARRIER,
            spent(0, talk_s),
            account=account(id=CARRIER_ID, name=name, type=AccountType.CARRIER, talk_day_s=3_600, talk_month_s=9_999),
        )
        for name, talk_s in zip(names, talked_s, strict=True)
    }
    return Asked(of={"quote": quote(priced(60_000), *ways), "carriers": carriers})


DAY_WINDOW, MONTH_WINDOW = "day 2026-01-05 Europe/Berlin", "month 2026-01 Europe/Berlin"


def reseller_of(usage: Usage, **limits: Any) -> tuple[CounterView]:
    return (counted(RESELLER, usage, account=reseller(**limits)),)


def velocity(**rule: Any) -> dict[str, Any]:
    return {"fraud": {"velocity": [{"name": "irsf", "period": "5m"} | rule]}}
