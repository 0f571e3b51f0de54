"""Bans, trunks and price lists declared with kubectl: the real services have what the resources say."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceStub
from callwarden.api.events.v1 import events_pb2
from callwarden.api.rating.v1 import rating_pb2
from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceStub
from callwarden.common.bus import Bucket, Bus
from callwarden.common.rpc.client import unary
from callwarden.kernel.errors import NotFound
from callwarden.local.system import LocalSystem
from callwarden.testing import kube_tools
from callwarden.testing.certificates import Authority
from callwarden.testing.servers import Servers
from callwarden.testing.waiting import eventually
from tests.kubernetes.cluster import CLUSTER_TIMEOUT_S, KubernetesCluster, missing
from tests.kubernetes.conftest import OperatorSite
from tests.kubernetes.resource_services import SERVICES, ServiceClients, Services, tls_settings
from tests.kubernetes.test_operator import binding, conditions, message, waits

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.timeout(CLUSTER_TIMEOUT_S),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    kube_tools.needs_kube_tools(),
]

HEAD = "prefix,description,rate\n"


def resource(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "callwarden.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def config_map(name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, **content}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(callwarden_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """For all tests: their start takes ten seconds."""
    authority = Authority(tmp_path_factory.mktemp("tls"), "ours")
    env = {
        name: {f"CALLWARDEN_{key.upper()}": value for key, value in tls_settings(authority, name).items()}
        for name in SERVICES
    }
    database_url = await asyncio.to_thread(callwarden_servers.ask, "database")
    try:
        async with LocalSystem(services=SERVICES, env=env, database_url=database_url, migrate=False) as system:
            yield Services(system, authority)
    finally:
        await asyncio.to_thread(callwarden_servers.ask, "drop", database_url)


@pytest_asyncio.fixture(loop_scope="module")
async def clients(services: Services) -> AsyncIterator[ServiceClients]:
    async with services.channel("administration") as admission, services.channel("rating") as rating:
        connected = ServiceClients(AccountServiceStub(admission), RatingServiceStub(rating))
        yield connected
        await connected.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def site(cluster: KubernetesCluster, services: Services, state_dir: Path) -> AsyncIterator[OperatorSite]:
    """The cluster without resources of ours, and the system's bus."""
    assert services.system.nats is not None
    yield OperatorSite(state_dir, cluster, services.system.nats)
    await cluster.clear()
    await cluster.kubectl.do("delete", "configmap", "prices", "--ignore-not-found")


async def events_of(site: OperatorSite, kind: str, name: str, *wanted: tuple[str, str]) -> list[str]:
    """The messages of exactly these Events (type, reason), in any order: their times are whole seconds. Waits."""
    which = f"involvedObject.kind={kind},involvedObject.name={name}"

    async def are_there() -> list[str]:
        found = (await site.kubectl.get("events", "--field-selector", which))["items"]
        assert {one["reportingComponent"] for one in found} == {"callwarden.io/security-policy"}
        assert sorted((one["type"], one["reason"]) for one in found) == sorted(wanted)
        return [str(one["message"]) for one in found]

    return await eventually(are_there, interval_s=0.5, what=f"what is told of {kind} {name}")


async def test_a_bans_reason_can_be_edited_and_an_expired_ban_is_lifted(site: OperatorSite, services: Services) -> None:
    async def banned() -> dict[str, str]:
        async with Bus(site.nats.url, name="test", declare=False) as bus:
            entries = (await bus.kv(Bucket.BANS).items()).values()
        return {one.address: one.reason for one in (events_pb2.Ban.FromString(entry.value) for entry in entries)}

    async def says(wanted: dict[str, str]) -> bool:
        return await banned() == wanted

    async with services.operator(site):
        await site.kubectl.apply(resource("Ban", "guest", address="192.0.2.7", reason="abuse"))
        await waits(site, "cwban/guest", "Applied")
        assert await banned() == {"192.0.2.7": "abuse"}
        await site.kubectl.apply(resource("Ban", "guest", address="192.0.2.7", reason="fraud"))
        await eventually(lambda: says({"192.0.2.7": "fraud"}), what="the other reason")

        await site.kubectl.apply(resource("Ban", "brief", address="192.0.2.8", duration="3s"))
        await waits(site, "cwban/brief", "Applied=False")
        assert conditions(await site.kubectl.get("cwban", "brief")) == {
            "Accepted": ("True", "Valid"),
            "Applied": ("False", "Expired"),
        }
        await eventually(lambda: says({"192.0.2.7": "fraud"}), timeout_s=30.0, what="the brief one's end")
        await site.kubectl.do("delete", "cwban", "guest", "brief", "--timeout=60s")
        assert await banned() == {}


async def test_each_outcome_of_a_resource_is_one_event(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    accepted, applied = ("Normal", "Accepted"), ("Normal", "Applied")
    async with services.operator(site, resync_s="1"):
        await site.kubectl.apply(
            resource("Ban", "guest", address="192.0.2.7"),
            resource("Trunk", "berlin", address="192.0.2.10:5060"),
            config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,dear\n"}),
            resource("RateDeck", "told", configMap={"name": "prices"}),
        )
        await events_of(site, "Ban", "guest", accepted, applied)
        await events_of(site, "Trunk", "berlin", accepted, applied)
        await events_of(site, "RateDeck", "told", ("Warning", "BadLines"))
        await site.kubectl.apply(
            resource("Ban", "later", address="192.0.2.7"),
            resource("Trunk", "berlin", address="192.0.2.11:5060"),
            config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n"}),
        )
        await events_of(site, "Ban", "later", ("Warning", "Conflict"))
        await events_of(site, "RateDeck", "told", ("Warning", "BadLines"), accepted, applied)
        await events_of(site, "Trunk", "berlin", accepted, applied, applied)  # the edit

        await site.kubectl.do("delete", "cwban", "guest", "--timeout=60s")
        await site.kubectl.do("delete", "cwtrunk", "berlin", "--timeout=60s")
        await events_of(site, "Trunk", "berlin", accepted, applied, applied, ("Normal", "Deleted"))
        await events_of(site, "Ban", "later", ("Warning", "Conflict"), accepted, applied)
        await events_of(site, "Ban", "guest", accepted, applied)  # not lifted: the other one bans the address now
        await site.kubectl.do("delete", "cwban", "later", "--timeout=60s")
        await events_of(site, "Ban", "later", ("Warning", "Conflict"), accepted, applied, ("Normal", "Lifted"))


async def test_a_trunk_resource_creates_changes_and_deletes_a_trunk(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    async with services.operator(site):
        # Wrong in a way that only administration sees, older than the others, and in nobody's way.
        await site.kubectl.apply(resource("Trunk", "astray", address="192.0.2.9:5060", account="nobody"))
        await site.kubectl.apply(
            resource("Trunk", "berlin", address="192.0.2.10:5060", blockPrefixes=["+4990", "4991"], stripDigits=1)
        )
        await waits(site, "cwtrunk/berlin", "Applied")
        await waits(site, "cwtrunk/astray", "Accepted=False")
        assert "nobody" in message(await site.kubectl.get("cwtrunk", "astray"), "Accepted")
        found = await clients.trunks()
        assert set(found) == {"berlin"}
        assert found["berlin"] == pb.Trunk(
            name="berlin",
            address="192.0.2.10:5060",
            direction="carrier",
            account="berlin",
            realm="callwarden.local",
            strip_digits=1,
            enabled=True,
            block_prefixes=["4990", "4991"],
        )

        await site.kubectl.apply(
            resource("Trunk", "berlin", address="192.0.2.11:5060", blockPrefixes=["4991"], enabled=False)
        )

        async def changed() -> bool:
            trunk = (await clients.trunks())["berlin"]
            return (trunk.address, trunk.enabled, trunk.strip_digits, list(trunk.block_prefixes)) == (
                "192.0.2.11:5060",
                False,
                0,
                ["4991"],
            )

        await eventually(changed, what="the edit")

        # While administration is away nothing is claimed; afterwards it is done.
        await services.system.stop("administration")
        await site.kubectl.apply(resource("Trunk", "hamburg", address="192.0.2.12:5060"))
        await waits(site, "cwtrunk/hamburg", "Applied=False")
        assert conditions(await site.kubectl.get("cwtrunk", "hamburg"))["Applied"] == ("False", "Unavailable")
        await services.system.restart("administration")
        await waits(site, "cwtrunk/hamburg", "Applied")

        await site.kubectl.do("delete", "cwtrunk", "berlin", "astray", "--timeout=60s")
        assert set(await clients.trunks()) == {"hamburg"}


async def test_a_foreign_trunk_is_left_alone_and_a_routed_one_is_disabled(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    async with services.operator(site, resync_s="2"):
        name = "frankfurt"
        await clients.carrier(name, "192.0.2.1:5060")
        await site.kubectl.apply(resource("Trunk", name, address="192.0.2.2:5060", direction="traffic-sender"))
        await waits(site, f"cwtrunk/{name}", "Accepted=False")
        await site.kubectl.do("delete", "cwtrunk", name, "--timeout=60s")
        assert (await clients.trunks())[name].address == "192.0.2.1:5060"

        await site.kubectl.apply(resource("Trunk", "berlin", address="192.0.2.10:5060"))
        await waits(site, "cwtrunk/berlin", "Applied")
        await unary(clients.rating.SetRoute, rating_pb2.SetRouteRequest(prefix="4930", trunk="berlin"))
        await site.kubectl.do("delete", "cwtrunk", "berlin", "--wait=false")
        await waits(site, "cwtrunk/berlin", "Applied=False")
        assert "4930" in message(await site.kubectl.get("cwtrunk", "berlin"), "Applied")
        assert not (await clients.trunks())["berlin"].enabled
        await unary(clients.rating.DeleteRoute, rating_pb2.DeleteRouteRequest(prefix="4930", trunk="berlin"))
        await site.kubectl.do("wait", "--for=delete", "cwtrunk/berlin", "--timeout=60s")
        assert set(await clients.trunks()) == {name}


async def test_an_existing_trunk_is_taken_over_only_for_its_own_account(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    await clients.carrier("munich", "192.0.2.1:5060")
    await clients.carrier("cologne", "192.0.2.1:5060")
    before = await clients.trunks()
    # Called alike, in another realm.
    other = pb.Account(name="munich", realm="b.example", type="carrier", currency="EUR", time_zone="UTC")
    await unary(clients.accounts.CreateAccount, pb.CreateAccountRequest(account=other))
    async with services.operator(site):
        for account in ({"account": "munich@b.example"}, {"realm": "c.example"}):
            await site.kubectl.apply(resource("Trunk", "munich", address="192.0.2.2:5060", **account))
            await waits(site, "cwtrunk/munich", "Accepted=False")
            refused = await site.kubectl.get("cwtrunk", "munich")
            assert "munich@a.example" in message(refused, "Accepted")
            await site.kubectl.do("delete", "cwtrunk", "munich", "--timeout=60s")
        assert await clients.trunks() == before
        with pytest.raises(NotFound):  # no account is made for a trunk that there won't be
            await unary(clients.accounts.GetAccount, pb.GetAccountRequest(account="munich@c.example"))

        await site.kubectl.apply(
            resource("Trunk", "munich", address="192.0.2.1:5060", account="munich@a.example"),
            resource("Trunk", "cologne", address="192.0.2.3:5060", realm="a.example", blockPrefixes=["4990"]),
        )
        await waits(site, "cwtrunk/munich", "Applied")
        await waits(site, "cwtrunk/cologne", "Applied")
        refusals = [("Warning", "Refused")] * 2
        normal = [("Normal", reason) for reason in ("Accepted", "Applied", "TakenOver")]
        assert "The trunk existed already. Changed: nothing." in await events_of(
            site, "Trunk", "munich", *refusals, *normal
        )
        said = await events_of(site, "Trunk", "cologne", *normal)
        assert "The trunk existed already. Changed: address, blockPrefixes." in said
        after = await clients.trunks()
        assert after["munich"] == before["munich"]
        assert (after["cologne"].address, list(after["cologne"].block_prefixes)) == ("192.0.2.3:5060", ["4990"])
        await site.kubectl.do("delete", "cwtrunk", "munich", "cologne", "--timeout=60s")
        assert await clients.trunks() == {}


async def test_of_two_resources_with_one_name_the_younger_gets_the_trunk_after_the_older(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    async def owner() -> str:
        trunk = (await clients.trunks())["bremen"]
        return f"{trunk.account}@{trunk.realm} {trunk.address}"

    younger = resource("Trunk", "bremen", address="192.0.2.2:5060", realm="b.example")
    younger["metadata"]["namespace"] = "kube-public"
    async with services.operator(site):
        await site.kubectl.apply(binding("public", "kube-public", realms=["b.example"]))
        await site.kubectl.apply(resource("Trunk", "bremen", address="192.0.2.1:5060", realm="a.example"))
        await waits(site, "cwtrunk/bremen", "Applied")
        await site.kubectl.apply(younger)
        await site.kubectl.do("wait", "-n", "kube-public", "--for=condition=Accepted=False", "cwtrunk/bremen")
        assert await owner() == "bremen@a.example 192.0.2.1:5060"
        # Another account's: it isn't taken over, but goes, and a new one comes.
        await site.kubectl.do("delete", "cwtrunk", "bremen", "--timeout=60s")
        await site.kubectl.do("wait", "-n", "kube-public", "--for=condition=Applied", "cwtrunk/bremen")
        assert await owner() == "bremen@b.example 192.0.2.2:5060"
        await site.kubectl.do("delete", "-n", "kube-public", "cwtrunk", "bremen", "--timeout=60s")
        assert await clients.trunks() == {}


async def test_a_rate_deck_is_imported_again_after_each_change_and_names_invalid_lines(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    async with services.operator(site):

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
        assert (await clients.decks())["retail"] == ("EUR", 1)

        two = base64.b64encode(f"{HEAD}49,Germany,0.06\n43,Austria,0.07\n".encode()).decode()
        await site.kubectl.apply(config_map("prices", binaryData={"rates.csv": two}))

        async def imported(rates: int) -> None:
            which = f"--for=jsonpath={{.status.rates}}={rates}"
            await site.kubectl.do("wait", "cwdeck/retail", which, "--timeout=60s")

        await imported(2)  # the changed file
        await waits(site, "cwdeck/retail", "Applied")
        second = await status()
        assert second["version"] > first["version"]
        assert second["digest"] != first["digest"]

        # All or nothing: what was imported holds on.
        await site.kubectl.apply(config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n43,Austria,dear\n"}))

        await waits(site, "cwdeck/retail", "Accepted=False")
        third = await status()
        assert [text.startswith("line 3: rate: ") for text in third["errors"]] == [True]
        assert (third["rates"], third["version"]) == (2, second["version"])
        assert conditions(await site.kubectl.get("cwdeck", "retail"))["Accepted"] == ("False", "BadLines")
        assert (await clients.decks())["retail"] == ("EUR", 2)

        await site.kubectl.apply(config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n"}))
        await site.kubectl.apply(resource("RateDeck", "retail", configMap={"name": "prices"}, currency="USD"))
        await waits(site, "cwdeck/retail", "Applied")
        await imported(1)  # in the other currency
        assert (await clients.decks())["retail"] == ("USD", 1)
        assert (await status())["errors"] == []

        await site.kubectl.do("delete", "cwdeck", "retail", "--timeout=60s")
        assert (await clients.decks())["retail"] == ("USD", 1)  # rating forgets no price list


def foreign(kind: str, name: str, finalizers: tuple[str, ...] = (), **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "kube-public", "finalizers": list(finalizers)}
    return {**resource(kind, name, **spec), "metadata": metadata}


async def foreign_waits(site: OperatorSite, what: str, condition: str) -> dict[str, Any]:
    await site.kubectl.do("wait", "-n", "kube-public", f"--for=condition={condition}", what, "--timeout=60s")
    found: dict[str, Any] = await site.kubectl.get("-n", "kube-public", *what.split("/"))
    return found


async def banned(site: OperatorSite) -> set[str]:
    async with Bus(site.nats.url, name="test", declare=False) as bus:
        entries = (await bus.kv(Bucket.BANS).items()).values()
    return {events_pb2.Ban.FromString(entry.value).address for entry in entries}


@pytest.mark.cases
async def test_bans_trunks_and_price_lists_act_only_on_the_realms_of_their_namespace(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    prices = config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n"})
    theirs = {**prices, "metadata": {"name": "prices", "namespace": "kube-public"}}
    others = ("cwban/guest", "cwtrunk/bonn", "cwdeck/bonn")
    async with services.operator(site, resync_s="2"):
        await site.kubectl.apply(
            theirs,
            foreign("Ban", "guest", address="192.0.2.7"),
            foreign("Trunk", "bonn", address="192.0.2.10:5060", realm="a.example"),
            foreign("RateDeck", "bonn", configMap={"name": "prices"}),
        )
        for what in others:
            refused = await foreign_waits(site, what, "Applied=False")
            assert conditions(refused) == {"Accepted": ("True", "Valid"), "Applied": ("False", "RealmNotAllowed")}
            assert "kube-public" in message(refused, "Applied")
        assert (await banned(site), await clients.trunks(), "bonn" in await clients.decks()) == (set(), {}, False)

        # Its realm, and a name of a price list; a ban needs all realms.
        await site.kubectl.apply(binding("public", "kube-public", realms=["a.example"], rateDecks=["bonn"]))
        await foreign_waits(site, "cwtrunk/bonn", "Applied")
        await foreign_waits(site, "cwdeck/bonn", "Applied")
        await foreign_waits(site, "cwban/guest", "Applied=False")
        await site.kubectl.apply(binding("public", "kube-public", realms=["*"]))
        await foreign_waits(site, "cwban/guest", "Applied")
        trunk = (await clients.trunks())["bonn"]
        assert (trunk.account, trunk.realm) == ("bonn", "a.example")
        assert (await banned(site), "bonn" in await clients.decks()) == ({"192.0.2.7"}, True)

        # A route leads to the trunk: it is disabled at once, and deleted when the route is gone.
        await unary(clients.rating.SetRoute, rating_pb2.SetRouteRequest(prefix="4930", trunk="bonn"))
        await site.kubectl.do("delete", "cwrealm", "public")
        for what in others:
            refused = await foreign_waits(site, what, "Applied=False")
            assert conditions(refused)["Applied"] == ("False", "RealmNotAllowed")
        assert "4930" in message(await site.kubectl.get("-n", "kube-public", "cwtrunk", "bonn"), "Applied")
        assert not (await clients.trunks())["bonn"].enabled
        assert await banned(site) == set()
        await unary(clients.rating.DeleteRoute, rating_pb2.DeleteRouteRequest(prefix="4930", trunk="bonn"))

        async def is_released() -> bool:
            found = await site.kubectl.get("-n", "kube-public", "cwtrunk", "bonn")
            return "finalizers" not in found["metadata"] and "held" not in found["status"]

        await eventually(is_released, what="the trunk's end")
        assert await clients.trunks() == {}
        # Another namespace may take the name, and has it until it goes.
        await site.kubectl.apply(resource("Trunk", "bonn", address="192.0.2.11:5060", realm="b.example"))
        await waits(site, "cwtrunk/bonn", "Applied")
        await site.kubectl.apply(binding("public", "kube-public", realms=["a.example"]))
        younger = await foreign_waits(site, "cwtrunk/bonn", "Accepted=False")
        assert conditions(younger)["Accepted"] == ("False", "Conflict")
        assert (await clients.trunks())["bonn"].realm == "b.example"
        await site.kubectl.do("delete", "cwtrunk", "bonn", "--timeout=60s")
        await foreign_waits(site, "cwtrunk/bonn", "Applied")
        assert (await clients.trunks())["bonn"].realm == "a.example"
        await site.kubectl.do("delete", "-n", "kube-public", *others, "--timeout=60s")
        assert await clients.trunks() == {}
        await site.kubectl.do("delete", "-n", "kube-public", "configmap", "prices")


@pytest.mark.cases
async def test_a_finalizer_that_somebody_else_wrote_removes_nothing(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    await clients.carrier("ulm", "192.0.2.1:5060", realm="a.example")
    async with services.operator(site, resync_s="2"):
        await site.kubectl.apply(resource("Ban", "guest", address="192.0.2.7"))
        await waits(site, "cwban/guest", "Applied")
        stranger = [
            foreign("Ban", "unban", ("callwarden.io/banned",), address="192.0.2.7"),
            foreign("Trunk", "ulm", ("callwarden.io/trunk",), address="192.0.2.9:5060", realm="a.example"),
        ]
        # The binding is of another realm, so that even a claim is none.
        await site.kubectl.apply(binding("public", "kube-public", realms=["b.example"]), *stranger)
        await foreign_waits(site, "cwban/unban", "Applied=False")
        await foreign_waits(site, "cwtrunk/ulm", "Applied=False")
        await site.kubectl.do("delete", "-n", "kube-public", "cwban/unban", "cwtrunk/ulm", "--timeout=60s")
        # Of its own realm, and the trunk is another one's: refused, and left as it is.
        own = foreign("Trunk", "ulm", ("callwarden.io/trunk",), address="192.0.2.9:5060", realm="b.example")
        await site.kubectl.apply(own)
        await foreign_waits(site, "cwtrunk/ulm", "Accepted=False")
        await site.kubectl.do("delete", "-n", "kube-public", "cwtrunk/ulm", "--timeout=60s")
        assert await banned(site) == {"192.0.2.7"}
        assert (await clients.trunks())["ulm"].address == "192.0.2.1:5060"
        await site.kubectl.do("delete", "cwban", "guest", "--timeout=60s")


async def test_a_service_with_anothers_certificate_gets_no_request(
    site: OperatorSite, services: Services, clients: ServiceClients
) -> None:
    (stranger,) = services.system.targets("rate-guard")
    async with services.operator(site, administration=stranger, rating=stranger):
        await site.kubectl.apply(
            config_map("prices", data={"rates.csv": f"{HEAD}49,Germany,0.06\n"}),
            resource("Trunk", "berlin", address="192.0.2.10:5060"),
            resource("RateDeck", "untold", configMap={"name": "prices"}),
            resource("Ban", "guest", address="192.0.2.7"),
        )
        await waits(site, "cwban/guest", "Applied")
        for what in ("cwtrunk/berlin", "cwdeck/untold"):
            await waits(site, what, "Applied=False")
            assert conditions(await site.kubectl.get(*what.split("/")))["Applied"] == ("False", "Unavailable")
        await site.kubectl.do("delete", "cwban", "guest", "--timeout=60s")
    assert (await clients.trunks(), "untold" in await clients.decks()) == ({}, False)
