"""Findings as SARIF 2.1.0 (OASIS), which code scanning of GitHub, GitLab and Azure reads."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import PurePath
from typing import Any, Final

from callwarden.cli.audit.finding import AuditFinding, AuditRule, AuditSeverity

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"

# SARIF knows three levels; code scanning sorts by the number of CVSS, which is next to it.
_LEVEL: Final = {
    AuditSeverity.INFO: "note",
    AuditSeverity.LOW: "note",
    AuditSeverity.MEDIUM: "warning",
    AuditSeverity.HIGH: "error",
    AuditSeverity.CRITICAL: "error",
}
_SCORE: Final = {
    AuditSeverity.INFO: "0.0",
    AuditSeverity.LOW: "3.0",
    AuditSeverity.MEDIUM: "5.5",
    AuditSeverity.HIGH: "8.0",
    AuditSeverity.CRITICAL: "9.5",
}


def log(findings: Sequence[AuditFinding], rules: Sequence[AuditRule]) -> dict[str, Any]:
    """The whole log: one run, every rule that was asked, a result for each finding."""
    order = {rule.id: index for index, rule in enumerate(rules)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "callwarden audit",
                        "version": version("callwarden"),
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, order[finding.rule.id]) for finding in findings],
            }
        ],
    }


def _rule(rule: AuditRule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "defaultConfiguration": {"level": _LEVEL[rule.severity]},
        "properties": {
            "security-severity": _SCORE[rule.severity],
            "tags": ["security", *(f"setting/{row}" for row in rule.rows)],
        },
    }


def _result(finding: AuditFinding, index: int) -> dict[str, Any]:
    remedy = "\n".join(filter(None, (finding.fix, finding.how)))
    text = f"{finding.place.name}: {finding.what}" + (f"\nTo close it:\n{remedy}" if remedy else "")
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": finding.place.name, "kind": "resource"}]}
    if finding.place.file:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": _uri(finding.place.file)},
            "region": {"startLine": max(1, finding.place.line)},
        }
    same = f"{finding.rule.id}\0{finding.place.name}\0{finding.fix}"
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": _LEVEL[finding.severity],
        "message": {"text": text},
        "locations": [location],
        # So that a finding is the same one when lines move.
        "partialFingerprints": {"callwardenAudit/v1": hashlib.sha256(same.encode()).hexdigest()},
        "properties": {"severity": finding.severity.value, "fix": finding.fix},
    }


def _uri(file: str) -> str:
    path = PurePath(file)
    if path.is_absolute():
        return path.as_uri()
    from urllib.parse import quote

    return quote(path.as_posix())
