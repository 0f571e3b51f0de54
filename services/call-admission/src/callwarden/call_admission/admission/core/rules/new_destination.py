"""Countries that an account hasn't called before."""

from callwarden.call_admission.admission.core.rules.counted_limit import CountedLimit, counts, part_of
from callwarden.call_admission.admission.core.rules.rule import (
    POLICY,
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    passed,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot
from callwarden.call_admission.model.number_plan import country_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.kernel.verdict import Mode, Reason


class NewDestinationRule(AdmissionRule):
    """So many countries in a day may be new to the account; those that it has called within policy's `remember`, and
    its own, aren't. Satellite and international networks count as one country for each code. The shards of an account
    each know the countries called by them, and have their part of the number, rounded up."""

    name = "new_destination"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        if question.local:
            return skipped(self.name, mode, "local call")
        country = country_of(question.destination)
        if not country:
            return skipped(self.name, mode, "no country")
        day, counted = snapshot.day.toordinal(), snapshot.counted[ACCOUNT]
        known = counted.usage.countries.get(country)
        if country == snapshot.account.country or (known is not None and known.last >= day - policy.remember_days):
            return passed(self.name, mode)
        assert policy.new_countries_max is not None  # idle
        measured = _measure(counted, snapshot, policy.new_countries_max)
        text = f"{country} is new to the account, which may call {measured.whole} new countries in a day."
        return counts(self.name, mode, Reason.NEW_DESTINATION, measured, text)

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        if policy.new_countries_max is None:
            return ()
        return (_measure(snapshot.counted[ACCOUNT], snapshot, policy.new_countries_max).use(),)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "off by policy" if policy.new_countries_max is None else ""


def _measure(counted: CounterView, snapshot: Snapshot, countries_max: int) -> CountedLimit:
    day = snapshot.day.toordinal()
    limit = part_of(counted, countries_max)
    used = sum(1 for country in counted.usage.countries.values() if country.first == day)
    window = f"day {snapshot.day} {snapshot.account.time_zone}"
    return CountedLimit("countries", "calls", used, limit, limit - used, window, POLICY, limit)
