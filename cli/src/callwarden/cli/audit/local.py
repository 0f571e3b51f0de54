"""A local system's part of the checklist: where it listens, who may read its secrets, what its database role may do,
and how trunks prove who they are. Pure functions of facts, which callwarden.cli.audit.sources gathers.
"""

import hashlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from callwarden.cli.audit.finding import AuditFinding, AuditPlace, AuditRule, AuditSeverity
from callwarden.cli.yaml_lines import line_of_yaml

_OTHERS: Final = 0o077  # Rights of the group and of all others.
_PREFIX_DIGITS: Final = 6  # A million: the limits on wrong messages stop a guesser long before.


@dataclass(frozen=True, slots=True)
class Listener:
    """A door: what is behind it, `host:port`, and whether it asks for a certificate."""

    name: str
    address: str
    has_tls: bool = False


@dataclass(frozen=True, slots=True)
class SecretFile:
    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class DatabaseRole:
    """What a role that services use may do. Deleting from the ledger represents everything that no service does: only
    the owner of the tables may.
    """

    name: str
    may_delete_ledger: bool


@dataclass(frozen=True, slots=True)
class AuditTrunk:
    """A trunk that calls come in from, by API or as a resource."""

    name: str
    tech_prefix: str
    place: AuditPlace
    is_resource: bool


@dataclass(frozen=True, slots=True)
class LocalFacts:
    listeners: tuple[Listener, ...] = ()
    files: tuple[SecretFile, ...] = ()
    roles: tuple[DatabaseRole, ...] = ()
    database_address: str = ""
    database_has_tls: bool = False


LISTEN: Final = AuditRule(
    "local/listen",
    AuditSeverity.HIGH,
    "Only SIP is reached from outside",
    "Who reaches these doors admits calls, tops up accounts and reads credentials, without any password.",
    ("https", "db-roles"),
)
FILES: Final = AuditRule(
    "local/secret-files",
    AuditSeverity.HIGH,
    "Files of secrets are their owner's alone",
    "The keys in them sign nonces and open every stored password.",
    ("securepasswords",),
)
ROLE: Final = AuditRule(
    "local/database-role",
    AuditSeverity.MEDIUM,
    "The services' database role has the least rights",
    "An attacker who breaks into one service can change what all others keep, the ledger too.",
    ("db-roles",),
)
DATABASE_TLS: Final = AuditRule(
    "local/database-tls",
    AuditSeverity.HIGH,
    "The database is reached over TLS",
    "Its password and every balance go over the network.",
    ("db-roles",),
)
TRUNKS: Final = AuditRule(
    "trunk/address-alone",
    AuditSeverity.MEDIUM,
    "No trunk is known by its address alone",
    "The source of a UDP datagram can be forged, and calls then are the trunk's to pay.",
    ("spoofing",),
)
RULES: Final = (LISTEN, FILES, ROLE, DATABASE_TLS, TRUNKS)


def findings(facts: LocalFacts) -> Iterator[AuditFinding]:
    for door in facts.listeners:
        if not door.has_tls and not is_loopback(door.address):
            yield AuditFinding(
                LISTEN,
                LISTEN.severity,
                AuditPlace(door.name),
                f"listens on {door.address}, without TLS",
                how="listen on 127.0.0.1, or set CALLWARDEN_TLS_CERT, _KEY and _CA for every service",
            )
    for file in facts.files:
        if file.mode & _OTHERS:
            yield AuditFinding(
                FILES,
                FILES.severity,
                AuditPlace(file.path),
                f"can be read or entered by others (mode {file.mode & 0o777:o})",
                how=f"chmod go= {file.path}, and consider the secrets known",
            )
    yield from _of_database(facts)


def _of_database(facts: LocalFacts) -> Iterator[AuditFinding]:
    is_near = is_loopback(facts.database_address)
    if facts.database_address and not facts.database_has_tls and not is_near:
        yield AuditFinding(
            DATABASE_TLS,
            DATABASE_TLS.severity,
            AuditPlace("database"),
            f"is reached at {facts.database_address} without TLS",
            how="append ?ssl=verify-full to CALLWARDEN_DATABASE_URL",
        )
    # On this machine alone only who has the machine reaches it.
    severity = AuditSeverity.LOW if is_near else ROLE.severity
    for role in facts.roles:
        if role.may_delete_ledger:
            what = "may delete from the ledger, as its owner: no service needs that"
            how = "give each service a role of its own: docs/reference/database.md, Rights"
            yield AuditFinding(ROLE, severity, AuditPlace(f"database role {role.name}"), what, how=how)


def of_trunks(trunks: tuple[AuditTrunk, ...]) -> Iterator[AuditFinding]:
    for trunk in trunks:
        if trunk.tech_prefix:
            continue
        digits = tech_prefix(trunk.name)
        if trunk.is_resource:
            fix, how = line_of_yaml({"spec": {"techPrefix": digits}}), "and tell the customer to dial it first"
        else:
            fix, how = "", f"callwarden trunk set {trunk.name} --tech-prefix {digits}, and tell the customer"
        what = "calls come in by its address alone, without a tech prefix"
        yield AuditFinding(TRUNKS, TRUNKS.severity, trunk.place, what, fix, how)


def tech_prefix(name: str) -> str:
    """Digits to propose: the same for a trunk each time, others for another."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return str(number % (9 * 10 ** (_PREFIX_DIGITS - 1)) + 10 ** (_PREFIX_DIGITS - 1))


def is_loopback(address: str) -> bool:
    """Of `host:port` or `[v6]:port`. A name other than localhost may be anywhere."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def trunk_of(body: Any, place: AuditPlace) -> AuditTrunk | None:
    """A Trunk resource that calls come in from; None for any other."""
    spec = body.get("spec")
    if not isinstance(spec, dict) or spec.get("direction") != "traffic-sender" or spec.get("enabled") is False:
        return None
    return AuditTrunk(str(body.get("metadata", {}).get("name", "")), str(spec.get("techPrefix", "")), place, True)
