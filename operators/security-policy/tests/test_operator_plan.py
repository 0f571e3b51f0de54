"""Which policies are in force: each on its own, two that contradict each other, all together, and the last good one."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.common.bus.streams import BUCKETS, Bucket
from callwarden.policy.bundle import DOCUMENTS_MAX, Document, PolicySet, default_set
from callwarden.security_policy_operator.core import plan as planning
from callwarden.security_policy_operator.core.plan import BUNDLE_BYTES_MAX, PolicyPlan, unknown
from callwarden.security_policy_operator.core.realms import RealmGrants
from callwarden.security_policy_operator.core.resource import ManagedResource

NOWHERE = {"lines": {"timeZone": "Mars/Phobos"}}  # valid for the schema, not for a process that knows time zones


def source(
    name: str, spec: dict[str, Any], *, age: int = 0, kind: str = "SecurityPolicy", **metadata: Any
) -> ManagedResource:
    """`age`: the higher, the later it was made."""
    body = {
        "apiVersion": "callwarden.io/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            **({"namespace": "default"} if kind == "SecurityPolicy" else {}),
            "creationTimestamp": f"2026-01-01T00:00:{age:02}Z",
            "generation": 1,
            **metadata,
        },
        "spec": spec,
    }
    return ManagedResource(body)


def plan(sources: Iterable[ManagedResource], applied: PolicySet, *bindings: dict[str, Any]) -> PolicyPlan:
    """In the release's namespace "default", with these RealmBindings."""
    return planning.plan(sources, applied, RealmGrants.of("default", bindings))


def held(*sources: ManagedResource, revision: int = 1) -> PolicySet:
    return PolicySet.build(revision, plan(sources, default_set()).documents)


def verdicts(made: PolicyPlan) -> dict[str, tuple[bool, str]]:
    return {key.name: (verdict.accepted, verdict.reason) for key, verdict in made.verdicts.items()}


def specs(made: PolicyPlan) -> dict[str, Any]:
    return {document.name: document.spec for document in made.documents}


def test_policies_that_set_different_fields_all_apply() -> None:
    made = plan([source("a", {"lines": {"max": 3}}), source("b", {"spend": {"daily": {"endUser": 5}}})], default_set())
    assert verdicts(made) == {"a": (True, "Valid"), "b": (True, "Valid")}


def test_an_invalid_policy_names_its_field_and_affects_no_other() -> None:
    made = plan([source("bad", NOWHERE), source("good", {"lines": {"max": 3}}, age=1)], default_set())
    assert verdicts(made) == {"bad": (False, "Invalid"), "good": (True, "Valid")}
    (key,) = (key for key in made.verdicts if key.name == "bad")
    assert "spec.lines.timeZone" in made.verdicts[key].message
    assert made.verdicts[key].document is None
    assert list(specs(made)) == ["good"]


def test_a_policy_that_became_invalid_stays_in_force_in_its_last_good_form() -> None:
    before = held(source("a", {"lines": {"max": 3}}))
    made = plan([source("a", NOWHERE)], before)
    assert verdicts(made) == {"a": (False, "Invalid")}
    assert specs(made) == {"a": {"lines": {"max": 3}}}
    assert not made.differs(before)
    (verdict,) = made.verdicts.values()
    assert "last good version stays" in verdict.message


def test_of_two_conflicting_policies_the_older_applies_and_the_other_names_it() -> None:
    elder, younger = source("z", {"lines": {"max": 3}}), source("a", {"lines": {"max": 4}}, age=1)
    for order in ([elder, younger], [younger, elder]):
        made = plan(order, default_set())
        assert verdicts(made) == {"z": (True, "Valid"), "a": (False, "Conflict")}
        message = next(verdict.message for verdict in made.verdicts.values() if not verdict.accepted)
        assert "spec.lines.max" in message
        assert "SecurityPolicy default/z" in message


@pytest.mark.parametrize(
    "other",
    [
        source("b", {"lines": {"max": 4}, "priority": 1}, age=1),
        source("b", {"lines": {"max": 4}, "realm": "a.example"}, age=1),
        source("b", {"lines": {"max": 3}}, age=1),
        source("b", {"lines": {"max": 4}}, age=1, kind="ClusterSecurityPolicy"),
    ],
    ids=["another priority", "another realm", "the same value", "the cluster's base"],
)
def test_in_another_place_or_with_the_same_value_there_is_no_conflict(other: ManagedResource) -> None:
    made = plan([source("a", {"lines": {"max": 3}}), other], default_set())
    assert verdicts(made) == {"a": (True, "Valid"), "b": (True, "Valid")}


def test_a_policy_edited_into_a_conflict_keeps_its_last_good_form_unless_that_conflicts() -> None:
    elder = source("a", {"lines": {"max": 3}})
    before = held(elder, source("b", {"spend": {"daily": {"endUser": 5}}}, age=1))
    made = plan([elder, source("b", {"lines": {"max": 4}}, age=1)], before)
    assert verdicts(made)["b"] == (False, "Conflict")
    assert specs(made)["b"] == {"spend": {"daily": {"endUser": 5}}}


def test_of_policies_invalid_only_together_the_new_one_is_refused() -> None:
    realm = {"realm": "a.example"}
    base = source("base", {"spend": {"slice": {"first": 60}}}, age=1)
    new = source("new", realm | {"spend": {"slice": {"minimum": 90}}})  # older, but not in force yet
    made = plan([new, base], held(base))
    assert verdicts(made) == {"base": (True, "Valid"), "new": (False, "Invalid")}
    assert (
        "spec.slice.minimum" in made.verdicts[new.key].message or "spec.spend.slice" in made.verdicts[new.key].message
    )


def test_a_policy_that_needs_another_applies_with_it_whatever_else_is_invalid() -> None:
    # Alone `needs` is wrong: the least talk time would be above the first slice.
    needs = source("needs", {"spend": {"slice": {"minimum": 90}}})
    gives = source("gives", {"spend": {"slice": {"first": 120}}, "priority": 1}, age=1)
    wrong = source("wrong", {"spend": {"slice": {"minimum": 3_000}}, "realm": "b.example"}, age=2)
    assert verdicts(plan([needs, gives], default_set())) == {"needs": (True, "Valid"), "gives": (True, "Valid")}
    made = plan([needs, gives, wrong], default_set())
    assert verdicts(made) == {"needs": (True, "Valid"), "gives": (True, "Valid"), "wrong": (False, "Invalid")}


def test_a_policy_that_another_needs_stays_in_its_last_good_form() -> None:
    needs = source("needs", {"spend": {"slice": {"minimum": 90}}})
    gives = source("gives", {"spend": {"slice": {"first": 120}}, "priority": 1}, age=1)
    before = held(needs, gives)
    less = source("gives", {"spend": {"slice": {"first": 70}}, "priority": 1}, age=1, generation=2)
    made = plan([needs, less], before)
    assert verdicts(made) == {"needs": (True, "Valid"), "gives": (False, "Invalid")}
    assert not made.differs(before)


def test_a_policy_that_is_being_deleted_does_not_count() -> None:
    leaving = source("a", {"lines": {"max": 3}}, deletionTimestamp="2026-01-02T00:00:00Z")
    made = plan([leaving, source("b", {"lines": {"max": 4}}, age=1)], held(source("a", {"lines": {"max": 3}})))
    assert verdicts(made) == {"b": (True, "Valid")}
    assert list(specs(made)) == ["b"]


def test_when_the_bundle_is_full_the_younger_policies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "DOCUMENTS_MAX", 2)
    made = plan([source(str(n), {"realm": f"{n}.example"}, age=n) for n in range(3)], default_set())
    assert verdicts(made) == {"0": (True, "Valid"), "1": (True, "Valid"), "2": (False, "TooMany")}
    monkeypatch.setattr(planning, "DOCUMENTS_MAX", DOCUMENTS_MAX)
    monkeypatch.setattr(planning, "BUNDLE_BYTES_MAX", 400)
    made = plan([source(str(n), {"realm": f"{n}.example"}, age=n) for n in range(4)], default_set())
    assert verdicts(made)["3"] == (False, "TooMany")
    assert verdicts(made)["0"] == (True, "Valid")


def test_a_full_bundle_fits_into_its_bucket() -> None:
    # Each policy has its name and two tags of protobuf on top; the bundle its revision, time and digest.
    assert BUCKETS[Bucket.POLICY].value_bytes_max > BUNDLE_BYTES_MAX + DOCUMENTS_MAX * (1 + 4) + 200


def test_policies_without_a_resource_are_reported() -> None:
    before = PolicySet.build(1, [Document("by-hand", {"lines": {"max": 1}}, namespace="default")])
    assert unknown(before, set()) == ["SecurityPolicy default/by-hand"]
    assert unknown(before, {before.documents[0].key}) == []


# ------------------------------------------------------------------ realms of a namespace

OURS = {"spec": {"namespaces": ["sales"], "realms": ["sales.example"]}, "metadata": {"name": "sales"}}


def of_sales(name: str, spec: dict[str, Any], **more: Any) -> ManagedResource:
    return source(name, spec, namespace="sales", **more)


@pytest.mark.cases
@pytest.mark.parametrize(
    ("spec", "bindings", "applies"),
    [
        ({"realm": "sales.example"}, [OURS], True),
        ({"realm": "Sales.Example"}, [OURS], True),
        ({"realm": "other.example"}, [OURS], False),
        ({}, [OURS], False),  # all realms
        ({"realm": "sales.example"}, [], False),
    ],
)
def test_a_policy_applies_where_its_namespace_may_act(
    spec: dict[str, Any], bindings: list[dict[str, Any]], applies: bool
) -> None:
    made = plan([of_sales("a", spec)], default_set(), *bindings)
    (verdict,) = made.verdicts.values()
    assert (verdict.accepted, verdict.is_carried_out) == (True, applies)
    assert (verdict.document is not None, len(made.documents)) == (applies, int(applies))
    assert ("namespace sales" in verdict.denied) is not applies


@pytest.mark.cases
def test_a_policy_whose_namespace_may_no_longer_act_is_withdrawn_even_as_a_last_good_version() -> None:
    good = of_sales("a", {"realm": "sales.example", "lines": {"max": 3}})
    before = PolicySet.build(1, plan([good], default_set(), OURS).documents)
    assert len(before.documents) == 1
    for present in (good, of_sales("a", {"realm": "sales.example", **NOWHERE})):
        made = plan([present], before)
        assert made.documents == ()
        assert made.differs(before)
        assert plan([present], PolicySet.build(2, ()), OURS).verdicts[present.key].denied == ""  # granted again


@pytest.mark.cases
def test_an_edit_into_another_realm_is_refused_and_the_last_good_version_stays() -> None:
    before = PolicySet.build(1, plan([of_sales("a", {"realm": "sales.example"})], default_set(), OURS).documents)
    made = plan([of_sales("a", {"realm": "other.example"})], before, OURS)
    (verdict,) = made.verdicts.values()
    assert (verdict.is_carried_out, verdict.document) == (False, before.documents[0])
    assert "other.example" in verdict.denied


@pytest.mark.cases
def test_a_policy_that_is_not_allowed_is_in_nobodys_way() -> None:
    strange = [of_sales(str(n), {"realm": "other.example", "lines": {"max": n}}) for n in range(3)]
    mine = source("mine", {"realm": "other.example", "lines": {"max": 9}}, age=9)
    made = plan([*strange, mine], default_set(), OURS)
    assert specs(made) == {"mine": mine.body["spec"]}


# ------------------------------------------------------------------ whatever there is

SPECS = st.fixed_dictionaries(
    {},
    optional={
        "realm": st.sampled_from(["a.example", "b.example"]),
        "priority": st.integers(0, 2),
        "lines": st.sampled_from([{"max": 1}, {"max": 2}, {"timeZone": "Mars/Phobos"}, {}]),
        "spend": st.sampled_from([{"slice": {"first": first}} for first in (30, 90)])
        | st.sampled_from([{"slice": {"minimum": least}} for least in (20, 80, 100)]),
    },
)
CLUSTERS = st.dictionaries(st.sampled_from("abcdef"), st.tuples(SPECS, st.integers(0, 3)), max_size=6)


def sources_of(cluster: dict[str, tuple[dict[str, Any], int]]) -> list[ManagedResource]:
    return [source(name, spec, age=age) for name, (spec, age) in cluster.items()]


@settings(max_examples=80, deadline=None)
@given(CLUSTERS, CLUSTERS, st.randoms(use_true_random=False))
def test_any_resources_give_a_valid_set_that_stays_the_same(
    first: dict[str, tuple[dict[str, Any], int]], second: dict[str, tuple[dict[str, Any], int]], random: Any
) -> None:
    before = PolicySet.build(1, plan(sources_of(first), default_set()).documents)
    sources = sources_of(second)
    made = plan(sources, before)
    after = PolicySet.build(2, made.documents)  # BadPolicy, if it were wrong
    assert set(made.verdicts) == {one.key for one in sources}
    for one in sources:
        verdict = made.verdicts[one.key]
        in_force = next((document for document in made.documents if document.key == one.key), None)
        assert verdict.document == in_force
        if verdict.accepted:
            assert in_force is not None
            assert in_force.spec == one.body["spec"]
        else:
            assert verdict.message
            last = {document.key: document for document in before.documents}.get(one.key)
            assert in_force in (None, last)
    # The order in which the cluster lists them is nobody's business.
    random.shuffle(sources)
    assert plan(sources, before).verdicts == made.verdicts
    # And another look changes nothing.
    again = plan(sources, after)
    assert not again.differs(after)
    assert {key: one.accepted for key, one in again.verdicts.items()} == {
        key: one.accepted for key, one in made.verdicts.items()
    }


@settings(max_examples=60, deadline=None)
@given(CLUSTERS)
def test_an_invalid_policy_changes_nothing_for_the_others(
    cluster: dict[str, tuple[dict[str, Any], int]],
) -> None:
    alone = plan(sources_of(cluster), default_set())
    beside = plan([*sources_of(cluster), source("wrong", NOWHERE)], default_set())
    assert beside.documents == alone.documents
    assert {key: one for key, one in beside.verdicts.items() if key.name != "wrong"} == alone.verdicts
