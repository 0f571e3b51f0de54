"""callwarden.api.rateguard.v1.RateGuardService: messages to values and back."""

from typing import Any, Final

from callwarden.api.rateguard.v1 import rateguard_pb2, rateguard_pb2_grpc
from callwarden.common.logs import get_logger
from callwarden.common.rpc.stream import StreamServicer
from callwarden.kernel.errors import Invalid
from callwarden.rate_guard.app import RateGuard
from callwarden.rate_guard.core.bans import Ban
from callwarden.rate_guard.core.counters import AddressReport, EndpointReport

log = get_logger(__name__)

LISTED_MAX: Final = 10_000  # A reply has at most 4 MiB, a ban up to 400 bytes.


class RateGuardServicer(StreamServicer, rateguard_pb2_grpc.RateGuardServiceServicer):
    def __init__(self, app: RateGuard) -> None:
        super().__init__({"Count": (rateguard_pb2.CountRequest, self._count)})
        self._app = app

    async def Count(  # noqa: N802
        self, request: rateguard_pb2.CountRequest, context: Any
    ) -> rateguard_pb2.CountReply:
        return self._count(request)

    async def ListBans(  # noqa: N802
        self, request: rateguard_pb2.ListBansRequest, context: Any
    ) -> rateguard_pb2.ListBansReply:
        bans = self._app.bans
        if len(bans) > LISTED_MAX:
            log.warning("bans.not_all_listed", bans=len(bans), listed=LISTED_MAX)
        return rateguard_pb2.ListBansReply(bans=map(_entry, bans[-LISTED_MAX:]))

    async def AddBan(  # noqa: N802
        self, request: rateguard_pb2.AddBanRequest, context: Any
    ) -> rateguard_pb2.AddBanReply:
        ban = await self._app.add_ban(request.address, request.reason, request.duration_s)
        return rateguard_pb2.AddBanReply(ban=_entry(ban))

    async def RemoveBans(  # noqa: N802
        self, request: rateguard_pb2.RemoveBansRequest, context: Any
    ) -> rateguard_pb2.RemoveBansReply:
        if request.all == bool(request.address):
            raise Invalid("name either one address or all", field="address")
        if request.all:
            removed = await self._app.remove_all_bans()
        else:
            removed = await self._app.remove_bans(request.address)
        return rateguard_pb2.RemoveBansReply(removed=removed)

    def _count(self, request: rateguard_pb2.CountRequest) -> rateguard_pb2.CountReply:
        reports = [
            AddressReport(
                count.address,
                count.messages,
                count.wrong,
                [
                    EndpointReport(each.port, each.username, each.auth_failures, each.auth_successes, each.address)
                    for each in count.endpoints
                ],
                count.verified,
            )
            for count in request.counts
        ]
        not_owned = self._app.count(request.edge, request.sequence, reports)
        return rateguard_pb2.CountReply(not_owned=not_owned)


def _entry(ban: Ban) -> rateguard_pb2.BanEntry:
    return rateguard_pb2.BanEntry(
        address=ban.target,
        reason=ban.reason,
        evidence=ban.evidence,
        since_s=ban.since_s,
        until_s=ban.until_s,
        by=ban.by,
    )
