"""What is said of a policy: conditions, revision, who runs it, and which turns are worth an event."""

from typing import Any

import pytest

from callwarden.policy.bundle import Document
from callwarden.security_policy_operator.core.plan import Source, Verdict
from callwarden.security_policy_operator.core.status import (
    BEHIND_S,
    Ack,
    Held,
    Json,
    moment_of,
    revision_of,
    simple_status,
    status_of,
    transitions,
)

NOW_S = 1_767_225_600.0
DOCUMENT = Document("house", {"lines": {"max": 3}}, namespace="default")
GOOD = Verdict(True, "Valid", "The policy is right.", DOCUMENT)
REFUSED = Verdict(False, "Invalid", "spec.lines.max: is wrong", None)
STANDS_IN = Verdict(False, "Invalid", "spec.lines.max: is wrong", DOCUMENT)


def source(status: Json | None = None, generation: int = 1) -> Source:
    body: Json = {"kind": "SecurityPolicy", "metadata": {"name": "house", "generation": generation}}
    return Source({**body, **({"status": status} if status is not None else {})})


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
        (STANDS_IN, (5, 5), ("False", "NotAccepted"), ("True", "LastGoodInForce")),
    ],
)
def test_conditions_say_whether_it_is_right_and_who_enforces_it(
    verdict: Verdict, running: tuple[int, ...], applied: tuple[str, str], degraded: tuple[str, str]
) -> None:
    held = Held(5 if verdict.document else 0, NOW_S)
    status = status_of(source(), verdict, held, acks(*running), NOW_S)
    assert conditions(status) == {
        "Accepted": (str(verdict.accepted), verdict.reason),
        "Applied": applied,
        "Degraded": degraded,
    }


def test_pods_are_counted_by_service() -> None:
    status = status_of(source(), GOOD, Held(5, NOW_S), [*acks(5, 4, service="auth"), *acks(7)], NOW_S)
    assert status["services"] == [
        {"name": "auth", "pods": 2, "running": 1},
        {"name": "edge-proxy", "pods": 1, "running": 1},
    ]


def test_pods_that_stay_behind_are_named_after_a_while() -> None:
    late_s = NOW_S + BEHIND_S + 1
    status = status_of(source(), GOOD, Held(5, NOW_S), acks(4), late_s)
    assert conditions(status)["Degraded"] == ("True", "PodsBehind")


def test_a_condition_keeps_its_time_until_its_status_turns() -> None:
    first = status_of(source(), GOOD, Held(5, NOW_S), acks(4), NOW_S)
    second = status_of(source(first), GOOD, Held(5, NOW_S), acks(5), NOW_S + 60)
    times = {one["type"]: one["lastTransitionTime"] for one in second["conditions"]}
    assert times == {
        "Accepted": moment_of(NOW_S),
        "Applied": moment_of(NOW_S + 60),
        "Degraded": moment_of(NOW_S),
    }
    assert status_of(source(second), GOOD, Held(5, NOW_S), acks(5), NOW_S + 90) == second  # nothing to write


def test_only_turns_are_events() -> None:
    first = status_of(source(), GOOD, Held(5, NOW_S), acks(5), NOW_S)
    assert [event[:2] for event in transitions(source(), first)] == [("Normal", "Accepted"), ("Normal", "Applied")]
    assert transitions(source(first), first) == []
    refused = status_of(source(first, 2), STANDS_IN, Held(5, NOW_S), acks(5), NOW_S)
    assert [event[:2] for event in transitions(source(first, 2), refused)] == [
        ("Warning", "Invalid"),
        ("Warning", "LastGoodInForce"),
    ]


def test_that_an_edit_holds_is_an_event_though_nothing_turns() -> None:
    first = status_of(source(), GOOD, Held(5, NOW_S), acks(5), NOW_S)
    edited = status_of(source(first, 2), GOOD, Held(6, NOW_S), acks(6), NOW_S)
    assert [event[:2] for event in transitions(source(first, 2), edited)] == [("Normal", "Applied")]


def declared(status: Json | None = None) -> Source:
    body: Json = {"kind": "Ban", "metadata": {"name": "guest", "generation": 1}}
    return Source({**body, **({"status": status} if status is not None else {})})


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
def test_of_a_resource_that_a_service_carries_out_the_reason_stands_where_it_belongs_and_is_told_once(
    reason: str, accepted: bool, applied: bool, said: list[tuple[str, str]], events: list[tuple[str, str]]
) -> None:
    status = simple_status(declared(), reason, "why", NOW_S, accepted=accepted, applied=applied)
    assert list(conditions(status).values()) == said
    assert [event[:2] for event in transitions(declared(), status)] == events
    assert transitions(declared(status), status) == []


def said(**changes: Any) -> Json:
    status = status_of(source(), GOOD, Held(3, NOW_S), acks(3), NOW_S)
    return {**status, **changes}


def test_the_revision_is_the_one_that_the_writer_remembers() -> None:
    assert revision_of(source(said()), GOOD, since=4, now=9) == 4


def test_without_memory_the_status_is_believed_if_it_speaks_of_the_same_form() -> None:
    assert revision_of(source(said()), GOOD, since=0, now=9) == 3
    assert revision_of(source(), GOOD, since=0, now=9) == 9
    assert revision_of(source(said(revision=12)), GOOD, since=0, now=9) == 9  # NATS has begun anew


def test_who_died_between_bundle_and_status_leaves_no_claim_about_the_new_form() -> None:
    assert revision_of(source(said(), generation=2), GOOD, since=0, now=9) == 9  # edited
    assert revision_of(source(said()), STANDS_IN, since=0, now=9) == 9  # another verdict
    assert revision_of(source(said()), REFUSED, since=0, now=9) == 0  # nothing of it holds
