"""auth over its coalescing stream. See `ports.Identities`."""

from callwarden.api.auth.v1 import auth_pb2
from callwarden.common.rpc.stream import StreamPool
from callwarden.edge_proxy.core.effects import (
    CallerIdentity,
    CarrierRoute,
    FindCalled,
    FoundCalled,
    NumberOwner,
    Rejected,
    VerifyDigest,
    VerifySource,
)
from callwarden.kernel.errors import Internal
from callwarden.kernel.verdict import Reason
from callwarden.sip.address import BadAddress, parse_endpoint
from callwarden.sip.via import PORT_DEFAULT

SERVICE = "callwarden.api.auth.v1.AuthService"


class GrpcIdentities:
    """Asks the auth process that a user name belongs to, or the next one."""

    def __init__(self, pool: StreamPool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def verify(self, question: VerifyDigest) -> CallerIdentity | Rejected:
        given = question.credentials
        request = auth_pb2.VerifyRequest(
            username=given.username,
            realm=given.realm,
            method=question.method,
            uri=given.uri,
            nonce=given.nonce,
            nonce_count=given.nc,
            cnonce=given.cnonce,
            qop=given.qop or "",
            algorithm=given.algorithm.value,
            response=given.response,
            source_address=question.source,
            registered=question.is_registered,
            called=question.called,
            called_realm=question.called_realm,
        )
        return _answer(
            await self._pool.call(
                given.user, "Verify", request, auth_pb2.VerifyReply, timeout_s=self._timeout_s, idempotent=True
            )
        )

    async def verify_source(self, question: VerifySource) -> CallerIdentity | Rejected:
        request = auth_pb2.VerifyAddressRequest(
            source_address=question.source, called=question.called, called_realm=question.called_realm
        )
        return _answer(
            await self._pool.call(
                question.source,
                "VerifyAddress",
                request,
                auth_pb2.VerifyReply,
                timeout_s=self._timeout_s,
                idempotent=True,
            )
        )

    async def find_called(self, question: FindCalled) -> FoundCalled:
        request = auth_pb2.FindCalledRequest(called=question.called, called_realm=question.called_realm)
        reply = await self._pool.call(
            question.called,
            "FindCalled",
            request,
            auth_pb2.FindCalledReply,
            timeout_s=self._timeout_s,
            idempotent=True,
        )
        return FoundCalled(reply.ours)


def _answer(reply: auth_pb2.VerifyReply) -> CallerIdentity | Rejected:
    if reply.HasField("identity"):
        found = reply.identity
        return CallerIdentity(
            found.account_id,
            found.account_type,
            tuple(found.numbers),
            found.tech_prefix,
            found.ttl_s,
            found.trunk,
            _owner(found.called_owner) if found.HasField("called_owner") else None,
            found.called_is_user,
        )
    if reply.HasField("rejected"):
        return Rejected(reason_of(reply.rejected.reason))
    raise Internal("auth gave no answer")


def _owner(found: auth_pb2.NumberOwner) -> NumberOwner:
    trunks = []
    for trunk in found.trunks:
        try:
            address = parse_endpoint(trunk.address, PORT_DEFAULT)
        except BadAddress:
            continue  # a network, which calls come from: there is no one place in it to send one to
        trunks.append(CarrierRoute(trunk.name, address, trunk.add_prefix, trunk.strip_digits))
    return NumberOwner(found.account_id, tuple(trunks))


_REASONS = {reason.value: reason for reason in Reason}


def reason_of(text: str) -> Reason:
    """The reason that a text means; a newer one than we know is UNAVAILABLE: refused, and held against no one."""
    return _REASONS.get(text, Reason.UNAVAILABLE)
