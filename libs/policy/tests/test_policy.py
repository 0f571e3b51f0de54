"""Policies are taken whole or refused with the field named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.policy.bundle import BadPolicy, Document, PolicySet, default_set, parse_yaml
from callwarden.policy.values import DURATION_S_MAX, format_duration, parse_duration


def policy(name: str = "p", **spec: object) -> Document:
    return Document.from_object(
        {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": name}, "spec": spec}
    )


def test_what_is_not_written_has_the_catalogues_default() -> None:
    spec = default_set().for_realm("anything.example")
    assert spec.lines.max == 5
    assert spec.messages.per_address.max == 39_000
    assert spec.messages.per_address.period == 180
    assert spec.fraud.block_premium


def test_profile_hardened_changes_what_the_catalogue_says_and_the_user_still_wins() -> None:
    merged = PolicySet.build(1, [policy(profile="Hardened", authFailures={"perAddress": {"max": 7}})]).for_realm("")
    assert merged.messages.per_address.max == 6_000
    assert merged.authentication.digest.algorithms == 2
    assert merged.auth_failures.per_address.max == 7
    assert merged.auth_failures.per_known_endpoint.max == 20


def test_a_realms_policy_goes_over_the_general_one_and_priority_decides_between_equals() -> None:
    policies = PolicySet.build(
        1,
        [
            policy("base", lines={"max": 9}, session={"ringTimeout": "30s"}),
            policy("a-low", realm="a.example", priority=1, lines={"max": 2}),
            policy("a-high", realm="a.example", priority=5, lines={"max": 3}),
        ],
    )
    assert policies.for_realm("a.example").lines.max == 3
    assert policies.for_realm("a.example").session.ring_timeout == 30
    assert policies.for_realm("b.example").lines.max == 9


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("lines: {max: -1}", "spec.lines.max"),
        ("lines: {maximum: 3}", "spec.lines.maximum"),
        ("session: {ringTimeout: soon}", "spec.session.ringTimeout"),
        ("spend: {daily: {endUser: 1.0000001}}", "spec.spend.daily.endUser"),
        ("spend: {slice: {first: 10s, minimum: 20s}}", "spec.spend.slice.minimum"),
        ("firewall: {deny: [10.0.0.300]}", "spec.firewall.deny.0"),
        ("modes: {lines: Perhaps}", "spec.modes.lines"),
        ("realm: 'a b'", "spec.realm"),
        ("profile: Soft", "spec.profile"),
    ],
)
def test_a_bad_field_is_refused_by_its_path(spec: str, field: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_yaml(f"apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}")
    assert [problem.field for problem in caught.value.problems] == [field]
    assert caught.value.problems[0].reason


def test_every_problem_of_a_document_is_named_at_once() -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {lines: {max: x}}\nextra: 1")
    assert {problem.field for problem in caught.value.problems} == {
        "apiVersion",
        "kind",
        "metadata.name",
        "spec.lines.max",
        "extra",
    }


@pytest.mark.parametrize(
    "text", ["", "---", "a: [", "- 1", "just text", "a: &x 1\nb: *x", "\x00", "!!python/object:os.system {}"]
)
def test_what_is_no_policy_is_refused_in_our_words(text: str) -> None:
    with pytest.raises(BadPolicy):
        parse_yaml(text)


@given(st.text(max_size=200))
def test_any_text_is_policies_or_a_bad_policy(text: str) -> None:
    try:
        parse_yaml(text)
    except BadPolicy as error:
        assert error.problems


def test_applying_replaces_by_name_and_counts_the_revision_on() -> None:
    first = default_set().with_applied([policy("p", lines={"max": 1})])
    second = first.with_applied([policy("p", lines={"max": 2})])
    assert (second.revision, len(second.documents), second.for_realm("").lines.max) == (2, 1, 2)
    assert second.without("p").for_realm("").lines.max == 5
    assert first.digest != second.digest


def test_a_document_survives_its_json() -> None:
    document = policy("p", spend={"daily": {"endUser": "12.50"}}, session={"callTimeout": "1h30m"})
    (again,) = parse_yaml(document.to_json())
    assert again == document
    spec = PolicySet.build(1, [again]).for_realm("")
    assert (spec.spend.daily.end_user, spec.session.call_timeout) == (12_500_000, 5_400)


@given(st.integers(0, DURATION_S_MAX))
def test_a_duration_survives_being_written(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.setting("maxdyndailycredit_multiplier")
@pytest.mark.parametrize(("mode", "multiplier", "warned"), [(1, 3, True), (2, 1, True), (1, 4, False), (0, 3, False)])
def test_a_multiplier_below_four_is_taken_with_a_warning(mode: int, multiplier: int, warned: bool) -> None:
    spec = {"spend": {"dynamicDaily": {"mode": mode, "multiplier": multiplier}}}
    policies = PolicySet.build(1, [Document("base", spec), Document("customers", {"realm": "example.org"})])
    assert policies.for_realm("").spend.dynamic_daily.multiplier == multiplier
    assert [warning.field for warning in policies.warnings] == ["spec.spend.dynamicDaily.multiplier"] * warned
