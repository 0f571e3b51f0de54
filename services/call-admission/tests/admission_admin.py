"""Accounts as tests speak of them, and their administration on a real database."""

import random
import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from callwarden.call_admission.accounts.adapters.accounts_sql import SqlAccounts
from callwarden.call_admission.accounts.adapters.calls_sql import SqlCallHistory
from callwarden.call_admission.accounts.adapters.trunks_sql import SqlTrunks
from callwarden.call_admission.accounts.app.account_service import AccountService
from callwarden.call_admission.accounts.app.record_service import RecordService
from callwarden.call_admission.accounts.app.trunk_service import TrunkService
from callwarden.call_admission.accounts.core.accounts import AccountChange, check_account, check_change
from callwarden.call_admission.accounts.core.trunks import check_trunk
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.records.adapters.charges_sql import SqlCharges
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.call_admission.records.app.charge_check import ChargeCheck
from callwarden.call_admission.records.core.charges import OpenHold
from callwarden.common.sql import Database
from callwarden.kernel.account import NewAccount
from callwarden.kernel.clock import Clock
from callwarden.kernel.errors import Unavailable
from callwarden.kernel.trunk import Trunk
from callwarden.policy.model import PolicySpec

ALICE: dict[str, Any] = {
    "realm": "example.org", "name": "alice", "type": "enduser", "status": "", "currency": "EUR",
    "time_zone": "Europe/Berlin", "prepaid": True, "deck": "retail", "max_lines": 5, "daily_micros": None,
    "numbers": ("+49 30 1234",),
}  # fmt: skip
BERLIN: dict[str, Any] = {
    "name": "berlin", "address": "192.0.2.10:5060", "direction": "carrier", "account": "carrier-account",
    "tech_prefix": "", "strip_digits": 0, "add_prefix": "", "enabled": True,
}  # fmt: skip


def account(**changes: Any) -> NewAccount:
    return check_account(ALICE | changes)


def trunk(**changes: Any) -> Trunk:
    return check_trunk(BERLIN | changes)


def change(**changes: Any) -> AccountChange:
    """`add_…` and `remove_…` say what several values get and lose."""
    several = {
        verb: {
            name.removeprefix(f"{verb}_"): changes.pop(name) for name in list(changes) if name.startswith(f"{verb}_")
        }
        for verb in ("add", "remove")
    }
    return check_change(changes, clear=changes.pop("clear", ()), **several)


class Heard:
    """Implements ports.AccountEvents by a list."""

    def __init__(self) -> None:
        self.news: list[tuple[UUID, str]] = []
        self.numbers: list[tuple[str, ...]] = []

    def account_changed(self, account_id: UUID, what: str, realm: str, numbers: Sequence[str] = ()) -> None:
        self.news.append((account_id, what))
        if what == "numbers":
            self.numbers.append(tuple(numbers))


@dataclass
class Limits:
    """Implements ports.PolicySource by one policy for all realms."""

    system: int | None = None
    realm: int | None = None
    revision: int = 0

    def for_realm(self, realm: str) -> AdmissionPolicy:
        policy = AdmissionPolicy.of(PolicySpec(), 0)
        return replace(policy, accounts_max=self.system, realm_accounts_max=self.realm)


@dataclass
class Administration:
    """The use cases of accounts, trunks and records on one database."""

    accounts: AccountService
    trunks: TrunkService
    records: RecordService


def administration_on(
    database: Database, clock: Clock, heard: Heard | None = None, limits: Limits | None = None
) -> Administration:
    accounts, events = SqlAccounts(database), heard or Heard()
    return Administration(
        AccountService(accounts, events, limits or Limits(), clock, uuid.uuid4),
        TrunkService(SqlTrunks(database), accounts, events, clock),
        RecordService(
            accounts, SqlCallHistory(database), SqlRecords(database), clock, charge_check_on(database, clock)
        ),
    )


class EdgeCallList:
    """Implements ports.CallsOfEdges by a set of calls that no edge knows; None: the edges can't be asked."""

    def __init__(self) -> None:
        self.missing: Set[UUID] | None = frozenset()

    async def unknown(self, holds: Sequence[OpenHold]) -> Set[UUID]:
        if self.missing is None:
            raise Unavailable("NATS is not available")
        return self.missing & {hold.hold_id for hold in holds}


def charge_check_on(
    database: Database, clock: Clock, edges: EdgeCallList | None = None, *, kept_days: int = 400
) -> ChargeCheck:
    edges = edges or EdgeCallList()
    return ChargeCheck(
        SqlCharges(database), edges, clock, random.random, kept_days=kept_days, every_s=3_600, span_s=86_400
    )
