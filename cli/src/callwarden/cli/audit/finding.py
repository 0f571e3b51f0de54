"""What an audit says: rules, and findings of something that a rule wants otherwise. How it is shown is elsewhere."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class AuditSeverity(StrEnum):
    """How bad it is when it stays open, the mildest first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return _ORDER.index(self)

    def reaches(self, other: "AuditSeverity") -> bool:
        return self.rank >= other.rank

    def worse(self) -> "AuditSeverity":
        return _ORDER[min(self.rank + 1, len(_ORDER) - 1)]


_ORDER: Final = tuple(AuditSeverity)


@dataclass(frozen=True, slots=True)
class AuditRule:
    """One row of the checklist. `rows` are its ids in the settings catalogue."""

    id: str
    severity: AuditSeverity
    title: str
    why: str
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditPlace:
    """Where it was found: a name for people, and file and line (from 1) where it came from one."""

    name: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.name} ({self.file}:{self.line})" if self.file else self.name


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something open. `what` is the fact, `fix` the line of YAML that closes it (empty where no YAML can), `how` what
    to do with that line, or instead."""

    rule: AuditRule
    severity: AuditSeverity
    place: AuditPlace
    what: str
    fix: str = ""
    how: str = ""
