"""What is out of line with what an account usually does: country, hour, spend of a day."""

from typing import Final

from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    Question,
    RuleFinding,
    passed,
    refused,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import Snapshot
from callwarden.call_admission.model.days import hour_of
from callwarden.call_admission.model.habits import AccountBaseline
from callwarden.call_admission.model.number_plan import country_of
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.call_admission.model.spans import day_spend
from callwarden.call_admission.model.usage import Usage
from callwarden.kernel.money import format_amount
from callwarden.kernel.verdict import Mode, Reason

USUAL_PART: Final = 100
"""An hour of the day with its two neighbours that has less than one in so many of an account's calls is unusual."""


class BaselineRule(AdmissionRule):
    """Looks only at an account that has been learnt for policy's `learn`; what it does fades with policy's half-life.
    Out of line is a country that it hasn't called, an hour in which it hardly calls, and a spend of the day above
    policy's multiple of the usual one. Reported by default. Each shard of an account learns for itself."""

    name = "baseline"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        assert policy.baseline is not None  # idle
        if question.local:
            return skipped(self.name, mode, "local call")
        usage, day = snapshot.counted[ACCOUNT].usage, snapshot.day.toordinal()
        learnt = usage.baseline
        if learnt is None or day - learnt.since < policy.baseline.learn_days:
            return skipped(self.name, mode, "still learning")
        finding = (
            self._country(usage, question, mode)
            or self._hour(learnt, snapshot, question, mode)
            or self._spend(usage, learnt, snapshot, policy.baseline.spend_factor, mode)
        )
        if finding is None:
            return passed(self.name, mode)
        if mode is Mode.REPORT:
            assert finding.result.refused is not None
            finding.warnings = (finding.result.refused,)
        return finding

    def _country(self, usage: Usage, question: Question, mode: Mode) -> RuleFinding | None:
        country = country_of(question.destination)
        if not country or country in usage.countries:
            return None
        text = f"The account hasn't called {country} before."
        return refused(self.name, mode, Reason.BASELINE, text, counter="country", window=country)

    def _hour(self, learnt: AccountBaseline, snapshot: Snapshot, question: Question, mode: Mode) -> RuleFinding | None:
        hour = hour_of(question.answers[0], snapshot.account.time_zone)
        hours = learnt.hours
        here = hours[hour - 1] + hours[hour] + hours[(hour + 1) % 24]
        least = -(-sum(hours) // USUAL_PART)
        if here >= least:
            return None
        text = f"The account hardly calls around {hour:02}:00."
        return refused(
            self.name, mode, Reason.BASELINE, text, counter="hour", value=here, limit=least, window=f"{hour:02}:00"
        )

    def _spend(
        self, usage: Usage, learnt: AccountBaseline, snapshot: Snapshot, factor: int, mode: Mode
    ) -> RuleFinding | None:
        if not learnt.days:
            return None
        usual = learnt.spent_micros // learnt.days
        limit = usual * factor
        spent = usage.used(day_spend(snapshot.day.toordinal()), snapshot.unix_s)
        if not usual or spent <= limit:
            return None
        currency = snapshot.account.currency
        text = (
            f"The account has spent {format_amount(spent, currency)} today, "
            f"more than {factor} times its usual {format_amount(usual, currency)}."
        )
        return refused(
            self.name, mode, Reason.BASELINE, text,
            counter="spent", value=spent, limit=limit, window=f"day {snapshot.day} {snapshot.account.time_zone}",
        )  # fmt: skip

    def idle(self, policy: AdmissionPolicy) -> str:
        return "off by policy" if policy.baseline is None else ""
