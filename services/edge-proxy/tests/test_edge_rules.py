"""Whose rules apply: each served realm's own, and the first one's to anything else."""

from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.policy.bundle import Document, PolicySet


def test_each_realm_served_has_its_own_rules_and_any_other_name_the_first_ones() -> None:
    policies = PolicySet.build(
        7,
        [
            Document(name, {"realm": f"{name}.example", "session": {"ringTimeout": seconds}})
            for name, seconds in (("a", 10), ("b", 20), ("unserved", 30))
        ],
    )
    book = RuleBook(policies, ("a.example", "b.example"))
    names = ("a.example", "b.example", "unserved.example", "")
    assert [book.for_realm(name).ring_timeout_s for name in names] == [10, 20, 10, 10]
    assert {book.for_realm(name).revision for name in names} == {7}
    assert book.for_realm("b.example") is book.for_realm("b.example")  # compiled once
