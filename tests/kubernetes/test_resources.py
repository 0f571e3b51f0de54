"""Trunks and price lists declared with kubectl: real call-admission and rating have what the resources say."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.rating.v1 import rating_pb2
from callwarden.common.rpc.client import unary
from callwarden.local.system import LocalSystem
from callwarden.testing import kube_tools
from callwarden.testing.operator import Operator
from callwarden.testing.waiting import eventually
from tests.kubernetes.cluster import BUILD_TIMEOUT_S, missing
from tests.kubernetes.conftest import Site
from tests.kubernetes.test_operator import conditions, message, waits

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(BUILD_TIMEOUT_S),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    kube_tools.needs_kube_tools(),
]

HEAD = "prefix,description,rate\n"


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "callwarden.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def config_map(name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, **content}


@asynccontextmanager
async def running(site: Site, **settings: str) -> AsyncIterator[tuple[LocalSystem, Operator]]:
    """call-admission and rating beside the operator, which is told where they are."""
    services = {"call-admission", "rating", "auth", "payment"}  # the last two for the test's own clients
    async with (
        LocalSystem(site.folder / "system", services=services, nats_url=site.nats.url) as system,
        Operator(system) as clients,
        site.operator(
            None, call_admission=system.targets("call-admission")[0], rating=system.targets("rating")[0], **settings
        ),
    ):
        yield system, clients


async def trunks(clients: Operator) -> dict[str, pb.Trunk]:
    return {one.name: one for one in (await unary(clients.accounts.ListTrunks, pb.ListTrunksRequest())).trunks}


async def test_a_trunk_resource_makes_changes_and_takes_away_a_trunk(site: Site) -> None:
    async with running(site) as (system, clients):
        # Wrong in a way that only call-admission sees, older than the others, and in nobody's way.
        await site.kubectl.apply(resource("Trunk", "astray", address="192.0.2.9:5060", account="nobody"))
        await site.kubectl.apply(
            resource("Trunk", "berlin", address="192.0.2.10:5060", blockPrefixes=["+4990", "4991"], stripDigits=1)
        )
        await waits(site, "cwtrunk/berlin", "Applied")
        await waits(site, "cwtrunk/astray", "Accepted=False")
        assert "nobody" in message(await site.kubectl.get("cwtrunk", "astray"), "Accepted")
        found = await trunks(clients)
        assert set(found) == {"berlin"}
        assert found["berlin"] == pb.Trunk(
            name="berlin",
            address="192.0.2.10:5060",
            direction="carrier",
            account="berlin",
            strip_digits=1,
            enabled=True,
            block_prefixes=["4990", "4991"],
        )

        await site.kubectl.apply(
            resource("Trunk", "berlin", address="192.0.2.11:5060", blockPrefixes=["4991"], enabled=False)
        )

        async def changed() -> bool:
            trunk = (await trunks(clients))["berlin"]
            return (trunk.address, trunk.enabled, trunk.strip_digits, list(trunk.block_prefixes)) == (
                "192.0.2.11:5060",
                False,
                0,
                ["4991"],
            )

        await eventually(changed, what="the edit")

        # While call-admission is away nothing is claimed; afterwards it is done.
        await system.stop("call-admission")
        await site.kubectl.apply(resource("Trunk", "hamburg", address="192.0.2.12:5060"))
        await waits(site, "cwtrunk/hamburg", "Applied=False")
        assert conditions(await site.kubectl.get("cwtrunk", "hamburg"))["Accepted"] == ("True", "Unavailable")
        await system.restart("call-admission")
        await waits(site, "cwtrunk/hamburg", "Applied")

        await site.kubectl.do("delete", "cwtrunk", "berlin", "astray", "--timeout=60s")
        assert set(await trunks(clients)) == {"hamburg"}


async def test_a_trunk_that_is_somebody_elses_is_neither_taken_nor_deleted_and_a_routed_one_is_disabled(
    site: Site,
) -> None:
    async with running(site, resync_s="2") as (_, clients):
        await clients.carrier("192.0.2.1:5060")
        (name,) = await trunks(clients)
        await site.kubectl.apply(resource("Trunk", name, address="192.0.2.2:5060", direction="traffic-sender"))
        await waits(site, f"cwtrunk/{name}", "Accepted=False")
        await site.kubectl.do("delete", "cwtrunk", name, "--timeout=60s")
        assert (await trunks(clients))[name].address == "192.0.2.1:5060"

        await site.kubectl.apply(resource("Trunk", "berlin", address="192.0.2.10:5060"))
        await waits(site, "cwtrunk/berlin", "Applied")
        await unary(clients.rating.SetRoute, rating_pb2.SetRouteRequest(prefix="4930", trunk="berlin"))
        await site.kubectl.do("delete", "cwtrunk", "berlin", "--wait=false")
        await waits(site, "cwtrunk/berlin", "Applied=False")
        assert "4930" in message(await site.kubectl.get("cwtrunk", "berlin"), "Applied")
        assert not (await trunks(clients))["berlin"].enabled
        await unary(clients.rating.DeleteRoute, rating_pb2.DeleteRouteRequest(prefix="4930", trunk="berlin"))
        await site.kubectl.do("wait", "--for=delete", "cwtrunk/berlin", "--timeout=60s")
        assert set(await trunks(clients)) == {name}


async def test_a_rate_deck_is_imported_again_when_its_config_map_or_spec_changes_and_bad_lines_are_named(
    site: Site,
) -> None:
    async with running(site, resync_s="1") as (_, clients):

        async def decks() -> dict[str, tuple[str, int]]:
            listed = await unary(clients.rating.ListDecks, rating_pb2.ListDecksRequest())
            return {one.name: (one.currency, one.rows) for one in listed.decks}

        async def status() -> dict[str, Any]:
            found: dict[str, Any] = (await site.kubectl.get("cwdeck", "retail"))["status"]
            return found

        await site.kubectl.apply(resource("RateDeck", "retail", configMap={"name": "prices"}))
        await waits(site, "cwdeck/retail", "Accepted=False")
        assert "spec.configMap.name" in message(await site.kubectl.get("cwdeck", "retail"), "Accepted")
        await site.kubectl.apply(config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n"}))
        await waits(site, "cwdeck/retail", "Applied")
        first = await status()
        assert (first["rates"], first["errors"]) == (1, [])
        assert await decks() == {"retail": ("EUR", 1)}

        two = base64.b64encode(f"{HEAD}49,Germany,0.06\n43,Austria,0.07\n".encode()).decode()
        await site.kubectl.do("delete", "configmap", "prices")
        await site.kubectl.apply(config_map("prices", binaryData={"rates.csv": two}))

        async def imported(rates: int) -> bool:
            return bool((await status())["rates"] == rates)

        await eventually(lambda: imported(2), timeout_s=30.0, interval_s=0.2, what="the changed file")
        await waits(site, "cwdeck/retail", "Applied")
        second = await status()
        assert second["version"] > first["version"]
        assert second["digest"] != first["digest"]

        # All or nothing: what was imported holds on.
        await site.kubectl.do("delete", "configmap", "prices")
        await site.kubectl.apply(config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n43,Austria,dear\n"}))

        async def refused() -> bool:
            return bool((await status())["errors"])

        await eventually(refused, timeout_s=30.0, interval_s=0.2, what="the bad line")
        third = await status()
        assert [text.startswith("line 3: rate: ") for text in third["errors"]] == [True]
        assert (third["rates"], third["version"]) == (2, second["version"])
        assert conditions(await site.kubectl.get("cwdeck", "retail"))["Accepted"] == ("False", "BadLines")
        assert await decks() == {"retail": ("EUR", 2)}

        await site.kubectl.apply(config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n"}))
        await site.kubectl.apply(resource("RateDeck", "retail", configMap={"name": "prices"}, currency="USD"))
        await waits(site, "cwdeck/retail", "Applied")
        await eventually(lambda: imported(1), timeout_s=30.0, interval_s=0.2, what="the other currency")
        assert await decks() == {"retail": ("USD", 1)}
        assert (await status())["errors"] == []

        await site.kubectl.do("delete", "cwdeck", "retail", "--timeout=60s")
        assert await decks() == {"retail": ("USD", 1)}  # rating forgets no price list
        await site.kubectl.do("delete", "configmap", "prices")
