"""The status of a policy: conditions, revision, which pods enforce it, and which changes are worth an Event."""

from typing import Any

import pytest

from callwarden.kernel.clock import UnixS
from callwarden.policy.bundle import Document
from callwarden.security_policy_operator.core.plan import PolicyVerdict
from callwarden.security_policy_operator.core.resource import ManagedResource
from callwarden.security_policy_operator.core.status import (
    BEHIND_S,
    Ack,
    AppliedState,
    Json,
    moment_of,
    revision_of,
    simple_status,
    status_of,
    transitions,
)

NOW_S = UnixS(1_767_225_600.0)
DOCUMENT = Document("house", {"lines": {"max": 3}}, namespace="default")
GOOD = PolicyVerdict(True, "Valid", "The policy is valid.", DOCUMENT)
REFUSED = PolicyVerdict(False, "Invalid", "spec.lines.max: is wrong", None)
DENIED = PolicyVerdict(True, "Valid", "The policy is valid.", None, denied="spec.realm is a.example, and …")
LAST_GOOD = PolicyVerdict(False, "Invalid", "spec.lines.max: is wrong", DOCUMENT)


def source(status: Json | None = None, generation: int = 1) -> ManagedResource:
    body: Json = {"kind": "SecurityPolicy", "metadata": {"name": "house", "generation": generation}}
    return ManagedResource({**body, **({"status": status} if status is not None else {})})


def acks(*revisions: int, service: str = "edge-proxy") -> list[Ack]:
    return [Ack(service, f"pod-{number}", revision) for number, revision in enumerate(revisions)]


def conditions(status: Json) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


@pytest.mark.parametrize(
    ("verdict", "running", "applied", "degraded"),
    [
        (GOOD, (), ("Unknown", "NoPods"), ("False", "AsSpecified")),
        (GOOD, (5, 4), ("False", "Progressing"), ("False", "AsSpecified")),
        (GOOD, (5, 6), ("True", "Enforced"), ("False", "AsSpecified")),
        (REFUSED, (5, 5), ("False", "NotAccepted"), ("True", "NotInForce")),
        (LAST_GOOD, (5, 5), ("False", "NotAccepted"), ("True", "LastGoodInForce")),
        (DENIED, (5, 5), ("False", "RealmNotAllowed"), ("True", "NotInForce")),
    ],
)
def test_conditions_report_whether_it_is_valid_and_which_pods_enforce_it(
    verdict: PolicyVerdict, running: tuple[int, ...], applied: tuple[str, str], degraded: tuple[str, str]
) -> None:
    held = AppliedState(5 if verdict.document else 0, NOW_S)
    status = status_of(source(), verdict, held, acks(*running), NOW_S)
    assert conditions(status) == {
        "Accepted": (str(verdict.accepted), verdict.reason),
        "Applied": applied,
        "Degraded": degraded,
    }


def test_pods_are_counted_by_service() -> None:
    status = status_of(source(), GOOD, AppliedState(5, NOW_S), [*acks(5, 4, service="auth"), *acks(7)], NOW_S)
    assert status["services"] == [
        {"name": "auth", "pods": 2, "running": 1},
        {"name": "edge-proxy", "pods": 1, "running": 1},
    ]


def test_pods_that_stay_behind_are_named_after_a_while() -> None:
    late_s = UnixS(NOW_S + BEHIND_S + 1)
    status = status_of(source(), GOOD, AppliedState(5, NOW_S), acks(4), late_s)
    assert conditions(status)["Degraded"] == ("True", "PodsBehind")


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = status_of(source(), GOOD, AppliedState(5, NOW_S), acks(4), NOW_S)
    second = status_of(source(first), GOOD, AppliedState(5, NOW_S), acks(5), UnixS(NOW_S + 60))
    times = {one["type"]: one["lastTransitionTime"] for one in second["conditions"]}
    assert times == {
        "Accepted": moment_of(NOW_S),
        "Applied": moment_of(UnixS(NOW_S + 60)),
        "Degraded": moment_of(NOW_S),
    }
    assert (
        status_of(source(second), GOOD, AppliedState(5, NOW_S), acks(5), UnixS(NOW_S + 90)) == second
    )  # nothing to write


def test_only_changes_are_events() -> None:
    first = status_of(source(), GOOD, AppliedState(5, NOW_S), acks(5), NOW_S)
    assert [event[:2] for event in transitions(source(), first)] == [("Normal", "Accepted"), ("Normal", "Applied")]
    assert transitions(source(first), first) == []
    refused = status_of(source(first, 2), LAST_GOOD, AppliedState(5, NOW_S), acks(5), NOW_S)
    assert [event[:2] for event in transitions(source(first, 2), refused)] == [
        ("Warning", "Invalid"),
        ("Warning", "LastGoodInForce"),
    ]


def test_an_applied_edit_is_an_event_though_no_condition_changes() -> None:
    first = status_of(source(), GOOD, AppliedState(5, NOW_S), acks(5), NOW_S)
    edited = status_of(source(first, 2), GOOD, AppliedState(6, NOW_S), acks(6), NOW_S)
    assert [event[:2] for event in transitions(source(first, 2), edited)] == [("Normal", "Applied")]


def declared(status: Json | None = None) -> ManagedResource:
    body: Json = {"kind": "Ban", "metadata": {"name": "guest", "generation": 1}}
    return ManagedResource({**body, **({"status": status} if status is not None else {})})


@pytest.mark.parametrize(
    ("reason", "accepted", "applied", "said", "events"),
    [
        (
            "Banned", True, True, [("True", "Valid"), ("True", "Banned")],
            [("Normal", "Accepted"), ("Normal", "Applied")],
        ),
        (
            "NoRoom", True, False, [("True", "Valid"), ("False", "NoRoom")],
            [("Normal", "Accepted"), ("Warning", "NoRoom")],
        ),
        (
            "Expired", True, False, [("True", "Valid"), ("False", "Expired")],
            [("Normal", "Accepted"), ("Normal", "Expired")],
        ),
        ("Conflict", False, False, [("False", "Conflict"), ("False", "NotAccepted")], [("Warning", "Conflict")]),
    ],
)  # fmt: skip
def test_the_reason_for_a_resource_that_a_service_carries_out_is_reported_once(
    reason: str, accepted: bool, applied: bool, said: list[tuple[str, str]], events: list[tuple[str, str]]
) -> None:
    status = simple_status(declared(), reason, "why", NOW_S, accepted=accepted, applied=applied)
    assert list(conditions(status).values()) == said
    assert [event[:2] for event in transitions(declared(), status)] == events
    assert transitions(declared(status), status) == []


def reported(**changes: Any) -> Json:
    status = status_of(source(), GOOD, AppliedState(3, NOW_S), acks(3), NOW_S)
    return {**status, **changes}


def test_the_revision_is_the_one_that_the_writer_remembers() -> None:
    assert revision_of(source(reported()), GOOD, since=4, now=9) == 4


def test_without_memory_the_status_counts_if_it_is_about_the_same_form() -> None:
    assert revision_of(source(reported()), GOOD, since=0, now=9) == 3
    assert revision_of(source(), GOOD, since=0, now=9) == 9
    assert revision_of(source(reported(revision=12)), GOOD, since=0, now=9) == 9  # NATS was reset


def test_a_process_that_died_between_bundle_and_status_claims_nothing_about_the_new_form() -> None:
    assert revision_of(source(reported(), generation=2), GOOD, since=0, now=9) == 9  # edited
    assert revision_of(source(reported()), LAST_GOOD, since=0, now=9) == 9  # another verdict
    assert revision_of(source(reported()), REFUSED, since=0, now=9) == 0  # none of it is in force
