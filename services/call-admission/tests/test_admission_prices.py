"""By what accounts are priced, on real processes: their own deck or their reseller's, and how often rating is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.rating.v1 import rating_pb2
from callwarden.call_admission.admission.adapters.quotes_grpc import SERVICE, GrpcQuotes
from callwarden.call_admission.model.calls import Pricing, Quote
from callwarden.common.rpc.client import unary
from callwarden.common.rpc.stream import StreamPool
from callwarden.kernel.errors import Invalid
from callwarden.kernel.verdict import Reason
from callwarden.limits.rendezvous import ranking
from callwarden.local.system import LocalSystem
from callwarden.testing.edges import Edges, TrackedCall
from callwarden.testing.operator import OperatorClient
from callwarden.testing.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

AT_S = 1_800_000_000.0
HEAD = "prefix,description,rate\n"
EXACT = """
apiVersion: callwarden.io/v1
kind: SecurityPolicy
metadata: {name: exact}
spec: {billing: {exactMatch: 1}}
"""


@asynccontextmanager
async def running(state_dir: Path) -> AsyncIterator[tuple[LocalSystem, OperatorClient]]:
    services = {"rating", "call-admission", "administration", "payment", "auth"}
    async with LocalSystem(state_dir, services=services) as system, OperatorClient(system) as operator:
        yield system, operator


async def create(operator: OperatorClient, name: str, **more: Any) -> str:
    account = pb.Account(**{"name": name, "realm": "north.example", "type": "enduser", "currency": "EUR"} | more)
    created = await unary(operator.accounts.CreateAccount, pb.CreateAccountRequest(account=account))
    return str(created.id)


@pytest.mark.setting("vgetpriceexactmatch")
async def test_a_resellers_accounts_are_priced_by_its_deck_and_exactly_where_policy_says_so(state_dir: Path) -> None:
    async with (
        running(state_dir) as (system, operator),
        Edges(system) as edges,
    ):
        await edges.connected()
        await operator.deck("wholesale", f"{HEAD}49,Germany,0.60\n")
        await operator.deck("retail", f"{HEAD}49,Germany,1.20\n")
        await operator.carrier("192.0.2.1:5060")
        # A carrier that tells Berlin's mobiles apart, which the decks don't.
        await unary(operator.rating.SetRoute, rating_pb2.SetRouteRequest(prefix="4915", trunk="carrier"))
        await create(operator, "north", type="reseller", deck="wholesale")
        members = {
            "by-reseller": await create(operator, "nora", parent="north"),
            "by-own": await create(operator, "nils", parent="north", deck="retail"),
            "alone": await create(operator, "olga", deck="retail"),
            "by-nobody": await create(operator, "otto"),
        }

        async def price(who: str, number: str = "493012345") -> int | str:
            """Micros held for the first minute, or why none."""
            before = (await operator.get(members[who])).held_micros
            call = TrackedCall(members[who], number)
            await edges.admit(call, 0)
            if call.refused is not None:
                return str(call.refused.reason)
            assert call.is_admitted
            return int((await operator.get(members[who])).held_micros - before)

        assert await price("by-reseller") == 600_000
        assert await price("by-own") == 1_200_000
        assert await price("alone") == 1_200_000
        assert await price("by-nobody") == "no-rate"
        assert await price("by-reseller", "4915012345") == 600_000

        await operator.apply_policy(EXACT)

        async def refused() -> bool:
            return await price("by-reseller", "4915012345") == "no-rate"

        await eventually(refused)
        assert await price("by-own", "4915012345") == "no-rate"
        assert await price("alone", "4915012345") == 1_200_000
        assert await price("by-reseller") == 600_000

        with pytest.raises(Invalid, match="pays in EUR"):
            await create(operator, "uma", parent="north", currency="USD")
        with pytest.raises(Invalid, match=r"north\.example"):
            await create(operator, "ute", parent="north@north.example", realm="south.example")
        with pytest.raises(Invalid, match="charges in EUR"):
            await create(operator, "usa", type="reseller", deck="wholesale", currency="USD")


async def test_rating_is_asked_once_for_all_numbers_that_it_answers_alike(state_dir: Path) -> None:
    async with (
        running(state_dir) as (system, operator),
        StreamPool(
            SERVICE, system.targets("rating"), ranking, credentials=system.credentials("call-admission")
        ) as pool,
    ):
        await operator.deck(csv=f"{HEAD}49,Germany,0.06\n4930,Berlin,0.12\n44,Britain,0.30\n")
        await operator.carrier("192.0.2.1:5060")
        quotes = GrpcQuotes(pool, 1_000)
        retail = Pricing("retail", realm="north.example")

        async def prefix(number: str, pricing: Pricing = retail) -> str:
            known = quotes.known(pricing, number, AT_S)
            found = known or await quotes.ask(pricing, number, AT_S)
            return found.prefix if isinstance(found, Quote) else found.reason.value

        for last in range(100):
            assert await prefix(f"4930{last:06d}") == "4930"
            assert await prefix(f"4989{last:06d}") == "49"
            assert await prefix(f"4930{last:03d}") == "4930"
            assert await prefix(f"4420{last:06d}") == "44"
        assert (quotes.asked, quotes.found) == (3, 397)
        # Whoever is priced by anything else is asked for anew, and a no holds for the very number.
        assert await prefix("4930000000", Pricing("retail", "retail", "north.example", is_resellers=True)) == "4930"
        assert await prefix("3312345678") == await prefix("3312345679") == Reason.NO_RATE.value
        assert await prefix("3312345679") == Reason.NO_RATE.value
        assert quotes.asked == 6
        # Prices change: nothing that was said before counts.
        quotes.forget()
        await operator.deck(csv=f"{HEAD}4,Europe,0.60\n")
        assert await prefix("4930000000") == await prefix("4420000000") == "4"
        known = quotes.known(retail, "4989000000", AT_S)
        assert isinstance(known, Quote)
        assert (known.exact, known.parent_priced) == (True, False)
