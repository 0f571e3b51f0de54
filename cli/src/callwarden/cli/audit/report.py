"""What one audit found, put together: the checklist's parts over whatever a source has."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from callwarden.cli.audit import deployment, local, policies
from callwarden.cli.audit.finding import AuditFinding, AuditPlace, AuditRule, AuditSeverity
from callwarden.cli.audit.local import AuditTrunk, LocalFacts
from callwarden.cli.audit.objects import Objects
from callwarden.cli.audit.policies import Locate, Remedy
from callwarden.policy.bundle import Document, PolicySet

# Every rule once; two rows of the model may be one row of the catalogue.
RULES: Final[Sequence[AuditRule]] = tuple(
    {rule.id: rule for rule in (*policies.RULES, *(check.rule for check in deployment.CHECKS), *local.RULES)}.values()
)


def by_name(document: Document, path: str) -> AuditPlace:
    """A policy that comes from no file."""
    within = f"{document.namespace}/" if document.namespace else ""
    return AuditPlace(f"{document.kind} {within}{document.name}")


def by_file(document: Document | None) -> str:
    into = f"into {document.kind} {document.name}" if document is not None else "into a SecurityPolicy"
    return f"{into}, then: callwarden policy apply -f FILE (or kubectl apply -f FILE)"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a source has. None: it says nothing of policies. `notes`: what couldn't be looked at, and why."""

    source: str
    policies: PolicySet | None = None
    locate: Locate = by_name
    remedy: Remedy = by_file
    objects: Objects = field(default_factory=lambda: Objects(()))
    system: LocalFacts = field(default_factory=LocalFacts)
    trunks: tuple[AuditTrunk, ...] = ()
    notes: tuple[str, ...] = ()


def findings(evidence: Evidence) -> list[AuditFinding]:
    """The worst first, otherwise in the checklist's order."""
    found: list[AuditFinding] = []
    if evidence.policies is not None:
        found += policies.findings(evidence.policies, evidence.locate, evidence.remedy)
    found += deployment.findings(evidence.objects)
    found += local.findings(evidence.system)
    found += local.of_trunks(evidence.trunks)
    return sorted(found, key=lambda finding: -finding.severity.rank)


def at_or_above(found: Sequence[AuditFinding], severity: AuditSeverity) -> list[AuditFinding]:
    return [finding for finding in found if finding.severity.reaches(severity)]
