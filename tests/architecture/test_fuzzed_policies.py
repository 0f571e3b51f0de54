"""Whatever policy is taken, every service can work by it: what each makes of a policy is tried here on policies that
nobody would write. That they swap it in, as processes, is in tests/integration/test_fuzzed_policies.py.
"""

from collections.abc import Callable
from typing import Final

from accepted_policies import policy_sets
from admission_line import Line, account, postpaid, reseller, snapshot
from edge_world import REALM, EdgeWorld
from hypothesis import given, settings

from callwarden.auth.core import digest
from callwarden.call_admission.admission.core.rules import RULES
from callwarden.call_admission.model.calls import Hold
from callwarden.call_admission.model.policy import AdmissionPolicies
from callwarden.common.policy import encode_bundle, parse_bundle
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.kernel.clock import MonoS, UnixS
from callwarden.local.services import SERVICES
from callwarden.policy.bundle import PolicySet
from callwarden.rate_guard.core.counters import AddressCounters, AddressReport, EndpointReport
from callwarden.rate_guard.core.limits import compile_limits
from callwarden.rating.core.unbilled import UnbilledSeverity
from callwarden.sip.message import Response

NOW_S: Final = UnixS(1_767_614_400.0)
REALMS: Final = (REALM, "example.org")


def edge_proxy(policies: PolicySet) -> None:
    """A call runs while it changes; another one is tried after; nothing is left of either."""
    world = EdgeWorld(realms=REALMS)
    alice, bob = world.registered("alice", "192.0.2.1"), world.registered("bob", "192.0.2.2")
    world.talk(alice, bob, "bob")
    world.edge.apply(RuleBook(policies, REALMS))
    first = alice.request("INVITE", f"sip:bob@{REALM}", call_id="after")
    alice.send(first)
    answer = alice.inbox.popleft() if alice.inbox else None
    if isinstance(answer, Response) and answer.status in (401, 407):
        alice.send(alice.with_credentials(first, answer))
    alice.send(b"nonsense")
    world.advance(200)
    world.edge.cut_all("test", world.mono_s, world.unix_s)
    world.advance(40)
    assert len(world.edge.calls) == 0


def auth(policies: PolicySet) -> None:
    for realm in policies.realms:
        assert digest.ALLOWED[policies.for_realm(realm).authentication.digest.algorithms]


def rate_guard(policies: PolicySet) -> None:
    for realm in policies.realms:
        limits = compile_limits(policies.for_realm(realm), ("192.0.2.0/24",))
        counters = AddressCounters(limits)
        counters.apply(limits)
        report = AddressReport("198.51.100.7", 100_000, 100_000, [EndpointReport(5060, "alice", 100_000, 0)])
        for excess in counters.count(report, MonoS(NOW_S)):
            assert excess.target.startswith("198.51.100.7")


def call_admission(policies: PolicySet) -> None:
    compiled = AdmissionPolicies(policies)
    for realm in policies.realms:
        policy = compiled.for_realm(realm)
        for caller in (account(realm=realm), postpaid(realm=realm)):
            line = Line(caller, policy, reseller=reseller())
            for _ in range(2):
                hold = line.call()
                if isinstance(hold, Hold):
                    extended = line.extend(hold)
                    line.end(extended if isinstance(extended, Hold) else hold, hold.granted_s)
            for rule in RULES:
                for use in rule.uses(snapshot(caller), policy):
                    assert use.remaining is None or use.remaining >= 0, rule.name


def rating(policies: PolicySet) -> None:
    for realm in policies.realms:
        assert UnbilledSeverity(policies.for_realm(realm).billing.not_billed_severity)


def payment(policies: PolicySet) -> None:
    """Does nothing by policy."""


BY: Final[dict[str, Callable[[PolicySet], None]]] = {
    "edge-proxy": edge_proxy,
    "auth": auth,
    "rate-guard": rate_guard,
    "call-admission": call_admission,
    "administration": call_admission,  # it compiles the same, to simulate calls
    "rating": rating,
    "payment": payment,
}


def test_every_service_is_tried() -> None:
    assert BY.keys() == {service.name for service in SERVICES}


@settings(max_examples=100, deadline=None)
@given(policy_sets(realms=REALMS))
def test_every_service_does_its_work_by_any_policy_that_is_taken(policies: PolicySet) -> None:
    """One test for all: making a policy takes longer than what they do with it."""
    come = parse_bundle(encode_bundle(policies, NOW_S))  # as they get it
    assert come == policies
    for held in (come, come.at(UnixS(NOW_S))):
        for work in BY.values():
            work(held)
