"""Calls at the same time."""

from callwarden.call_admission.admission.core.rules.counted_limit import CALLS, CountedLimit, counts, measure
from callwarden.call_admission.admission.core.rules.rule import ACCOUNT as OWN
from callwarden.call_admission.admission.core.rules.rule import POLICY, AdmissionRule, LimitUsage, Question, RuleFinding
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.days import is_within
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.kernel.clock import UnixS
from callwarden.kernel.verdict import Mode, Reason


class LinesRule(AdmissionRule):
    """Counted from holds that haven't expired; the account's own limit goes before policy's. Outside policy's peak
    hours (in policy's zone, or the account's) each has another: where none is named, that of peak hours."""

    name = "lines"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        measured = _measure(snapshot, policy)
        limit = measured.whole
        text = f"All {limit} lines of the account are in use."
        if not limit:
            text = "The account has no lines."
        return counts(self.name, mode, Reason.LINES, measured, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        return (_measure(snapshot, policy).use(),)


def _measure(snapshot: Snapshot, policy: AdmissionPolicy) -> CountedLimit:
    account = snapshot.account
    limit, source, window = account.max_lines, OWN, "now"
    if not is_peak(account, policy, snapshot.unix_s):
        window = "now (off-peak)"
        if account.max_lines_off_peak is not None:
            limit = account.max_lines_off_peak
        elif limit is None:
            limit, source = policy.lines_max_off_peak, POLICY
    if limit is None:
        limit, source = policy.lines_max, POLICY
    counted = snapshot.counted[ACCOUNT]
    if counted.is_sharded:
        return measure(counted, "calls", limit, snapshot.unix_s, "calls", CALLS, window, source)
    lines = snapshot.lines
    return CountedLimit("calls", CALLS, lines, limit, limit - lines, window, source, limit)


def is_peak(account: Account, policy: AdmissionPolicy, unix_s: UnixS) -> bool:
    """Whether it is peak hours for the account; always, where policy names none."""
    if not policy.peak_hours:
        return True
    return is_within(policy.peak_hours, unix_s, policy.peak_zone or account.time_zone)
