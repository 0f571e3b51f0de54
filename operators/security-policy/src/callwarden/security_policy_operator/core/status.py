"""The status of a resource: conditions, who runs its revision, warnings. Values in, the JSON of `status` out.

Conditions (Kubernetes API conventions): Accepted says that the policy is right, Applied that every pod enforces it,
Degraded that something less than what it says holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from callwarden.security_policy_operator.core.plan import Source, Verdict

BEHIND_S: Final = 10.0
"""A service takes a new bundle within a second; one that hasn't after this is in trouble."""
WARNINGS_MAX: Final = 256  # as the schema has it
_TEXT_MAX: Final = 2_048
_NO_NEWS: Final = frozenset({"Progressing", "NotAccepted"})  # it will be told how it ends; Accepted has told it
_FORESEEN: Final = frozenset({"Expired"})  # not as it should be, but as somebody said

Json = dict[str, Any]


class Event(NamedTuple):
    """A Kubernetes Event about a resource."""

    kind: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Ack:
    """What one process says that it runs."""

    service: str
    instance: str
    revision: int


@dataclass(frozen=True, slots=True)
class Held:
    """How far the present form of a policy has come."""

    revision: int
    """The bundle's revision since which it holds; 0: it doesn't."""
    written_s: float
    """When that bundle was written, Unix time; 0: not known."""
    stressed: bool = False
    """Its profile StressTest holds now."""


def status_of(source: Source, verdict: Verdict, held: Held, acks: Iterable[Ack], now_s: float) -> Json:
    """The whole `status` of a resource. `lastTransitionTime` stays where a condition's status does."""
    services = _services(held.revision, acks) if held.revision else []
    generation = int(source.metadata.get("generation", 0))
    conditions = [
        _condition("Accepted", "True" if verdict.accepted else "False", verdict.reason, verdict.message),
        _applied(verdict, held, services),
        _degraded(verdict, held, services, now_s),
    ]
    _date(conditions, source, generation, now_s)
    status: Json = {
        "observedGeneration": generation,
        "conditions": conditions,
        "services": services,
        "warnings": [warning[:_TEXT_MAX] for warning in verdict.warnings[:WARNINGS_MAX]],
    }
    if held.revision:
        status["revision"] = held.revision
    return status


def revision_of(source: Source, verdict: Verdict, since: int, now: int) -> int:
    """Since which revision of the bundle holds what holds of a policy; 0: nothing does.

    `since`: as its writer remembers it, 0 if it doesn't. Otherwise the status is believed if it says the same of the
    same form: whoever wrote the bundle may have died before the status. Else it is `now`, the bundle's own revision.
    """
    if verdict.document is None:
        return 0
    if since:
        return since
    status = source.body.get("status")
    said = status.get("revision") if isinstance(status, Mapping) else None
    accepted = _conditions_before(source).get("Accepted", {})
    is_same = (accepted.get("observedGeneration"), accepted.get("status"), accepted.get("reason")) == (
        int(source.metadata.get("generation", 0)),
        "True" if verdict.accepted else "False",
        verdict.reason,
    )
    return said if is_same and isinstance(said, int) and 0 < said <= now else now


def simple_status(
    source: Source, reason: str, message: str, now_s: float, *, accepted: bool = True, applied: bool = True
) -> Json:
    """The status of a resource that either holds or doesn't, such as a Ban; `reason` and `message` say why."""
    conditions = [
        _condition("Accepted", "True", "Valid", f"The {source.key.kind} is right.")
        if accepted
        else _condition("Accepted", "False", reason, message),
        _condition("Applied", "True" if applied else "False", reason, message)
        if accepted
        else _condition("Applied", "False", "NotAccepted", f"The {source.key.kind} is not accepted."),
    ]
    generation = int(source.metadata.get("generation", 0))
    _date(conditions, source, generation, now_s)
    return {"observedGeneration": generation, "conditions": conditions}


def transitions(source: Source, status: Json) -> list[Event]:
    """What is worth a Kubernetes Event: each condition that has turned, and that an edit holds."""
    before = _conditions_before(source)
    events = []
    for condition in status["conditions"]:
        old = before.get(condition["type"], {})
        if _turn(condition) == _turn(old):
            continue
        if condition["type"] == "Degraded" and condition["status"] == "False" and not old:
            continue  # that nothing is amiss is no news about a new one
        if condition["status"] == "Unknown" or condition["reason"] in _NO_NEWS:
            continue
        is_good = (condition["status"] == "True") is not (condition["type"] == "Degraded")
        reason = condition["type"] if is_good and condition["type"] != "Degraded" else condition["reason"]
        kind = "Normal" if is_good or reason in _FORESEEN else "Warning"
        events.append(Event(kind, reason, condition["message"]))
    return events


def _turn(condition: Mapping[str, Any]) -> tuple[object, ...]:
    """What is different when a condition has turned."""
    is_applied = condition.get("type") == "Applied" and condition.get("status") == "True"
    return condition.get("status"), condition.get("reason"), is_applied and condition.get("observedGeneration")


def _services(revision: int, acks: Iterable[Ack]) -> list[Json]:
    pods: dict[str, int] = {}
    running: dict[str, int] = {}
    for ack in acks:
        pods[ack.service] = pods.get(ack.service, 0) + 1
        running[ack.service] = running.get(ack.service, 0) + (ack.revision >= revision)
    return [{"name": name, "pods": pods[name], "running": running[name]} for name in sorted(pods)]


def _applied(verdict: Verdict, held: Held, services: Sequence[Json]) -> Json:
    if not verdict.accepted:
        return _condition("Applied", "False", "NotAccepted", "The policy is not accepted.")
    pods, running = _sum(services, "pods"), _sum(services, "running")
    if not pods:
        return _condition("Applied", "Unknown", "NoPods", "No service says that it runs.")
    if running < pods:
        return _condition("Applied", "False", "Progressing", f"{running} of {pods} pods run it.")
    return _condition("Applied", "True", "Enforced", "Every pod runs it.")


def _degraded(verdict: Verdict, held: Held, services: Sequence[Json], now_s: float) -> Json:
    if not verdict.accepted:
        if verdict.document is None:
            return _condition("Degraded", "True", "NotInForce", "Nothing of this policy is in force.")
        return _condition("Degraded", "True", "LastGoodInForce", "An earlier version of this policy is in force.")
    behind = [service["name"] for service in services if service["running"] < service["pods"]]
    if behind and held.written_s and now_s - held.written_s > BEHIND_S:
        return _condition("Degraded", "True", "PodsBehind", f"Pods that still run less: {', '.join(behind)}.")
    if held.stressed:
        return _condition("Degraded", "True", "StressTest", "Profile StressTest has turned off protections for a time.")
    return _condition("Degraded", "False", "AsSpecified", "What the policy says holds.")


def _condition(kind: str, status: str, reason: str, message: str) -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message[:32_768]}


def _date(conditions: Iterable[Json], source: Source, generation: int, now_s: float) -> None:
    before = _conditions_before(source)
    for condition in conditions:
        condition["observedGeneration"] = generation
        old = before.get(condition["type"], {})
        stays = old.get("status") == condition["status"] and isinstance(old.get("lastTransitionTime"), str)
        condition["lastTransitionTime"] = old["lastTransitionTime"] if stays else moment_of(now_s)


def _conditions_before(source: Source) -> Mapping[str, Mapping[str, Any]]:
    status = source.body.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    return {str(one.get("type")): one for one in conditions or () if isinstance(one, Mapping)}


def _sum(services: Iterable[Json], field: str) -> int:
    return sum(int(service[field]) for service in services)


def moment_of(now_s: float) -> str:
    """RFC 3339 with whole seconds, as Kubernetes writes it."""
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
