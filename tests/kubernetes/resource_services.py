"""The services that carry out bans, trunks and price lists, for tests of the operator, and clients of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from callwarden.api.admission.v1 import admission_pb2 as pb
from callwarden.api.rating.v1 import rating_pb2
from callwarden.common.rpc.client import channel, unary
from callwarden.local.process import Child
from callwarden.local.system import LocalSystem
from callwarden.testing.certificates import Authority
from tests.kubernetes.conftest import OperatorSite

if TYPE_CHECKING:
    from callwarden.api.admission.v1.admission_pb2_grpc import AccountServiceAsyncStub
    from callwarden.api.rating.v1.rating_pb2_grpc import RatingServiceAsyncStub

SERVICES = ("rate-guard", "administration", "rating")


@dataclass(frozen=True, slots=True)
class Services:
    """What runs, with mutual TLS as the chart's production preset has it."""

    system: LocalSystem
    authority: Authority

    def channel(self, name: str) -> grpc.aio.Channel:
        """The test's own to one of them."""
        return channel(self.system.targets(name)[0], self.authority.files("test", "admin"), peer=name)

    @asynccontextmanager
    async def operator(self, site: OperatorSite, **settings: str) -> AsyncIterator[Child]:
        """One that is told where they are, unless `settings` say otherwise."""
        targets = {name.replace("-", "_"): self.system.targets(name)[0] for name in SERVICES}
        tls = tls_settings(self.authority, "security-policy")
        async with site.operator(None, **{**targets, **tls, **settings}) as child:
            yield child


def tls_settings(authority: Authority, name: str) -> dict[str, str]:
    files = authority.files(name, dns=name)
    return {"tls_cert": str(files.cert), "tls_key": str(files.key), "tls_ca": str(files.ca)}


@dataclass(frozen=True, slots=True)
class ServiceClients:
    """The test's own, to look at what the services have."""

    accounts: "AccountServiceAsyncStub"
    rating: "RatingServiceAsyncStub"

    async def trunks(self) -> dict[str, pb.Trunk]:
        return {one.name: one for one in (await unary(self.accounts.ListTrunks, pb.ListTrunksRequest())).trunks}

    async def carrier(self, name: str, address: str, *, realm: str = "a.example") -> None:
        """A trunk that somebody has made, and its account."""
        new = pb.Account(name=name, realm=realm, type="carrier", currency="EUR", time_zone="UTC")
        account = await unary(self.accounts.CreateAccount, pb.CreateAccountRequest(account=new))
        trunk = pb.Trunk(name=name, address=address, direction="carrier", account=account.id, enabled=True)
        await unary(self.accounts.CreateTrunk, trunk)

    async def decks(self) -> dict[str, tuple[str, int]]:
        """Currency and number of rates of each."""
        listed = await unary(self.rating.ListDecks, rating_pb2.ListDecksRequest())
        return {one.name: (one.currency, one.rows) for one in listed.decks}

    async def clear(self) -> None:
        """No trunk is left behind for the next test."""
        for route in (await unary(self.rating.ListRoutes, rating_pb2.ListRoutesRequest())).routes:
            gone = rating_pb2.DeleteRouteRequest(prefix=route.prefix, trunk=route.trunk)
            await unary(self.rating.DeleteRoute, gone)
        for name in await self.trunks():
            await unary(self.accounts.DeleteTrunk, pb.DeleteTrunkRequest(name=name))
