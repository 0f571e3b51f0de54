"""A running system is given policies that nobody would write: each process takes every one, and calls go on after."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from accepted_policies import policy_sets
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from callwarden.api.policy.v1 import policy_pb2
from callwarden.common.bus import Bucket, Bus, Put
from callwarden.common.policy import BUNDLE_KEY, encode_bundle
from callwarden.local.services import SERVICES
from callwarden.policy.bundle import PolicySet, default_set
from callwarden.testing.operator import DEFAULT_REALM, PASSWORD
from callwarden.testing.phones import Phones
from callwarden.testing.waiting import eventually
from tests.integration.conftest import Site, Sites

ALL = {service.name for service in SERVICES}
SETS = 10  # a round; what a process makes of a policy beyond taking it is tried in tests/architecture


@dataclass
class Followed:
    """A system, and what its processes say that they enforce."""

    site: Site
    bus: Bus
    enforced: dict[str, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    revisions: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def listen(self) -> None:
        async for change in self.bus.kv(Bucket.POLICY_ACKS).watch():
            if isinstance(change, Put):
                ack = policy_pb2.Ack.FromString(change.value)
                self.enforced[ack.service] = ack.revision
                self.changed.set()

    async def apply(self, policies: PolicySet) -> None:
        """Returns when all enforce it."""
        revision = next(self.revisions)
        bundle = encode_bundle(PolicySet.build(revision, policies.documents), 0.0)
        await self.bus.kv(Bucket.POLICY).put(BUNDLE_KEY, bundle)
        async with asyncio.timeout(20):
            while {name for name, held in self.enforced.items() if held == revision} != ALL:
                await self.changed.wait()
                self.changed.clear()


@pytest_asyncio.fixture
async def followed(site: Sites) -> AsyncIterator[Followed]:
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(site())
        bus = await stack.enter_async_context(Bus(opened.system.nats_url, name="test"))
        world = Followed(opened, bus)
        listening = asyncio.create_task(world.listen())
        yield world
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.long
@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.generate],  # making it smaller would take minutes; the policies are printed
    suppress_health_check=list(HealthCheck),
)
@given(sets=st.lists(policy_sets(realms=(DEFAULT_REALM, "other.example")), min_size=SETS, max_size=SETS))
async def test_every_service_takes_any_policy_that_is_taken_and_calls_go_on(
    followed: Followed, sets: list[PolicySet]
) -> None:
    for policies in sets:
        await followed.apply(policies)
    await followed.apply(default_set())
    site, name = followed.site, f"alice-{next(followed.revisions)}"
    await site.operator.account(name, credit_micros=1_000_000)
    async with Phones(site.system.sip_address) as phones:
        call = phones.call(name, PASSWORD, DEFAULT_REALM, "493012345")
        assert await asyncio.wait_for(call.status, 20) == 200
        await phones.hang_up(call)

    async def settled() -> bool:
        return [each.state for each in await site.operator.calls(name)] == ["settled"]

    await eventually(settled)
