"""Accounts, calls and processes of call-admission as tests of its core speak of them: the real attempts on a store in
memory."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from callwarden.call_admission.admission.adapters.store_memory import MemoryAdmissionStore
from callwarden.call_admission.admission.attempts import AdmissionAttempts
from callwarden.call_admission.admission.core.cache import AccountCache
from callwarden.call_admission.admission.core.commands import (
    Admission,
    Admitted,
    Command,
    Extension,
    Outcome,
    Refused,
)
from callwarden.call_admission.admission.core.notices import Notice
from callwarden.call_admission.admission.core.resharding import AccountCounts, moves, resharded, scopes_after
from callwarden.call_admission.admission.core.state import AccountState, Changes, CounterRow, Loaded, ReadSet
from callwarden.call_admission.admission.core.transaction import AdmissionTransaction
from callwarden.call_admission.admission.ports import WriteConflict, Written
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import (
    CallRequest,
    Ended,
    ExtendRequest,
    Hold,
    HoldStage,
    Pricing,
    Quote,
    Route,
)
from callwarden.call_admission.model.policy import AdmissionPolicies, AdmissionPolicy
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import UnixS
from callwarden.kernel.tariff import Price, RateGroup, Window
from callwarden.kernel.verdict import Reason
from callwarden.policy.bundle import default_set

NOW_S = UnixS(1_767_653_900.0)  # 100 s before midnight in Berlin
PRICE = Price("EUR", (Window(0, (RateGroup(0, 60_000, 60, 1),)),))
POLICY: AdmissionPolicy = AdmissionPolicies(default_set()).for_realm("")
RETAIL = Pricing("retail", realm="example.org")
RESELLERS = Pricing("retail", "retail", "example.org", is_resellers=True)
CARRIERS = {"carrier": UUID(int=7), "other": UUID(int=8)}
"""By trunk, of the routes that calls have where both are tried."""
ROUTE = Route("carrier", "192.0.2.1:5060")
BOTH_ROUTES = tuple(Route(trunk, "192.0.2.1:5060", carrier_account_id=str(key)) for trunk, key in CARRIERS.items())


class ProcessDied(Exception):
    """A process died in the middle of a transaction."""


@dataclass
class Tables(MemoryAdmissionStore):
    """The tables, and the transactions of processes on them."""

    notices: list[Notice] = field(default_factory=list)
    dies: str = ""
    """"before" or "after": the process that writes next dies before or after the write."""

    async def write(self, changes: Changes) -> Written | WriteConflict:
        if self.dies == "before":
            raise ProcessDied
        written = await super().write(changes)
        if self.dies == "after":
            raise ProcessDied
        return written

    def process(self, cache: AccountCache | None = None) -> AdmissionAttempts:
        """A process that remembers what its last batches left behind."""
        return AdmissionAttempts(self, random.Random(1).random, cache)

    def transact(
        self,
        commands: Sequence[Command],
        unix_s: float,
        policy: AdmissionPolicy = POLICY,
        process: AdmissionAttempts | None = None,
        slot: int = 0,
    ) -> list[Outcome]:
        """Decides the commands in one batch; in a process that was just started, if none is given."""

        def work(loaded: Loaded) -> tuple[Changes, tuple[list[Outcome], Changes]]:
            transaction = AdmissionTransaction(loaded, lambda realm: policy, UnixS(unix_s), slot)
            if transaction.missing_counters(commands):
                return transaction.changes, ([], transaction.changes)
            outcomes = [transaction.apply(command) for command in commands]
            return transaction.changes, (outcomes, transaction.changes)

        update = (process or self.process()).update(ReadSet.of(commands, UnixS(unix_s)), work)
        outcomes, changes = asyncio.run(update)
        self.notices += changes.notices
        return outcomes

    @property
    def entries(self) -> dict[UUID, tuple[UUID, int]]:
        """Ledger entries about calls: whom it was charged to, and the amount (negative: a charge)."""
        charged = {
            hold_id: (record.account_id, -record.price_micros)
            for hold_id, record in self.records.items()
            if record.price_micros
        }
        return charged | self.corrections

    @property
    def running(self) -> list[Hold]:
        return [hold for hold in self.holds.values() if hold.stage is HoldStage.RUNNING]

    @property
    def recorded(self) -> list[str]:
        """Outcomes of the decisions that are stored by themselves."""
        return [decision.outcome for decision in self.decisions.values()]

    def usages_of(self, scope: UUID) -> list[Usage]:
        return [row.usage for (owner, _), row in self.counters.items() if owner == scope]

    def reshard(self, key: UUID, shards: int) -> None:
        """As adapters.shards_sql does it."""
        found = self.accounts[key]
        mine = [hold for hold in self.holds.values() if hold.account_id == key]
        rows = {shard: row.usage for (scope, shard), row in self.counters.items() if scope == key}
        counts = AccountCounts(found.balance_micros, found.held_micros, self.usages.get(key, Usage()), rows)
        before, after = max(found.shards, 1), max(shards, 1)
        expiries = [hold.expires_at_s for hold in mine if hold.stage is HoldStage.RUNNING]
        moved = resharded(counts, before, after, expiries)
        for shard in rows.keys() - moved.shards.keys():
            del self.counters[key, shard]
        if moves(before, after):
            if 0 in moved.shards:
                version = self.counters[key, 0].version if (key, 0) in self.counters else 0
                self.counters[key, 0] = CounterRow(version + 1, moved.shards[0])
            for hold in mine:
                self.holds[hold.id] = replace(hold, scopes=scopes_after(hold.scopes, after))
        self.usages[key] = moved.own
        self.accounts[key] = replace(
            found, balance_micros=moved.balance_micros, held_micros=moved.held_micros, shards=shards
        )
        self.versions[key] = self.versions.get(key, 0) + 1


@dataclass
class Watched(Tables):
    """Tables that keep what was asked of them."""

    written: list[Changes] = field(default_factory=list)

    async def write(self, changes: Changes) -> Written | WriteConflict:
        self.written.append(changes)
        return await super().write(changes)


def account(key: int = 1, **changes: object) -> Account:
    base = Account(
        id=UUID(int=key),
        realm="example.org",
        name=f"account-{key}",
        type=AccountType.ENDUSER,
        active=True,
        currency="EUR",
        time_zone="Europe/Berlin",
        prepaid=True,
        deck="retail",
        balance_micros=1_000_000,
        held_micros=0,
        overdraft_micros=0,
        max_lines=5,
        daily_micros=None,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def tables_of(*accounts: Account) -> Tables:
    return Tables({each.id: each for each in accounts or (account(),)})


def watched(*accounts: Account) -> Watched:
    return Watched({each.id: each for each in accounts or (account(),)})


def admission(
    hold: int,
    key: int = 1,
    *,
    at_s: float = NOW_S,
    price: Price = PRICE,
    pricing: Pricing = RETAIL,
    routes: tuple[Route, ...] = (ROUTE,),
) -> Admission:
    request = CallRequest(
        UUID(int=hold), f"call-{hold}", UUID(int=key), "493012345678", "030", "4930", "192.0.2.7", "edge", False, at_s
    )
    return Admission(request, Quote(pricing, "49", price, routes, at_s + 60))


def extension(hold: int, granted_s: int, answered_at_s: float = NOW_S, key: int = 1) -> Extension:
    return Extension(ExtendRequest(UUID(int=hold), f"call-{hold}", UUID(int=key), answered_at_s, granted_s))


def ended(hold: int, answered_at_s: float | None, ended_at_s: float, key: int = 1, trunk: str = "carrier") -> Ended:
    status = 487 if answered_at_s is None else 200
    return Ended(UUID(int=hold), UUID(int=key), answered_at_s, ended_at_s, "caller-bye", status, trunk)


def carrier(trunk: str, **limits: int) -> Account:
    key = CARRIERS[trunk]
    return account(key.int, name=trunk, type=AccountType.CARRIER, prepaid=False, balance_micros=0, **limits)


def admitted(outcome: Outcome) -> Hold:
    assert isinstance(outcome, Admitted)
    return outcome.hold


def reason(outcome: Outcome) -> Reason:
    assert isinstance(outcome, Refused)
    return outcome.refuse.reason


def applied(command: Command, loaded: Loaded, policy: AdmissionPolicy = POLICY) -> tuple[object, Changes]:
    """A command on what was read, as it stands before anything is written."""
    transaction = AdmissionTransaction(loaded, lambda realm: policy, NOW_S)
    return transaction.apply(command), transaction.changes


def read(*holds: Hold, of: Account | None = None) -> Loaded:
    of = of or account()
    return Loaded({of.id: AccountState.of(of)}, {hold.id: hold for hold in holds})


def held(**changes: object) -> Hold:
    hold = admitted(tables_of().transact([admission(1)], NOW_S)[0])
    return replace(hold, **changes)  # type: ignore[arg-type]
