"""Accounts as tests speak of them, and a desk on a real database."""

import uuid
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from callwarden.call_admission.accounts.adapters.accounts_sql import SqlAccounts
from callwarden.call_admission.accounts.app.account_service import AccountDesk
from callwarden.call_admission.accounts.core.accounts import (
    AccountChange,
    NewAccount,
    Trunk,
    check_account,
    check_change,
    check_trunk,
)
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.records.adapters.records_sql import SqlRecords
from callwarden.common.sql import Database
from callwarden.kernel.clock import Clock
from callwarden.policy.model import PolicySpec

ALICE: dict[str, Any] = {
    "realm": "example.org", "name": "alice", "type_": "enduser", "status": "", "currency": "EUR",
    "time_zone": "Europe/Berlin", "prepaid": True, "deck": "retail", "max_lines": 5, "daily_micros": None,
    "numbers": ("+49 30 1234",),
}  # fmt: skip
BERLIN: dict[str, Any] = {
    "name": "berlin", "address": "192.0.2.10:5060", "direction": "carrier", "account": "carrier-account",
    "tech_prefix": "", "strip_digits": 0, "add_prefix": "", "enabled": True,
}  # fmt: skip


def account(**changes: Any) -> NewAccount:
    return check_account(**(ALICE | changes))


def trunk(**changes: Any) -> Trunk:
    return check_trunk(**(BERLIN | changes))


def change(**changes: Any) -> AccountChange:
    nothing: dict[str, Any] = dict.fromkeys(("status", "deck", "max_lines", "daily_micros"))
    return check_change(**(nothing | {"clear": (), "add_numbers": (), "remove_numbers": ()} | changes))


class Heard:
    """Implements ports.News by a list."""

    def __init__(self) -> None:
        self.news: list[tuple[UUID, str]] = []

    def account_changed(self, account_id: UUID, what: str, realm: str) -> None:
        self.news.append((account_id, what))


@dataclass
class Limits:
    """Implements ports.PolicySource by one policy for all realms."""

    system: int | None = None
    realm: int | None = None
    revision: int = 0

    def for_realm(self, realm: str) -> AdmissionPolicy:
        policy = AdmissionPolicy.of(PolicySpec(), 0)
        return replace(policy, accounts_max=self.system, realm_accounts_max=self.realm)


def desk_on(database: Database, clock: Clock, heard: Heard | None = None, limits: Limits | None = None) -> AccountDesk:
    return AccountDesk(
        SqlAccounts(database), SqlRecords(database), heard or Heard(), limits or Limits(), clock, uuid.uuid4
    )
