"""What all accounts of a reseller may come to together: calls at the same time, spend of a day and month, credit."""

from callwarden.call_admission.admission.core.rules.counted_limit import (
    CALLS,
    MICROS,
    CountedLimit,
    counts,
    measure,
    nearest,
    needs_money,
    source_of,
    spends,
    spent_text,
)
from callwarden.call_admission.admission.core.rules.lines import is_peak
from callwarden.call_admission.admission.core.rules.monthly_spend import monthly
from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.days import end_of_day, end_of_month
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import RESELLER
from callwarden.call_admission.model.spans import day_spend
from callwarden.kernel.verdict import Mode, Reason


def _reseller(snapshot: Snapshot) -> tuple[CounterView, Account] | None:
    counted = snapshot.counted.get(RESELLER)
    if counted is None:
        return None
    assert counted.account is not None
    return counted, counted.account


class ResellerLinesRule(AdmissionRule):
    """CounterView from holds that haven't expired, over all of the reseller's accounts. None: no limit."""

    name = "reseller_lines"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        found = _reseller(snapshot)
        if found is None:
            return skipped(self.name, mode, "no reseller")
        measured = self._measure(*found, snapshot, policy)
        if measured is None:
            return skipped(self.name, mode, "no limit")
        text = f"All {measured.whole} lines of the account's reseller are in use."
        return counts(self.name, mode, Reason.RESELLER_QUOTA, measured, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        found = _reseller(snapshot)
        measured = None if found is None else self._measure(*found, snapshot, policy)
        return () if measured is None else (measured.use(),)

    def _measure(
        self, counted: CounterView, reseller: Account, snapshot: Snapshot, policy: AdmissionPolicy
    ) -> CountedLimit | None:
        limit = reseller.max_lines
        if reseller.max_lines_off_peak is not None and not is_peak(reseller, policy, snapshot.unix_s):
            limit = reseller.max_lines_off_peak
        if limit is None:
            return None
        return measure(counted, "calls", limit, snapshot.unix_s, "calls", CALLS, "now", source_of(reseller))


class ResellerSpendRule(AdmissionRule):
    """What its accounts' calls have cost and hold, in all: against its limits of a day and (postpaid) a month, and
    against its credit if it is prepaid. Days and months are those of the calling account."""

    name = "reseller_spend"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        found = _reseller(snapshot)
        if found is None:
            return skipped(self.name, mode, "no reseller")
        tallies = self._tallies(*found, snapshot, policy)
        if not tallies:
            return skipped(self.name, mode, "no limit")
        if why := needs_money(question):
            return skipped(self.name, mode, why)
        currency = found[1].currency
        return nearest(
            [
                spends(
                    self.name, mode, Reason.RESELLER_QUOTA, measured, question,
                    spent_text("The accounts of the reseller have", f"({measured.window})", currency),
                )
                for measured, _ in tallies
            ]
        )  # fmt: skip

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        found = _reseller(snapshot)
        if found is None:
            return ()
        return tuple(measured.use(resets_at_s) for measured, resets_at_s in self._tallies(*found, snapshot, policy))

    def _tallies(
        self, counted: CounterView, reseller: Account, snapshot: Snapshot, policy: AdmissionPolicy
    ) -> list[tuple[CountedLimit, float]]:
        """Each with the moment at which it restarts."""
        unix_s, day, zone = snapshot.unix_s, snapshot.day, snapshot.account.time_zone
        source = source_of(reseller)
        tallies: list[tuple[CountedLimit, float]] = []
        if reseller.daily_micros is not None and policy.daily_per_account:
            quantity, window = day_spend(day.toordinal()), f"day {day} {zone}"
            measured = measure(counted, quantity, reseller.daily_micros, unix_s, "spent", MICROS, window, source)
            tallies.append((measured, end_of_day(day, zone)))
        if reseller.prepaid:
            credit = reseller.balance_micros + reseller.overdraft_micros
            tallies.append((measure(counted, "credit", credit, unix_s, "credit", MICROS, "credit", source), 0.0))
        elif policy.check_postpaid and (of_month := monthly(reseller, counted, snapshot, source)) is not None:
            tallies.append((of_month, end_of_month(day, zone)))
        return tallies
