"""An audit's findings for people: the worst first, each with why it matters and the line that closes it."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from callwarden.cli import output
from callwarden.cli.audit.finding import Finding, Severity

_STYLE = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: output.DIM,
}


def rendered(findings: Sequence[Finding], source: str, notes: Sequence[str]) -> RenderableType:
    parts: list[RenderableType] = [output.cell(f"Audit of {source}", "bold")]
    parts += [_finding(finding) for finding in findings]
    parts += [Text(""), *(output.cell(f"note: {note}", output.DIM) for note in notes), output.cell(counted(findings))]
    return Group(*parts)


def _finding(finding: Finding) -> RenderableType:
    head = Text("" if finding.severity is Severity.INFO else "\n")
    head.append(f"{finding.severity.upper():<9}", _STYLE[finding.severity])
    head.append_text(output.cell(f"{finding.rule.id}  ", "bold"))
    if finding.severity is Severity.INFO:
        # Nothing to be done by whoever reads it: one line each.
        return Text.assemble(head, output.cell(finding.what, output.DIM))
    head.append_text(output.cell(str(finding.place)))
    lines: list[RenderableType] = [output.cell(finding.what), output.cell(finding.rule.why, output.DIM)]
    if finding.fix:
        # Never broken: it is there to be copied.
        fix = output.cell(finding.fix, "green")
        fix.no_wrap, fix.overflow = True, "ignore"
        lines.append(fix)
    if finding.how:
        lines.append(output.cell(f"→ {finding.how}", output.DIM))
    return Group(head, *(Padding(line, (0, 0, 0, 9)) for line in lines))


def counted(findings: Sequence[Finding]) -> str:
    """ "2 high, 1 low; 4 for information" """
    counts = Counter(finding.severity for finding in findings)
    told = [f"{counts[severity]} {severity}" for severity in reversed(Severity) if severity in counts]
    return ", ".join(told) if told else "nothing is open"
