"""What a call would get, and what is used of an account's limits: decided like a real call, with nothing written.

All shards of a scope are looked at together (Counting.is_whole): the answer is about the account, not this process.
"""

from collections.abc import Callable

from callwarden.call_admission.admission.core.commands import Admission, NeedsQuote
from callwarden.call_admission.admission.core.counting import Counting
from callwarden.call_admission.admission.core.decide import Evaluation, decide
from callwarden.call_admission.admission.core.snapshot import Snapshot, SourceTrunk
from callwarden.call_admission.admission.core.snapshots import SnapshotBuilder
from callwarden.call_admission.admission.core.state import Changes, Loaded
from callwarden.call_admission.model.lists import Lists
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.kernel.account import AccountType
from callwarden.kernel.clock import UnixS


class AdmissionQuery:
    """One question about one account. `unix_s`: Unix time."""

    def __init__(
        self,
        loaded: Loaded,
        policy_for: Callable[[str], AdmissionPolicy],
        unix_s: UnixS,
        lists: Lists | None = None,
        trunk_of: Callable[[str], SourceTrunk | None] | None = None,
    ) -> None:
        self._accounts = loaded.accounts
        self._policy_for = policy_for
        self._counting = Counting(loaded, policy_for, is_whole=True)
        self._snapshots = SnapshotBuilder(loaded, self._counting, unix_s, lists, trunk_of)
        self.changes = Changes()
        """Only names counters that have to be read; nothing else of it is ever filled."""

    def missing_counters(self, command: Admission) -> bool:
        """Whether counters have to be read first; `changes.missing_counters` then names them."""
        missing = self.changes.missing_counters
        self._counting.add_missing([command], missing)
        return bool(missing)

    def simulate(self, command: Admission) -> tuple[Evaluation, Snapshot] | NeedsQuote | None:
        """What the call would get, and what that is based on. None: there is no such account."""
        state = self._accounts.get(command.request.account_id)
        if state is None:
            return None
        account, request, quote = state.account, command.request, command.quote
        if not request.local:
            pricing = self._snapshots.pricing_of(account)
            if quote is None or quote.pricing != pricing:
                return NeedsQuote(pricing)
        policy = self._policy_for(account.realm)
        scopes = self._counting.of_new(account, command, policy)
        snapshot = self._snapshots.of_new(state, command, scopes)
        return decide(snapshot, request, policy), snapshot

    def snapshot_of(self, command: Admission) -> Snapshot | None:
        """What the account's next call would be decided on, without its price; for a reseller or a carrier, what its
        limits are measured by. The account itself must be among the referenced ones. None: there is no such account."""
        state = self._accounts.get(command.request.account_id)
        if state is None:
            return None
        account = state.account
        scopes = self._counting.of_new(account, command, self._policy_for(account.realm))
        snapshot = self._snapshots.of_new(state, command, scopes)
        if account.type is AccountType.CARRIER:
            snapshot.carriers = self._snapshots.carriers([account.id], scopes)
        return snapshot
