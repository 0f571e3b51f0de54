"""An audit's findings for people: the worst first, each with why it matters and the line that closes it."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from callwarden.cli import output
from callwarden.cli.audit.finding import AuditFinding, AuditSeverity

_STYLE: Final = {
    AuditSeverity.CRITICAL: "bold red",
    AuditSeverity.HIGH: "red",
    AuditSeverity.MEDIUM: "yellow",
    AuditSeverity.LOW: "cyan",
    AuditSeverity.INFO: output.DIM,
}
_INDENT: Final = 9


def rendered(findings: Sequence[AuditFinding], source: str, notes: Sequence[str], width: int) -> Text:
    """Prose is wrapped to the width; a line of YAML is never broken, since it is there to be copied."""
    lines = [output.cell(f"Audit of {source}", "bold")]
    for finding in findings:
        lines += _finding(finding, width)
    lines += [Text(""), *(output.cell(f"note: {note}", output.DIM) for note in notes), output.cell(counted(findings))]
    return Text("\n").join(lines)


def _finding(finding: AuditFinding, width: int) -> Iterator[Text]:
    severity = Text(f"{finding.severity.upper():<{_INDENT}}", _STYLE[finding.severity])
    rule = output.cell(f"{finding.rule.id}  ", "bold")
    if finding.severity is AuditSeverity.INFO:
        # Nothing to do about it: one line each.
        yield Text.assemble(severity, rule, output.cell(finding.what, output.DIM))
        return
    yield Text("")
    yield Text.assemble(severity, rule, output.cell(str(finding.place)))
    yield from _prose(finding.what, width)
    yield from _prose(finding.rule.why, width, output.DIM)
    if finding.fix:
        yield output.cell(f"{' ' * _INDENT}{finding.fix}", "green")
    if finding.how:
        yield from _prose(f"→ {finding.how}", width, output.DIM)


def _prose(text: str, width: int, style: str = "") -> Iterator[Text]:
    """Commands in it stay whole where a line has room for them."""
    space = max(40, width - _INDENT)
    for line in textwrap.wrap(text, space, break_long_words=False, break_on_hyphens=False):
        yield output.cell(f"{' ' * _INDENT}{line}", style)


def counted(findings: Sequence[AuditFinding]) -> str:
    """ "2 high, 1 low" """
    counts = Counter(finding.severity for finding in findings)
    told = [f"{counts[severity]} {severity}" for severity in reversed(AuditSeverity) if severity in counts]
    return ", ".join(told) if told else "nothing is open"
