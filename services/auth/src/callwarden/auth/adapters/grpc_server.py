"""callwarden.api.auth.v1.AuthService: messages to values and back."""

from collections.abc import Awaitable
from typing import Any, Final

from callwarden.api.auth.v1 import auth_pb2, auth_pb2_grpc
from callwarden.auth.app import Auth
from callwarden.auth.core.digest import DigestAnswer
from callwarden.auth.core.users import AuthIdentity, UserKey
from callwarden.common.rpc.stream import StreamServicer
from callwarden.kernel.verdict import Reason

# The same bytes for the same reason, whatever caused it.
_REJECTIONS: Final = {
    reason: auth_pb2.VerifyReply(rejected=auth_pb2.Rejected(reason=reason.value)) for reason in Reason
}


class AuthServicer(StreamServicer, auth_pb2_grpc.AuthServiceServicer):
    def __init__(self, app: Auth) -> None:
        super().__init__(
            {
                "Verify": (auth_pb2.VerifyRequest, self._verify),
                "VerifyAddress": (auth_pb2.VerifyAddressRequest, self._verify_address),
                "FindCalled": (auth_pb2.FindCalledRequest, self._find_called),
            }
        )
        self._app = app

    async def Verify(self, request: auth_pb2.VerifyRequest, context: Any) -> auth_pb2.VerifyReply:  # noqa: N802
        reply = self._verify(request)
        return reply if isinstance(reply, auth_pb2.VerifyReply) else await reply

    async def VerifyAddress(  # noqa: N802
        self, request: auth_pb2.VerifyAddressRequest, context: Any
    ) -> auth_pb2.VerifyReply:
        return self._verify_address(request)

    async def FindCalled(  # noqa: N802
        self, request: auth_pb2.FindCalledRequest, context: Any
    ) -> auth_pb2.FindCalledReply:
        return self._find_called(request)

    async def SetPassword(  # noqa: N802
        self, request: auth_pb2.SetPasswordRequest, context: Any
    ) -> auth_pb2.SetPasswordReply:
        await self._app.set_password(request.account_id, UserKey(request.realm, request.username), request.password)
        return auth_pb2.SetPasswordReply()

    async def RemoveCredential(  # noqa: N802
        self, request: auth_pb2.RemoveCredentialRequest, context: Any
    ) -> auth_pb2.RemoveCredentialReply:
        removed = await self._app.remove_credential(UserKey(request.realm.lower(), request.username))
        return auth_pb2.RemoveCredentialReply(removed=removed)

    def _verify(self, request: auth_pb2.VerifyRequest) -> auth_pb2.VerifyReply | Awaitable[auth_pb2.VerifyReply]:
        realm, username = request.realm, request.username
        in_full = username.endswith(f"@{realm}")
        answer = DigestAnswer(
            UserKey(realm, username[: -len(realm) - 1] if in_full else username),
            request.method,
            request.uri,
            request.nonce,
            request.nonce_count,
            request.cnonce,
            request.qop,
            request.algorithm,
            request.response,
            request.source_address,
            request.registered,
            in_full,
        )
        verdict = self._app.verify_now(answer)
        if isinstance(verdict, AuthIdentity):
            return self._reply(verdict, request.called, request.called_realm)
        return self._verify_later(answer, verdict, request)

    async def _verify_later(
        self, answer: DigestAnswer, verdict: Reason | None, request: auth_pb2.VerifyRequest
    ) -> auth_pb2.VerifyReply:
        return self._reply(await self._app.verify(answer, verdict), request.called, request.called_realm)

    def _verify_address(self, request: auth_pb2.VerifyAddressRequest) -> auth_pb2.VerifyReply:
        verdict = self._app.verify_address(request.source_address, request.called)
        return self._reply(verdict, request.called, request.called_realm)

    def _find_called(self, request: auth_pb2.FindCalledRequest) -> auth_pb2.FindCalledReply:
        is_owned = self._app.owner_of(request.called, "") is not None
        return auth_pb2.FindCalledReply(
            ours=is_owned or self._app.is_user(request.called, "", request.called_realm.lower())
        )

    def _reply(self, verdict: AuthIdentity | Reason, called: str, realm: str) -> auth_pb2.VerifyReply:
        if isinstance(verdict, Reason):
            return _REJECTIONS[verdict]
        reply = auth_pb2.VerifyReply(
            identity=auth_pb2.Identity(
                account_id=verdict.account.id,
                account_type=verdict.account.kind,
                numbers=verdict.account.numbers,
                tech_prefix=verdict.tech_prefix,
                ttl_s=verdict.ttl_s,
                trunk=verdict.trunk,
            )
        )
        reply.identity.called_is_user = self._app.is_user(called, verdict.tech_prefix, realm)
        owner = self._app.owner_of(called, verdict.tech_prefix)
        if owner is not None:
            found = reply.identity.called_owner
            found.account_id = owner
            for trunk in self._app.trunks_of(owner):
                found.trunks.add(
                    name=trunk.name,
                    address=trunk.address,
                    add_prefix=trunk.add_prefix,
                    strip_digits=trunk.strip_digits,
                )
        return reply
