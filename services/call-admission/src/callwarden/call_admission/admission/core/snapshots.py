"""Builds what one decision looks at (snapshot.Snapshot) out of what the transaction has read and moved on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from uuid import UUID

from callwarden.call_admission.admission.core.commands import Admission
from callwarden.call_admission.admission.core.counting import Counting
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot, SourceTrunk
from callwarden.call_admission.admission.core.state import AccountState, Loaded
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Hold, LimitScope, Pricing, Quote, pricing_of
from callwarden.call_admission.model.days import day_of
from callwarden.call_admission.model.lists import Listing, Lists
from callwarden.call_admission.model.scopes import ACCOUNT, CARRIER, RESELLER, scope_of
from callwarden.call_admission.model.usage_shards import merged
from callwarden.kernel.clock import UnixS
from callwarden.limits.shards import Shard


class SnapshotBuilder:
    """One for each attempt at a transaction. `unix_s`: Unix time."""

    __slots__ = ("_counters", "_counting", "_holds", "_lists", "_referenced", "_trunk_of", "_unix_s")

    def __init__(
        self,
        loaded: Loaded,
        counting: Counting,
        unix_s: UnixS,
        lists: Lists | None = None,
        trunk_of: Callable[[str], SourceTrunk | None] | None = None,
    ) -> None:
        self._holds = loaded.holds
        self._referenced = loaded.referenced
        self._counters = loaded.counters
        self._counting = counting
        self._unix_s = unix_s
        self._lists = lists
        self._trunk_of = trunk_of

    def pricing_of(self, account: Account) -> Pricing:
        """The pricing that the account's calls have to be quoted by."""
        if account.parent is None:
            return pricing_of(account.deck, None, account.realm)
        reseller = self._referenced.get(account.parent)
        return pricing_of(account.deck, "" if reseller is None else reseller.account.deck, account.realm)

    def of_new(self, state: AccountState, command: Admission, scopes: Sequence[LimitScope]) -> Snapshot:
        """For a new call, which is counted in these scopes."""
        request, account = command.request, state.account
        snapshot = self._build(state, scopes, day_of(request.start_s, account.time_zone))
        snapshot.quote = None if request.local else command.quote
        if self._lists is not None:
            snapshot.listing = Listing(self._lists, request.caller_number)
        if request.trunk and self._trunk_of is not None:
            # A trunk that isn't known (just created, or its event was lost) may do only what every trunk may.
            snapshot.trunk = self._trunk_of(request.trunk) or SourceTrunk(request.trunk, only_local=True)
        if isinstance(command.quote, Quote):
            snapshot.carriers = self.carriers(command.quote.carriers, scopes)
        return snapshot

    def of_running(self, state: AccountState, hold: Hold) -> Snapshot:
        """For a running call. `hold` is the call as if nothing had been granted to it; what it really holds is left
        out of the snapshot."""
        scopes = self._counting.of_running(state.account, hold)
        snapshot = self._build(state, scopes, hold.spend_day)
        if not any(scope.kind == ACCOUNT for scope in scopes):
            snapshot.held_micros -= self._holds[hold.id].held_micros
        return snapshot

    def carriers(self, carriers: Iterable[UUID], scopes: Sequence[LimitScope]) -> Mapping[str, CounterView]:
        """The counters of those carriers that are among the scopes, by their account id."""
        limited = {scope.scope for scope in scopes if scope.kind == CARRIER}
        return {
            str(carrier): CounterView(
                CARRIER, carrier, self._counters[scope, 0].usage, None, self._referenced[carrier].account
            )
            for carrier in carriers
            if (scope := scope_of(CARRIER, str(carrier))) in limited
        }  # fmt: skip

    def _build(self, state: AccountState, scopes: Sequence[LimitScope], day: date) -> Snapshot:
        account = state.account
        counted = self._views(state, scopes)
        own = counted[ACCOUNT]
        span = own.usage.day(day.toordinal())
        held_micros, lines = state.held_micros, state.lines
        if own.usage is not state.usage:
            # The charges of a sharded account stay in its shards: what they hold and have spent uses up the balance.
            held_micros = own.usage.used("credit", self._unix_s)
            lines = own.usage.used("calls", self._unix_s)
        return Snapshot(
            account=account,
            balance_micros=state.balance_micros,
            held_micros=held_micros,
            lines=lines,
            day=day,
            spent_micros=span.spent_micros,
            held_day_micros=span.held_micros,
            quote=None,
            unix_s=self._unix_s,
            counted=counted,
        )

    def _views(self, state: AccountState, scopes: Sequence[LimitScope]) -> Mapping[str, CounterView]:
        account = state.account
        own = state.view
        if own is None:
            own = state.view = {ACCOUNT: CounterView(ACCOUNT, account.id, state.usage, None, account)}
        if not scopes:
            return own
        views = dict(own)
        for scope in scopes:
            kind, scope_id, index = scope
            if kind == CARRIER:
                continue
            reseller = self._referenced.get(scope_id) if kind == RESELLER else None
            if kind == RESELLER and reseller is None:
                continue  # The account has left this reseller.
            count = self._counting.shards_of(account, scope)
            of = account if kind == ACCOUNT else reseller.account if reseller is not None else None
            if self._counting.is_whole:
                usages = [self._counters[scope_id, shard].usage for shard in range(count)]
                views[kind] = CounterView(kind, scope_id, merged(usages), None, of)
                continue
            counter = self._counters[scope_id, index]
            shard = Shard(count, index, counter.grants) if count > 1 else None
            views[kind] = CounterView(kind, scope_id, counter.usage, shard, of)
        return views
