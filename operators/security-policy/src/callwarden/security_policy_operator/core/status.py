"""The status of a resource: conditions, which pods run its revision, warnings. Values in, the JSON of `status` out.

Conditions (Kubernetes API conventions): Accepted: the resource is valid. Applied: every pod enforces it. Degraded:
something less than the resource asks for is in force.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from callwarden.kernel.clock import UnixS
from callwarden.security_policy_operator.core.plan import PolicyVerdict
from callwarden.security_policy_operator.core.realms import NOT_ALLOWED
from callwarden.security_policy_operator.core.resource import ManagedResource, Refusal

BEHIND_S: Final = 10.0
"""A service applies a new bundle within a second; one that hasn't after this is in trouble."""
WARNINGS_MAX: Final = 256  # as the schema has it
_TEXT_MAX: Final = 2_048
# Another Event follows when progress ends; the one for Accepted has given the reason.
_WITHOUT_EVENT: Final = frozenset({"Progressing", "NotAccepted"})
_EXPECTED: Final = frozenset({"Expired"})  # no longer applied, as the resource asked for

Json = dict[str, Any]


class ResourceEvent(NamedTuple):
    """A Kubernetes Event about a resource."""

    kind: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Which revision one process reports that it enforces."""

    service: str
    instance: str
    revision: int


@dataclass(frozen=True, slots=True)
class AppliedState:
    """How far the present form of a policy has come."""

    revision: int
    """The bundle's revision since which it is in force; 0: it isn't."""
    written_s: float
    """When that bundle was written, Unix time; 0: not known."""
    stressed: bool = False
    """Its profile StressTest applies now."""


def status_of(
    resource: ManagedResource, verdict: PolicyVerdict, applied: AppliedState, acks: Iterable[Ack], unix_s: UnixS
) -> Json:
    """The whole `status` of a resource. `lastTransitionTime` stays where a condition's status does."""
    services = _services(applied.revision, acks) if applied.revision else []
    generation = int(resource.metadata.get("generation", 0))
    conditions = [
        _condition("Accepted", "True" if verdict.accepted else "False", verdict.reason, verdict.message),
        _applied(verdict, applied, services),
        _degraded(verdict, applied, services, unix_s),
    ]
    _date(conditions, resource, generation, unix_s)
    status: Json = {
        "observedGeneration": generation,
        "conditions": conditions,
        "services": services,
        "warnings": [warning[:_TEXT_MAX] for warning in verdict.warnings[:WARNINGS_MAX]],
    }
    if applied.revision:
        status["revision"] = applied.revision
    return status


def revision_of(resource: ManagedResource, verdict: PolicyVerdict, since: int, now: int) -> int:
    """The revision of the bundle since which a policy, or its last good version, is in force; 0: none of it is.

    `since`: as the writer of the bundle remembers it, 0 if it doesn't. Otherwise the status counts if it reports the
    same about the same form: the writer may have died before it wrote the status. Else `now`, the bundle's revision.
    """
    if verdict.document is None:
        return 0
    if since:
        return since
    reported = resource.status.get("revision")
    accepted = _conditions_before(resource).get("Accepted", {})
    is_same = (accepted.get("observedGeneration"), accepted.get("status"), accepted.get("reason")) == (
        int(resource.metadata.get("generation", 0)),
        "True" if verdict.accepted else "False",
        verdict.reason,
    )
    return reported if is_same and isinstance(reported, int) and 0 < reported <= now else now


def simple_status(
    resource: ManagedResource, reason: str, message: str, unix_s: UnixS, *, accepted: bool = True, applied: bool = True
) -> Json:
    """The status of a resource that is either applied or not, such as a Ban; `reason` and `message` say why."""
    conditions = [
        _condition("Accepted", "True", "Valid", f"The {resource.key.kind} is valid.")
        if accepted
        else _condition("Accepted", "False", reason, message),
        _condition("Applied", "True" if applied else "False", reason, message)
        if accepted
        else _condition("Applied", "False", "NotAccepted", f"The {resource.key.kind} is not accepted."),
    ]
    generation = int(resource.metadata.get("generation", 0))
    _date(conditions, resource, generation, unix_s)
    return {"observedGeneration": generation, "conditions": conditions}


def transitions(resource: ManagedResource, status: Json) -> list[ResourceEvent]:
    """What is worth a Kubernetes Event: each condition that has changed, and that an edit was applied."""
    before = _conditions_before(resource)
    events = []
    for condition in status["conditions"]:
        old = before.get(condition["type"], {})
        if _turn(condition) == _turn(old):
            continue
        if condition["type"] == "Degraded" and condition["status"] == "False" and not old:
            continue  # expected of a new resource
        if condition["status"] == "Unknown" or condition["reason"] in _WITHOUT_EVENT:
            continue
        is_good = (condition["status"] == "True") is not (condition["type"] == "Degraded")
        reason = condition["type"] if is_good and condition["type"] != "Degraded" else condition["reason"]
        kind = "Normal" if is_good or reason in _EXPECTED else "Warning"
        events.append(ResourceEvent(kind, reason, condition["message"]))
    return events


def _turn(condition: Mapping[str, Any]) -> tuple[object, ...]:
    """What is different when a condition has changed."""
    is_applied = condition.get("type") == "Applied" and condition.get("status") == "True"
    return condition.get("status"), condition.get("reason"), is_applied and condition.get("observedGeneration")


def _services(revision: int, acks: Iterable[Ack]) -> list[Json]:
    pods: dict[str, int] = {}
    running: dict[str, int] = {}
    for ack in acks:
        pods[ack.service] = pods.get(ack.service, 0) + 1
        running[ack.service] = running.get(ack.service, 0) + (ack.revision >= revision)
    return [{"name": name, "pods": pods[name], "running": running[name]} for name in sorted(pods)]


def _applied(verdict: PolicyVerdict, applied: AppliedState, services: Sequence[Json]) -> Json:
    if not verdict.accepted:
        return _condition("Applied", "False", "NotAccepted", "The policy is not accepted.")
    if verdict.denied:
        return _condition("Applied", "False", NOT_ALLOWED, verdict.denied)
    pods, running = _sum(services, "pods"), _sum(services, "running")
    if not pods:
        return _condition("Applied", "Unknown", "NoPods", "No service has reported that it runs.")
    if running < pods:
        return _condition("Applied", "False", "Progressing", f"{running} of {pods} pods enforce it.")
    return _condition("Applied", "True", "Enforced", "Every pod enforces it.")


def _degraded(verdict: PolicyVerdict, applied: AppliedState, services: Sequence[Json], unix_s: UnixS) -> Json:
    if not verdict.is_carried_out:
        if verdict.document is None:
            return _condition("Degraded", "True", "NotInForce", "No version of this policy is in force.")
        return _condition("Degraded", "True", "LastGoodInForce", "An earlier version of this policy is in force.")
    behind = [service["name"] for service in services if service["running"] < service["pods"]]
    if behind and applied.written_s and unix_s - applied.written_s > BEHIND_S:
        return _condition(
            "Degraded",
            "True",
            "PodsBehind",
            f"Pods of these services still run an earlier revision: {', '.join(behind)}.",
        )
    if applied.stressed:
        return _condition(
            "Degraded", "True", "StressTest", "Profile StressTest has turned off some protections for a limited time."
        )
    return _condition("Degraded", "False", "AsSpecified", "The policy is in force as specified.")


def _condition(kind: str, status: str, reason: str, message: str) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message[:32_768]}


def _date(conditions: Iterable[Json], resource: ManagedResource, generation: int, unix_s: UnixS) -> None:
    before = _conditions_before(resource)
    for condition in conditions:
        condition["observedGeneration"] = generation
        old = before.get(condition["type"], {})
        stays = old.get("status") == condition["status"] and isinstance(old.get("lastTransitionTime"), str)
        condition["lastTransitionTime"] = old["lastTransitionTime"] if stays else moment_of(unix_s)


def _conditions_before(resource: ManagedResource) -> Mapping[str, Mapping[str, Any]]:
    conditions = resource.status.get("conditions")
    return {str(one.get("type")): one for one in conditions or () if isinstance(one, Mapping)}


def _sum(services: Iterable[Json], field: str) -> int:
    return sum(int(service[field]) for service in services)


def moment_of(unix_s: UnixS) -> str:
    """RFC 3339 with whole seconds, as Kubernetes writes it."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unavailable(service: str, message: str) -> Refusal:
    """For a valid resource whose service doesn't answer."""
    return Refusal("Unavailable", f"{service}: {message}.", accepted=True)
