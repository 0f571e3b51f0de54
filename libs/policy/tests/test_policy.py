"""Policies are taken whole or refused with the field named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.kernel.clock import UnixS
from callwarden.policy.bundle import BadPolicy, Document, PolicySet, default_set, finish, parse_yaml
from callwarden.policy.changes import changes
from callwarden.policy.values import DURATION_S_MAX, format_duration, parse_duration


def policy(name: str = "p", **spec: object) -> Document:
    return Document.from_object(
        {"apiVersion": "callwarden.io/v1", "kind": "SecurityPolicy", "metadata": {"name": name}, "spec": spec}
    )


def test_a_field_that_is_not_set_has_the_catalogues_default() -> None:
    spec = default_set().for_realm("anything.example")
    assert spec.lines.max == 5
    assert spec.messages.per_address.max == 39_000
    assert spec.messages.per_address.period == 180
    assert spec.fraud.block_premium


def test_profile_hardened_changes_what_the_catalogue_says_and_the_user_can_override_it() -> None:
    merged = PolicySet.build(1, [policy(profile="Hardened", authFailures={"perAddress": {"max": 7}})]).for_realm("")
    assert merged.messages.per_address.max == 6_000
    assert merged.authentication.digest.algorithms == 2
    assert merged.auth_failures.per_address.max == 7
    assert merged.auth_failures.per_known_endpoint.max == 20


def test_a_realms_policy_overrides_the_general_one_and_priority_decides_between_equals() -> None:
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


def test_a_realm_is_the_same_in_whatever_case_it_is_written() -> None:
    """Accounts and edges have theirs in lower case."""
    policies = PolicySet.build(
        1,
        [
            policy("upper", realm="A.Example", lines={"max": 2}),
            policy("lower", realm="a.example", priority=1, session={"ringTimeout": "30s"}),
        ],
    )
    assert policies.realms == ("", "a.example")
    for written in ("a.example", "A.Example", "A.EXAMPLE"):
        spec = policies.for_realm(written)
        assert (spec.realm, spec.lines.max, spec.session.ring_timeout) == ("a.example", 2, 30)


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
def test_an_invalid_field_is_refused_by_its_path(spec: str, field: str) -> None:
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
def test_something_other_than_a_policy_is_refused_in_our_own_words(text: str) -> None:
    with pytest.raises(BadPolicy):
        parse_yaml(text)


@given(st.text(max_size=200))
def test_any_text_is_policies_or_a_bad_policy(text: str) -> None:
    try:
        parse_yaml(text)
    except BadPolicy as error:
        assert error.problems


def test_applying_replaces_by_name_and_raises_the_revision() -> None:
    first = default_set().with_applied([policy("p", lines={"max": 1})])
    second = first.with_applied([policy("p", lines={"max": 2})])
    assert (second.revision, len(second.documents), second.for_realm("").lines.max) == (2, 1, 2)
    assert second.without(policy("p").key).for_realm("").lines.max == 5


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
def test_a_multiplier_below_four_gets_a_warning(mode: int, multiplier: int, warned: bool) -> None:
    spec = {"spend": {"dynamicDaily": {"mode": mode, "multiplier": multiplier}}}
    policies = PolicySet.build(1, [Document("base", spec), Document("customers", {"realm": "example.org"})])
    assert policies.for_realm("").spend.dynamic_daily.multiplier == multiplier
    assert [warning.field for warning in policies.warnings] == ["spec.spend.dynamicDaily.multiplier"] * warned


def cluster(name: str = "base", **spec: object) -> Document:
    return Document.from_object(
        {"apiVersion": "callwarden.io/v1", "kind": "ClusterSecurityPolicy", "metadata": {"name": name}, "spec": spec}
    )


def test_a_cluster_policy_lies_below_all_others_whatever_its_priority() -> None:
    policies = PolicySet.build(
        1,
        [
            cluster(priority=1_000, lines={"max": 8}, session={"ringTimeout": "30s", "callTimeout": "1h"}),
            policy("all", session={"ringTimeout": "40s"}),
            policy("one", realm="a.example", lines={"max": 2}),
        ],
    )
    here, elsewhere = policies.for_realm("a.example"), policies.for_realm("b.example")
    assert (here.lines.max, here.session.ring_timeout, here.session.call_timeout) == (2, 40, 3_600)
    assert (elsewhere.lines.max, elsewhere.session.ring_timeout) == (8, 40)


def test_both_kinds_and_two_namespaces_may_use_one_name() -> None:
    both = default_set().with_applied([cluster("p", lines={"max": 8}), policy("p", session={"ringTimeout": "30s"})])
    again = both.with_applied([Document("p", {"lines": {"max": 9}}, namespace="voice")])
    assert len(again.documents) == 3
    assert again.without(policy("p").key).for_realm("").session.ring_timeout == 120
    assert [parse_yaml(document.to_json()) for document in again.documents] == [[one] for one in again.documents]


def test_a_rule_across_fields_applies_to_the_merged_settings() -> None:
    minimum = policy("b", spend={"slice": {"minimum": "90s"}})
    assert PolicySet.build(1, [policy("a", spend={"slice": {"first": "2m"}}), minimum]).for_realm("")
    with pytest.raises(BadPolicy) as caught:
        PolicySet.build(1, [minimum])
    assert [problem.field for problem in caught.value.problems] == ["spec.spend.slice.minimum"]


def test_realms_share_the_groups_that_their_own_policies_leave_alone() -> None:
    policies = PolicySet.build(
        1,
        [
            cluster(lines={"max": 8}, session={"ringTimeout": "40s"}),
            policy("a", realm="a.example", lines={"maxOffPeak": 2}),
            policy("b", realm="b.example", lines={"max": 3}),
        ],
    )
    a, b, others = (policies.for_realm(realm) for realm in ("a.example", "b.example", "c.example"))
    assert (a.lines.max, a.lines.max_off_peak, b.lines.max, others.lines.max) == (8, 2, 3, 8)
    assert a.session is b.session is others.session


def test_a_set_is_built_in_one_step_for_each_realm() -> None:
    documents = [policy(f"p{number}", realm=f"r{number % 3}.example", priority=number) for number in range(9)]
    assert len(list(PolicySet.build_in_steps(1, documents))) == 4  # three realms and all others
    assert finish(PolicySet.build_in_steps(1, documents)) == PolicySet.build(1, documents)


NOON_S = UnixS(1_767_614_400.0)  # 2026-01-05T12:00:00Z
TEST = {"profile": "StressTest", "stressTest": {"startsAt": "2026-01-05T12:00:00Z", "duration": "10m"}}


@pytest.mark.setting("stress-test")
def test_a_stress_test_turns_off_exactly_four_settings_for_its_time() -> None:
    base = cluster(profile="Hardened", autoBan={"mode": 1}, session={"maxPendingPerAddress": 20})
    policies = PolicySet.build(1, [base, policy("test", **TEST)])
    usual = policies.for_realm("").model_dump(mode="json", by_alias=True)
    during = policies.at(NOON_S).for_realm("").model_dump(mode="json", by_alias=True)
    assert [(one.path, one.before, one.after) for one in changes(policies, policies.at(NOON_S))] == [
        ("profile", "Hardened", "StressTest"),
        ("firewall.level", 5, 0),
        ("autoBan.mode", 1, 0),
        ("autoBan.scanningThreshold", 10, 0),
        ("session.maxPendingPerAddress", 20, 0),
    ]
    assert during != usual
    for moment in (NOON_S - 1, NOON_S + 600):
        assert policies.at(UnixS(moment)).for_realm("").model_dump(mode="json", by_alias=True) == usual
    assert [policies.next_change_s(UnixS(NOON_S + after)) for after in (-1, 0, 600)] == [NOON_S, NOON_S + 600, None]
    assert any("StressTest turns off" in warning.reason for warning in policies.warnings)


def test_a_stress_test_without_an_end_is_refused() -> None:
    with pytest.raises(BadPolicy) as caught:
        policy("test", profile="StressTest")
    assert [problem.field for problem in caught.value.problems] == ["spec.profile"]


@pytest.mark.parametrize(
    ("spec", "warned"),
    [
        ({"lines": {"max": 3}}, []),
        ({"network": {"maxKbps": 3_000}}, ["spec.network.maxKbps"]),
        # What services do anyway can be written down without a warning.
        ({"sip": {"dropMalformed": True}}, []),
        ({"sip": {"dropMalformed": False}}, ["spec.sip.dropMalformed"]),
        ({"routing": {"redirects": 0, "blockOtherDomains": 1}}, ["spec.routing.redirects"]),
        ({"profile": "Hardened"}, ["spec.profile"]),
        ({"lines": {"maxOffPeak": 3}}, ["spec.lines.maxOffPeak"]),
        ({"lines": {"maxOffPeak": 3, "peakHours": "Mon-Fri 08:00-20:00"}}, []),
    ],
)
def test_a_field_without_effect_gives_a_warning(spec: dict[str, object], warned: list[str]) -> None:
    assert [warning.field for warning in PolicySet.build(1, [policy(**spec)]).warnings] == warned  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ('lines: {max: "5"}', "spec.lines.max"),
        ("firewall: {level: true}", "spec.firewall.level"),
        ("spend: {daily: {endUser: 12.5}}", "spec.spend.daily.endUser"),
        ("modes: {lines: Off}", "spec.modes.lines"),
        ("fraud: {lists: !!set {a: null}}", "spec"),
        ("stressTest: {startsAt: 2026-01-05 12:00:00}", "spec"),
        ("firewall: {deny: ['fe80::1%eth0']}", "spec.firewall.deny.0"),
        ("fraud: {destinations: {blockCountries: [ß]}}", "spec.fraud.destinations.blockCountries.0"),
        ("fraud: {velocity: [{name: a}, {name: a}]}", "spec.fraud.velocity"),
        ("system: {maxCalls: 5, perRealm: {maxCalls: 6}}", "spec.system.perRealm"),
        ("session: {timers: 2m, minTimer: 3m}", "spec.session.minTimer"),
        ("payment: {limits: {minAmount: 300, maxAmount: '200.50'}}", "spec.payment.limits.minAmount"),
    ],
)
def test_values_mean_what_they_mean_to_kubernetes(spec: str, field: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_yaml(f"apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}")
    assert [problem.field for problem in caught.value.problems] == [field]
