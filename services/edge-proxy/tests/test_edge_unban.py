"""A lifted ban: the address is heard again, and not held to what it did before."""

from callwarden.edge_proxy.core.counters import EdgeCounters, EdgeExcess
from callwarden.edge_proxy.core.rules import Rules
from callwarden.kernel.clock import MonoS
from callwarden.policy.bundle import Document, PolicySet

HOST = "192.0.2.66"


def test_an_address_that_is_pardoned_starts_from_zero() -> None:
    policies = PolicySet.build(1, [Document("few", {"authFailures": {"perAddress": {"max": 3}}})])
    counters = EdgeCounters(Rules.compile(policies.for_realm(""), 1))
    for second in range(4):
        counters.failed(HOST, 5060, "alice", MonoS(float(second)))
    assert counters.message(HOST, MonoS(5.0)) is EdgeExcess.RATE
    counters.forget(HOST)
    assert counters.message(HOST, MonoS(6.0)) is None
    (report,) = counters.take_report(MonoS(7.0))
    assert (report.messages, report.endpoints) == (1, ())
