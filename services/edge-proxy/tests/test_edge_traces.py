"""Traces begin at the edge: each call has one of its own, and a share of them is sampled."""

import os
import re

import pytest
from edge_world import EdgeWorld

from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.rules import RuleBook
from callwarden.sip.transaction import TransactionLayer


def context(sampled_share: float) -> Context:
    world = EdgeWorld()
    book = RuleBook(world.policies, world.proxy.realms)
    layer = TransactionLayer(tag_secret=world.keys.tags[:32])
    return Context(world.proxy, world.keys, book, layer, os.urandom, sampled_share)


def test_every_trace_is_another_one_in_the_form_of_the_standard() -> None:
    edge = context(0.5)
    made = {edge.new_traceparent() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", one) for one in made)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1_000, 1_000)])
def test_the_share_of_sampled_traces_is_as_set(share: float, low: int, high: int) -> None:
    edge = context(share)
    assert low <= sum(edge.new_traceparent().endswith("-01") for _ in range(1_000)) <= high
