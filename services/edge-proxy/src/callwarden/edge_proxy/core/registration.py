"""REGISTER from the wire to its answer: challenge, credentials, the registrar, the location kept.

In: the way of one REGISTER. Out: what it leaves as bindings (`registrar`), calls.
"""

from typing import NamedTuple

from callwarden.edge_proxy.core import registrar, validation
from callwarden.edge_proxy.core.callers import DIALLED_MAX
from callwarden.edge_proxy.core.challenge import Challenger, CredentialsFault
from callwarden.edge_proxy.core.context import Context, unavailable
from callwarden.edge_proxy.core.effects import CallerIdentity, Rejected, StoreLocation, Unanswered, VerifyDigest
from callwarden.edge_proxy.core.locations import Locations
from callwarden.edge_proxy.core.statuses import OVERLOAD_RETRY_S, answer_for
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.sip.address import SocketAddress
from callwarden.sip.build import Headers
from callwarden.sip.digest import Credentials
from callwarden.sip.message import Request
from callwarden.sip.transaction import ServerTransaction, TooManyTransactions

_PASSED = ("banned", "rate", "scanner")


class AwaitingRegistration(NamedTuple):
    """Asked of auth: whose credentials these are."""

    server: ServerTransaction
    source: SocketAddress
    credentials: Credentials
    traceparent: str


class EdgeRegistration:
    """Registers phones. Holds no state but what it shares."""

    def __init__(self, context: Context, locations: Locations, challenger: Challenger) -> None:
        self._context = context
        self._locations = locations
        self._challenger = challenger

    def request(self, request: Request, source: SocketAddress) -> None:
        """A new REGISTER. Without good credentials it costs no memory."""
        context = self._context
        fault = validation.check(request, context.proxy.address)
        if fault is not None:
            context.counters.wrong(source.host, context.mono_s)
            context.answer_stateless(request, source, fault.status, fault.reason, fault.headers)
            return
        realm = context.proxy.realm_of(request.uri)
        if realm is None:
            # 10.3 step 1 would have us pass it on: we are no open relay.
            context.answer_stateless(request, source, 403)
            return
        rules = context.book.for_realm(realm)
        found = self._challenger.examine(request, "authorization", rules, source.host, context.unix_s)
        if not isinstance(found, Credentials):
            self._challenger.count(found, context, request, rules, source)
            headers = self._challenge(request, source, realm, stale=found is CredentialsFault.STALE)
            context.answer_stateless(request, source, 401, None, headers)
            return
        try:
            server = context.layer.accept(request, context.reply_peer(request, source), context.mono_s)
        except TooManyTransactions:
            context.stats.unavailable += 1
            context.answer_stateless(request, source, 503, None, [("Retry-After", str(OVERLOAD_RETRY_S))])
            return
        traceparent = context.new_traceparent()
        is_registered = self._locations.is_at_home(found.realm, found.user, source.host)
        question = VerifyDigest(
            found, "REGISTER", source.host, request.call_id, traceparent, is_registered=is_registered
        )
        context.ask(question, AwaitingRegistration(server, source, found, traceparent))

    def _challenge(self, request: Request, source: SocketAddress, realm: str, *, stale: bool) -> Headers:
        context = self._context
        context.stats.challenges += 1
        context.counters.challenged(source.host, source.port, "", context.mono_s)
        rules = context.book.for_realm(realm)
        return self._challenger.headers(
            "WWW-Authenticate", realm, rules, request, source.host, context.unix_s, stale=stale
        )

    def verified(self, waiting: AwaitingRegistration, answer: CallerIdentity | Rejected | Unanswered) -> None:
        """auth's answer."""
        context = self._context
        server, source, credentials, traceparent = waiting
        request = server.request
        host, port, username = source.host, source.port, credentials.user
        if isinstance(answer, CallerIdentity):
            context.counters.succeeded(host, port, username, context.mono_s)
            if not self._is_own(request, answer, username):
                refuse = Refuse(Reason.CALLER_ID, "registration", text="To is not the user who registers")
                self._refuse(server, source, refuse, traceparent, answer.account_id)
                return
            self._register(server, source, credentials, answer)
        elif isinstance(answer, Rejected):
            context.counters.failed(host, port, username, context.mono_s)
            refuse = Refuse(answer.reason, "credentials", text="wrong credentials")
            if answer.reason is Reason.CREDENTIALS:
                # 22.1: asked again, alike for unknown user and wrong password.
                headers = self._challenge(request, source, credentials.realm, stale=False)
                context.answer(server, 401, None, headers)
                self._note(request, source, refuse, traceparent)
            else:
                self._refuse(server, source, refuse, traceparent)
        else:
            # Phones that are registered stay so; this one comes again (DESIGN D9).
            self._refuse(server, source, unavailable("auth", overloaded=answer.overloaded), traceparent)

    def _is_own(self, request: Request, identity: CallerIdentity, username: str) -> bool:
        """Whether To, the address that is registered, is the user's own (10.3 steps 3 to 5; no third parties)."""
        uri = request.to.uri
        if self._context.proxy.realm_of(uri) is None:
            return False
        user = uri.username
        return user == username or f"+{user.lstrip('+')}" in identity.numbers

    def _register(
        self, server: ServerTransaction, source: SocketAddress, credentials: Credentials, identity: CallerIdentity
    ) -> None:
        context = self._context
        outcome = registrar.register(
            server.request,
            realm=credentials.realm,
            username=credentials.user[:DIALLED_MAX],
            account_id=identity.account_id,
            source=source,
            current=self._locations.get(credentials.realm, credentials.user[:DIALLED_MAX]),
            unix_s=context.unix_s,
        )
        context.answer(server, outcome.status, outcome.reason, outcome.headers)
        location = outcome.location
        if location is not None:
            context.stats.registered += 1
            self._locations.put(location)
            latest_s = max((binding.expires_s for binding in location.bindings), default=context.unix_s)
            context.effects.append(StoreLocation(location, latest_s - context.unix_s))

    def _refuse(
        self, server: ServerTransaction, source: SocketAddress, refuse: Refuse, traceparent: str, account_id: str = ""
    ) -> None:
        context = self._context
        request = server.request
        answer = answer_for(refuse.reason, is_trunk=False, quota_status=403, retry_after_s=refuse.retry_after_s)
        headers = [("Retry-After", str(answer.retry_after_s))] if answer.retry_after_s else []
        context.answer(server, answer.status, None, headers)
        self._note(request, source, refuse, traceparent, account_id)

    def _note(
        self, request: Request, source: SocketAddress, refuse: Refuse, traceparent: str, account_id: str = ""
    ) -> None:
        self._context.note_refusal(
            refuse,
            request_method="REGISTER",
            call_id=request.call_id,
            traceparent=traceparent,
            source=source.host,
            account_id=account_id,
            passed=_PASSED,
        )
