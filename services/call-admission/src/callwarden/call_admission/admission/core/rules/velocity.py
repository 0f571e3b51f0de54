"""How quickly an account calls groups of destinations: a rule of policy for each group."""

from callwarden.call_admission.admission.core.rules.counted_limit import (
    CALLS,
    MICROS,
    SECONDS,
    CountedLimit,
    counts,
    nearest,
    part_of,
    spends,
)
from callwarden.call_admission.admission.core.rules.rule import (
    POLICY,
    AdmissionRule,
    LimitUsage,
    Question,
    RuleFinding,
    passed,
    skipped,
)
from callwarden.call_admission.admission.core.slices import cost_max
from callwarden.call_admission.admission.core.snapshot import CounterView, Snapshot
from callwarden.call_admission.model.account import Account
from callwarden.call_admission.model.calls import CallRequest
from callwarden.call_admission.model.days import is_within
from callwarden.call_admission.model.habits import VelocityCounts, in_sequence
from callwarden.call_admission.model.policy import AdmissionPolicy, VelocityLimits, VelocityPolicy
from callwarden.call_admission.model.scopes import ACCOUNT
from callwarden.kernel.clock import UnixS
from callwarden.kernel.money import format_amount
from callwarden.kernel.verdict import Mode, Reason, Refuse, RuleResult

RETRY_AFTER_S = 1


def marks(request: CallRequest, policy: AdmissionPolicy, account: Account, unix_s: UnixS) -> tuple[str, ...]:
    """The names of the rules that the call is counted under."""
    if request.local:
        return ()
    return _covering(request.destination, policy, account, unix_s)


def _covering(destination: str, policy: AdmissionPolicy, account: Account, unix_s: UnixS) -> tuple[str, ...]:
    return tuple(
        rule.name
        for rule in policy.velocity
        if rule.covers(destination) and is_within(rule.hours, unix_s, account.time_zone)
    )


class VelocityRules(AdmissionRule):
    """A new call is counted with those before it: above a critical level it is refused, above a warning level it may go
    on and a notice is published. For a running call only its group's spend is checked again; the longest talk time of a
    call is fixed when it is admitted. Local calls aren't counted.

    Shards of an account lend each other none of this: each has its part of every level, rounded up.
    """

    name = "velocity"
    extends = True

    def find(self, snapshot: Snapshot, question: Question, policy: AdmissionPolicy, mode: Mode) -> RuleFinding:
        if question.local:
            return skipped(self.name, mode, "local call")
        names = question.marks
        if names is None:
            names = _covering(question.destination, policy, snapshot.account, snapshot.unix_s)
        findings: list[RuleFinding] = []
        for rule in policy.velocity:
            if rule.name in names:
                findings += self._by(rule, snapshot.counted[ACCOUNT], snapshot, question, mode)
        if not findings:
            return skipped(self.name, mode, "no rule for it") if not names else passed(self.name, mode)
        return nearest(findings)

    def _by(
        self, rule: VelocityPolicy, counted: CounterView, snapshot: Snapshot, question: Question, mode: Mode
    ) -> list[RuleFinding]:
        findings = []
        for counter, used, warning, critical, window in _levels(rule, counted, snapshot, question):
            if critical is not None:
                measured = CountedLimit(counter, CALLS, used, critical, critical - used, window, POLICY, critical)
                text = f"Velocity rule {rule.name} allows {critical} {_NAMES[counter]} ({window})."
                retry_after_s = RETRY_AFTER_S if counter == "per_second" else 0
                finding = counts(self.name, mode, Reason.VELOCITY, measured, text, retry_after_s=retry_after_s)
            else:
                finding = RuleFinding(RuleResult(self.name, mode, None, counter, used, None, window))
            if warning is not None and used >= warning:
                told = (_warning(counter, used, warning, window, rule.name),)
                finding = RuleFinding(finding.result, warnings=told)  # another: what counts() finds is shared
            findings.append(finding)
        findings += self._of_spend(rule, counted, snapshot, question, mode)
        longest_s = rule.critical.duration_s
        if longest_s is not None and question.marks is None:
            findings.append(
                RuleFinding(RuleResult(self.name, mode, None, "duration", 0, longest_s, "call"), talk_s_max=longest_s)
            )
        warned_s = rule.warning.duration_s
        if warned_s is not None and question.marks is not None and question.least_s > warned_s:
            window = f"{rule.name} call"
            finding = RuleFinding(RuleResult(self.name, mode, None, "duration", question.least_s - 1, None, "call"))
            finding.warnings = (_warning("duration", question.least_s - 1, warned_s, window, rule.name),)
            findings.append(finding)
        return findings

    def _of_spend(
        self, rule: VelocityPolicy, counted: CounterView, snapshot: Snapshot, question: Question, mode: Mode
    ) -> list[RuleFinding]:
        price = question.price
        if price is None or question.is_free:
            return []
        warning, critical = _part(counted, rule.warning.spend_micros), _part(counted, rule.critical.spend_micros)
        if warning is None and critical is None:
            return []
        used, window = _spent(rule, counted, snapshot.unix_s), f"{rule.name} {rule.period_ms // 1_000} s"
        currency = snapshot.account.currency
        if critical is None:
            finding = RuleFinding(RuleResult(self.name, mode, None, "spend", used, None, window))
        else:
            measured = CountedLimit("spend", MICROS, used, critical, critical - used, window, POLICY, critical)

            def text(measured: CountedLimit) -> str:
                limit = format_amount(measured.limit, currency)
                return f"Velocity rule {rule.name} allows a spend of {limit} ({window})."

            finding = spends(self.name, mode, Reason.VELOCITY, measured, question, text)
        if warning is not None and used + cost_max(price, question.answers, question.least_s) > warning:
            finding.warnings = (_warning("spend", used, warning, window, rule.name),)
        return [finding]

    def uses(self, snapshot: Snapshot, policy: AdmissionPolicy) -> tuple[LimitUsage, ...]:
        counted = snapshot.counted[ACCOUNT]
        uses = []
        for rule in policy.velocity:
            for counter, used, _, critical, window in _levels(rule, counted, snapshot, None):
                if critical is not None:
                    uses.append(LimitUsage(counter, CALLS, used, critical, window))
            critical = _part(counted, rule.critical.spend_micros)
            if critical is not None:
                window = f"{rule.name} {rule.period_ms // 1_000} s"
                uses.append(LimitUsage("spend", MICROS, _spent(rule, counted, snapshot.unix_s), critical, window))
            if rule.critical.duration_s is not None:
                uses.append(LimitUsage("duration", SECONDS, 0, rule.critical.duration_s, f"{rule.name} call"))
        return tuple(uses)

    def idle(self, policy: AdmissionPolicy) -> str:
        return "" if policy.velocity else "no rule"


_NAMES = {
    "per_second": "new calls within a second",
    "per_minute": "new calls within a minute",
    "total": "new calls within its period",
    "at_once": "calls at the same time",
    "in_sequence": "calls in a row to one destination",
}


def _levels(
    rule: VelocityPolicy, counted: CounterView, snapshot: Snapshot, question: Question | None
) -> list[tuple[str, int, int | None, int | None, str]]:
    """Counter, what was counted before this call, warning and critical level, window. None of a running call; without a
    question what is counted now, whatever is called next."""
    if question is not None and question.marks is not None:
        return []
    warning, critical, unix_s = rule.warning, rule.critical, snapshot.unix_s
    group = counted.usage.groups.get(rule.name) or _NO_GROUP
    levels: list[tuple[str, int, int | None, int | None, str]] = []
    for counter, window in _windows(rule):
        least, most = _part(counted, _level(warning, counter)), _part(counted, _level(critical, counter))
        if least is None and most is None:
            continue
        levels.append((counter, _count(group, counter, rule, unix_s, question), least, most, f"{rule.name} {window}"))
    return levels


def _windows(rule: VelocityPolicy) -> tuple[tuple[str, str], ...]:
    return (
        ("per_second", "1 s"), ("per_minute", "60 s"), ("total", f"{rule.period_ms // 1_000} s"), ("at_once", "now"),
        ("in_sequence", f"{rule.period_ms // 1_000} s"),
    )  # fmt: skip


def _level(level: VelocityLimits, counter: str) -> int | None:
    match counter:
        case "per_second":
            return level.per_second
        case "per_minute":
            return level.per_minute
        case "total":
            return level.total
        case "at_once":
            return level.at_once
    return level.in_sequence


def _count(group: VelocityCounts, counter: str, rule: VelocityPolicy, unix_s: UnixS, question: Question | None) -> int:
    match counter:
        case "per_second":
            return 0 if group.second is None else group.second.calls(unix_s)
        case "per_minute":
            return 0 if group.minute is None else group.minute.calls(unix_s)
        case "total":
            return 0 if group.period is None else group.period.calls(unix_s)
        case "at_once":
            return 0 if group.leases is None else group.leases.count(unix_s)
    if question is None:
        return group.in_sequence
    called = rule.matched(question.destination) or question.destination
    return in_sequence(group, called, rule, unix_s) - 1


def _spent(rule: VelocityPolicy, counted: CounterView, unix_s: UnixS) -> int:
    group = counted.usage.groups.get(rule.name)
    return 0 if group is None or group.period is None else group.period.sums(unix_s).micros


def _part(counted: CounterView, limit: int | None) -> int | None:
    return None if limit is None else part_of(counted, limit)


def _warning(counter: str, used: int, limit: int, window: str, rule: str) -> Refuse:
    text = f"Velocity rule {rule} warns above {limit} ({counter}, {window})."
    return Refuse(Reason.VELOCITY, "velocity", counter, used, limit, window, text)


_NO_GROUP = VelocityCounts()
