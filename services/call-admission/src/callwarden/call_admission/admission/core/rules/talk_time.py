"""Talk time by day and month: of the account that calls, and of the carriers that would take the call."""

from callwarden.call_admission.admission.core.rules.counted_limit import SECONDS, CountedLimit, counts, measure, nearest
from callwarden.call_admission.admission.core.rules.rule import ACCOUNT as OWN
from callwarden.call_admission.admission.core.rules.rule import (
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    passed,
    skipped,
)
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import Quote
from callwarden.call_admission.model.days import end_of_day, end_of_month
from callwarden.call_admission.model.policy import AdmissionPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.call_admission.model.spans import day_talk, month_talk
from callwarden.kernel.verdict import Mode, Reason, RuleResult


def _tallies(account: Account, counted: CounterView, snapshot: Snapshot, source: str) -> list[CountedLimit]:
    """By day, by month: those that the account limits. Days and months are those of the account that calls."""
    day, zone, unix_s = snapshot.day, snapshot.account.time_zone, snapshot.unix_s
    tallies = []
    if account.talk_day_s is not None:
        window = f"day {day} {zone}"
        quantity = day_talk(day.toordinal())
        tallies.append(measure(counted, quantity, account.talk_day_s, unix_s, "talk", SECONDS, window, source))
    if account.talk_month_s is not None:
        window = f"month {day.year}-{day.month:02} {zone}"
        quantity = month_talk(day.year * 12 + day.month - 1)
        tallies.append(measure(counted, quantity, account.talk_month_s, unix_s, "talk", SECONDS, window, source))
    return tallies


def _uses(tallies: list[CountedLimit], snapshot: Snapshot) -> tuple[LimitUsage, ...]:
    day, zone = snapshot.day, snapshot.account.time_zone
    return tuple(
        measured.use(end_of_day(day, zone) if measured.window.startswith("day") else end_of_month(day, zone))
        for measured in tallies
    )


class TalkTimeRule(AdmissionRule):
    """Talk of the account's calls that began in the day or month, with what is granted to running ones. A running call
    isn't cut; the next is refused."""

    name = "talk_time"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        findings = [
            counts(
                self.name, mode, Reason.TALK_TIME, measured,
                f"The account has used the {measured.whole} s of talk that it has in {measured.window}.",
            )
            for measured in _tallies(snapshot.account, snapshot.counted[ACCOUNT], snapshot, OWN)
        ]  # fmt: skip
        return nearest(findings) if findings else skipped(self.name, mode, "no limit")

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        if not policy.talk_time:
            return ()
        return _uses(_tallies(snapshot.account, snapshot.counted[ACCOUNT], snapshot, OWN), snapshot)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.talk_time else "off by policy"


class CarrierTalkTimeRule(AdmissionRule):
    """Talk of the calls that a carrier has taken, by when they began, and what is granted to those that run; one that
    isn't answered yet counts for each carrier that it may go by. A carrier over its limit isn't routed to; the call is
    refused where no other is left. No running call is cut."""

    name = "carrier_talk_time"

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        quote = snapshot.quote
        if not snapshot.carriers:
            return skipped(self.name, mode, "no limit")
        assert isinstance(quote, Quote)  # whose carriers they are
        over: RuleFinding | None = None
        left = []
        for route in quote.routes:
            counted = snapshot.carriers.get(route.carrier_account_id)
            finding = self._of(counted, snapshot, mode) if counted is not None else None
            if finding is None or finding.result.refused is None:
                left.append(route)
            else:
                over = over or finding
        if over is None:
            return passed(self.name, mode)
        if not left:
            return over
        result = over.result
        shown = RuleResult(self.name, mode, None, result.counter, result.value, result.limit, result.window)
        return RuleFinding(shown, routes=tuple(left))

    def _of(self, counted: CounterView, snapshot: Snapshot, mode: Mode) -> RuleFinding:
        carrier = counted.account
        assert carrier is not None
        findings = [
            counts(
                self.name, mode, Reason.TALK_TIME, measured,
                f"Carrier {carrier.name} has used the {measured.whole} s of talk that it has in {measured.window}.",
            )
            for measured in _tallies(carrier, counted, snapshot, f"carrier {carrier.name}")
        ]  # fmt: skip
        return nearest(findings)  # of carriers only those with a limit are counted

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        if not policy.talk_time:
            return ()
        uses: tuple[LimitUsage, ...] = ()
        for counted in snapshot.carriers.values():
            carrier = counted.account
            assert carrier is not None
            uses += _uses(_tallies(carrier, counted, snapshot, f"carrier {carrier.name}"), snapshot)
        return uses

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.talk_time else "off by policy"
