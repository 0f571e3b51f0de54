"""How decisions about calls are shown to a person: every rule in its order, with what it counted; or many, one a line.

Out: taking the decisions (call-admission, edge-proxy), storing them (call-admission).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.text import Text

from callwarden.cli import output
from callwarden.cli.layout import Aligned

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2 import Call, Decision, DecisionLine, ExplainReply, RuleVerdict

_SIGN: Final = {"pass": ("✓", "green"), "refuse": ("✗", "red"), "skip": ("·", output.DIM)}
_OUTCOME: Final = {"admit": "green", "extend": "green", "refuse": "red", "cut": "yellow"}
# Counters whose values are micros, and those that count seconds; all others are shown as they are.
_MONEY_WORDS: Final = ("micros", "credit", "spend", "spent", "cost", "balance", "price")
_TIME_WORDS: Final = ("seconds", "talk", "duration")


def render(call_id: str, reply: "ExplainReply", *, every: bool = False) -> RenderableType:
    """The whole chain, oldest decision first, then how the call ended. `every`: each rule that doesn't apply has a line
    in its place, instead of one line for each reason."""
    currency = reply.call.currency if reply.HasField("call") else ""
    parts: list[RenderableType] = [Aligned([[Text.assemble(("Call ", "bold"), output.printable(call_id))]])]
    for decision in sorted(reply.decisions, key=lambda decision: decision.at_s):
        parts += [Text(), _decision(decision, currency, every=every)]
    if reply.HasField("call") and reply.call.state != "refused":
        parts += [Text(), _ending(reply.call)]
    return Group(*parts)


def render_list(decisions: Sequence["DecisionLine"]) -> RenderableType:
    """Decisions in the order given, one a line (a Call-ID must be copied whole), and beneath it the rule and reason."""
    parts: list[RenderableType] = []
    for line in decisions:
        decision = line.decision
        at, source = output.clock(decision.at_s), output.printable(decision.source_address)
        for what, rule, why in _briefly(decision):
            head = Text.assemble(f"{at}  ", what, "  ", (output.printable(line.call_id), "bold"))
            head.append(f"  {source}" if source else "", output.DIM)
            parts.append(Aligned([[head]]))
            if rule or why:
                said = f"{rule}: {why}" if rule and why else rule or why
                parts.append(Aligned([[output.cell(said, output.DIM)]], indent=len(at) + 2))
    return Group(*parts)


def _briefly(decision: "Decision") -> list[tuple[Text, str, str]]:
    """What was decided, and what rules that only report would have decided."""
    colour = _OUTCOME.get(decision.outcome, "")
    refused = decision.refused
    why = refused.text if decision.HasField("refused") else ""
    found = [(Text(_past(decision.outcome).lower(), style=colour), refused.rule, why)]
    if decision.outcome == "cut" and not why:
        found = [(Text("last slice", style=colour), decision.cut_by, "The rest is less than a whole slice.")]
    for rule in decision.rules:
        if _would_refuse(rule):
            found.append((Text("would refuse", style="yellow"), rule.rule, rule.text))
        elif _warns(rule):
            found.append((Text("warned", style="yellow"), rule.rule, rule.text))
    return found


def _would_refuse(rule: "RuleVerdict") -> bool:
    """Recorded, let through."""
    return rule.verdict == "refuse" and rule.mode == "report"


def _warns(rule: "RuleVerdict") -> bool:
    """The call passes, but the rule has something to say."""
    return rule.verdict == "pass" and bool(rule.text)


def csv_columns() -> list[str]:
    """The header of decisions with a row for each rule."""
    from callwarden.api.admission.v1.admission_pb2 import Decision
    from callwarden.cli import records

    return records.csv_columns(Decision, each="rules")


def rules(decision: "Decision", currency: str, *, every: bool = False) -> RenderableType:
    """The verdict of each rule, in their order; beneath them the rules that don't apply, by reason. `every`: each of
    these has a line of its own."""
    lines: list[tuple[Text, ...]] = []
    skipped: dict[str, list[str]] = {}
    for rule in decision.rules:
        if rule.verdict == "skip" and not every:
            skipped.setdefault(rule.text or "not checked", []).append(_named(rule))
        else:
            lines.append(_rule(rule, currency))
    sign, colour = _SIGN["skip"]
    by_reason = [
        (Text(sign, style=colour), output.cell(f"not applicable ({why}): {', '.join(names)}", colour))
        for why, names in skipped.items()
    ]
    return Group(Aligned(lines, indent=2), Aligned(by_reason, indent=2))


def _decision(decision: "Decision", currency: str, *, every: bool) -> RenderableType:
    colour = _OUTCOME.get(decision.outcome, "")
    head = Text.assemble(
        (_past(decision.outcome), f"bold {colour}"),
        f" by {output.printable(decision.service) or 'unknown'} at {output.clock(decision.at_s)}",
    )
    facts = [
        f"account {decision.account}" if decision.account else "",
        f"from {decision.source_address}" if decision.source_address else "",
        f"policy revision {decision.policy_revision}" if decision.policy_revision else "policy revision 0 (defaults)",
        f"trace {decision.trace_id}" if decision.trace_id else "",
    ]
    parts: list[RenderableType] = [
        Aligned([[head]]),
        Aligned([[output.cell(" · ".join(filter(None, facts)), output.DIM)]], indent=2),
    ]
    if decision.rules:
        parts.append(rules(decision, currency, every=every))
    if decision.HasField("refused"):
        parts.append(verdict(decision))
    if rule := _cut_by(decision):
        text = ": the rest is less than a whole slice" if decision.cut_by else ""
        parts.append(_conclusion(("cut", "bold yellow"), f" by {rule}{text}"))
    would = [rule.rule for rule in decision.rules if _would_refuse(rule)]
    if would:
        parts.append(_conclusion(("would have been refused", "bold yellow"), f" by {', '.join(would)}"))
    return Group(*parts)


def _conclusion(what: tuple[str, str], why: str) -> Aligned:
    return Aligned([[Text.assemble("→ ", what, output.printable(why))]], indent=2)


def _cut_by(decision: "Decision") -> str:
    """The rule that ends a call; empty: it continues, or hasn't started."""
    return decision.cut_by or (decision.refused.rule if decision.outcome == "cut" else "")


def verdict(decision: "Decision") -> Aligned:
    """Why a call is refused."""
    refused = decision.refused
    text = refused.text or f"refused by rule {refused.rule}"
    status = f" (SIP {refused.sip_status})" if refused.sip_status else ""
    retry = f", retry after {output.span(refused.retry_after_s)}" if refused.retry_after_s else ""
    reason = output.printable(refused.reason) or "refused"
    return _conclusion((reason, "bold red"), f": {text.rstrip('.')}{status}{retry}")


def _rule(rule: "RuleVerdict", currency: str) -> tuple[Text, ...]:
    sign, colour = _SIGN.get(rule.verdict, ("?", "yellow"))
    if _would_refuse(rule) or _warns(rule):
        sign, colour = "!", "yellow"
    numbers = ""
    if rule.counter and rule.verdict != "skip" and (rule.value or rule.limit):
        value, limit = (_amount(number, rule.counter, currency) for number in (rule.value, rule.limit))
        # For credit, the limit is the least that the call needs.
        counted = "" if rule.counter == "seconds" else f"{rule.counter} "  # the clock's form says so
        numbers = f"{counted}{value}, {'needed' if rule.counter == 'credit' else 'limit'} {limit}"
    dim = output.DIM if rule.verdict == "skip" else ""
    return (
        Text(sign, style=colour),
        output.cell(_named(rule), dim),
        Text.assemble((output.printable(numbers), dim), (output.printable(_within(numbers, rule)), output.DIM)),
        output.cell(rule.text, "yellow" if _would_refuse(rule) or _warns(rule) else output.DIM),
    )


def _named(rule: "RuleVerdict") -> str:
    """The rule, and its mode unless it enforces."""
    mode = {"": "", "enforce": "", "report": " (report only)"}.get(rule.mode, f" ({rule.mode})")
    return f"{rule.rule}{mode}"


def _within(numbers: str, rule: "RuleVerdict") -> str:
    """The window that was counted; without numbers, what the rule names in its place, such as a list's entry."""
    return f" · {rule.window}" if numbers and rule.window else rule.window


def _amount(number: int, counter: str, currency: str) -> str:
    if any(word in counter for word in _MONEY_WORDS):
        return output.money(number, currency)
    if any(word in counter for word in _TIME_WORDS):
        return output.duration(number)
    return f"{number:,}"


def _ending(call: "Call") -> RenderableType:
    answered = f"talked {call.duration_s} s, charged {call.billed_s} s" if call.answered_at_s else "never answered"
    price = f", {output.money(call.price_micros, call.currency)}" if call.answered_at_s else ""
    via = f" via {call.trunk}" if call.trunk else ""
    state = "is running" if call.state == "running" else f"{call.state} at {output.clock(call.ended_at_s)}"
    reason = f" ({call.reason})" if call.reason else ""
    end = "" if call.state == "running" else f": {answered}{price}"
    return Aligned(
        [[Text.assemble((output.printable("Call " + state), "bold"), output.printable(f"{reason}{via}{end}"))]]
    )


def _past(outcome: str) -> str:
    known = {"admit": "Admitted", "refuse": "Refused", "extend": "Extended", "cut": "Cut"}
    return known.get(outcome, output.printable(outcome.capitalize()) or "Decided")
