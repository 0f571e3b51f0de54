"""Which counters a call touches: those of its account, its reseller, its realm, the system, its source address and the
carriers it may use. Out: what is counted in each (model.usage), how shards lend each other room (sharing).

A call ends in the counters in which it began, whatever policy says by then: its hold names them.
"""

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from callwarden.call_admission.admission.core.commands import Admission, Command, DecisionRecord, Extension
from callwarden.call_admission.admission.core.state import CounterKey, Loaded
from callwarden.call_admission.model.account import Account, shards_of
from callwarden.call_admission.model.calls import Hold, LimitScope, Quote, RouteCost
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import (
    ACCOUNT,
    ADDRESS,
    CARRIER,
    REALM,
    RESELLER,
    SYSTEM,
    address_scope,
    scope_of,
)
from callwarden.kernel.account import AccountType

# Rows over which the calls of one realm, or of the whole system, are spread: so many processes don't collide there.
WIDE_SHARDS: Final = 8


class Counting:
    """Names the counters of calls. One for each attempt at a transaction.

    `slot`: the shard of a sharded scope in which this process counts new calls (modulo the number of shards).
    `is_whole`: all shards of a scope are read together, for queries; nothing may be written then.
    """

    __slots__ = ("_is_whole", "_limited_carriers", "_loaded", "_policy_for", "_referenced", "_slot")

    def __init__(
        self, loaded: Loaded, policy_for: Callable[[str], AdmissionPolicy], slot: int = 0, *, is_whole: bool = False
    ) -> None:
        self._loaded = loaded
        self._referenced = loaded.referenced
        self._policy_for = policy_for
        self._slot = slot
        self._is_whole = is_whole
        self._limited_carriers = {
            key
            for key, referenced in loaded.referenced.items()
            if referenced.account.talk_day_s is not None or referenced.account.talk_month_s is not None
        }

    @property
    def is_whole(self) -> bool:
        return self._is_whole

    def add_missing(self, commands: Sequence[Command], missing: set[CounterKey]) -> None:
        """Adds the counters that have to be read before the commands can be applied."""
        loaded = self._loaded
        for command in commands:
            match command:
                case Admission():
                    state = loaded.accounts.get(command.request.account_id)
                    if state is None or command.request.hold_id in loaded.holds:
                        continue
                    account = state.account
                    scopes: Sequence[LimitScope] = self.of_new(account, command, self._policy_for(account.realm))
                    if self._is_whole:
                        missing.update(key for scope in scopes for key in self._rows_of(account, scope))
                case DecisionRecord():
                    continue
                case _:
                    hold_id = command.request.hold_id if isinstance(command, Extension) else command.hold_id
                    hold = loaded.holds.get(hold_id)
                    if hold is None or (state := loaded.accounts.get(hold.account_id)) is None:
                        continue
                    scopes = self.of_running(state.account, hold)
            for _, scope_id, shard in scopes:
                if (scope_id, shard) not in loaded.counters:
                    missing.add((scope_id, shard))

    def _rows_of(self, account: Account, scope: LimitScope) -> list[CounterKey]:
        """All rows of a scope that haven't been read."""
        keys = [(scope.scope, shard) for shard in range(self.shards_of(account, scope))]
        return [key for key in keys if key not in self._loaded.counters]

    def of_new(self, account: Account, command: Admission, policy: AdmissionPolicy) -> tuple[LimitScope, ...]:
        """Where a new call is counted in addition to its account's own row. For nearly all calls: nowhere."""
        quote = command.quote
        carriers = quote.carriers if isinstance(quote, Quote) else ()
        limited = self._limited_carriers
        scopes: list[LimitScope] = []
        if self._is_whole:  # A reseller's or a carrier's own limits are queried: they are counted in rows of their own.
            if account.type is AccountType.RESELLER:
                scopes.append(LimitScope(RESELLER, account.id, 0))
            elif account.type is AccountType.CARRIER:
                scopes.append(LimitScope(CARRIER, scope_of(CARRIER, str(account.id)), 0))
        count = shards_of(account)
        if count > 1:
            scopes.append(LimitScope(ACCOUNT, account.id, self._slot % count))
        if account.parent is not None and (reseller := self._referenced.get(account.parent)) is not None:
            scopes.append(LimitScope(RESELLER, account.parent, self._slot % max(reseller.account.shards, 1)))
        if policy.owners:
            if REALM in policy.owners:
                scopes.append(LimitScope(REALM, scope_of(REALM, account.realm), self._slot % WIDE_SHARDS))
            if SYSTEM in policy.owners:
                scopes.append(LimitScope(SYSTEM, scope_of(SYSTEM, ""), self._slot % WIDE_SHARDS))
            address, only = command.request.source_address, policy.address.account
            if ADDRESS in policy.owners and address and only in (None, account.name):
                scopes.append(LimitScope(ADDRESS, address_scope(account.realm, address), 0))
        scopes += [LimitScope(CARRIER, scope_of(CARRIER, str(each)), 0) for each in carriers if each in limited]
        return tuple(scopes)

    def of_running(self, account: Account, hold: Hold) -> list[LimitScope]:
        """Where a running call is counted: for every carrier that may have taken it, and once the carrier is known for
        that one only."""
        scopes = list(hold.scopes)
        # A call that began before its account was sharded is counted in the first shard.
        if shards_of(account) > 1 and not any(scope.kind == ACCOUNT for scope in scopes):
            scopes.append(LimitScope(ACCOUNT, account.id, 0))
        return scopes

    def shards_of(self, account: Account, scope: LimitScope) -> int:
        """Over how many rows a scope's calls are spread."""
        match scope.kind:
            case "account":
                return shards_of(account)
            case "reseller":
                reseller = self._referenced.get(scope.scope)
                return max(reseller.account.shards, 1) if reseller is not None else 1
            case "realm" | "system":
                return WIDE_SHARDS
        return 1


def without_carriers(scopes: tuple[LimitScope, ...], costs: tuple[RouteCost, ...]) -> tuple[LimitScope, ...]:
    """The scopes without the carriers of routes that the rules have excluded; `costs`: of the routes that are left."""
    left = {carrier_scope(cost) for cost in costs}
    return tuple(scope for scope in scopes if scope.kind != CARRIER or scope.scope in left)


def carrier_scope(cost: RouteCost | None) -> UUID | None:
    """The scope in which the carrier's calls are counted; None: the carrier isn't known."""
    carrier = None if cost is None else cost.carrier_account_id
    return None if carrier is None else scope_of(CARRIER, str(carrier))
