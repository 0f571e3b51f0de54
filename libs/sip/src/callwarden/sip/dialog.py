"""Dialogs (RFC 3261 section 12): what two user agents agreed on, and the requests that follow from it.

In: the INVITE and an answer with tags, seen from an end or from between.  ``Dialog`` is one side's view; ``between``
gives a proxy both, so that it can end a call with a BYE to each side as if from the other.  Plain values.

Out: who may send what when (re-INVITE glare, session timers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from callwarden.sip import build
from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response
from callwarden.sip.nameaddr import NameAddr, parse_name_addr
from callwarden.sip.uri import Uri


@dataclass(frozen=True, slots=True)
class Dialog:
    """One side's view.  ``local`` is the side that sends our requests, ``remote`` the one that gets them."""

    call_id: str
    local: str  # From of our requests, tag included, as on the wire
    remote: str  # their To, tag included
    target: str  # their Request-URI: the remote Contact
    routes: tuple[str, ...]  # their Route values, first hop first, each with its brackets
    local_cseq: int  # the last used; 0: none yet
    remote_cseq: int  # the last seen; 0: none yet

    @property
    def local_tag(self) -> str:
        return parse_name_addr(self.local).tag or ""

    @property
    def remote_tag(self) -> str:
        return parse_name_addr(self.remote).tag or ""

    @property
    def id(self) -> tuple[str, str, str]:
        """Call-ID, local tag, remote tag (RFC 3261 12)."""
        return self.call_id, self.local_tag, self.remote_tag

    def request(
        self, method: str, via: str, *, headers: build.Headers = (), body: bytes = b""
    ) -> tuple[Dialog, Request]:
        """A request inside the dialog (RFC 3261 12.2.1.1), and the dialog after it.  ``via`` is a whole Via value.

        An ACK takes the number of the INVITE, so it must come before the next request.
        """
        cseq = self.local_cseq if method == "ACK" else self.local_cseq + 1
        uri, routes = self.target, self.routes
        if routes and not parse_name_addr(routes[0]).uri.is_loose:  # a strict router wants itself as Request-URI
            uri, routes = str(parse_name_addr(routes[0]).uri), (*routes[1:], f"<{self.target}>")
        request = build.request(
            method,
            uri,
            via=via,
            from_=self.local,
            to=self.remote,
            call_id=self.call_id,
            cseq=cseq,
            routes=routes,
            headers=headers,
            body=body,
        )
        return replace(self, local_cseq=cseq), request


def uac(request: Request, response: Response) -> Dialog:
    """The caller's view, from the INVITE as it sent it and the answer as it got it (RFC 3261 12.1.2)."""
    return Dialog(
        call_id=request.call_id,
        local=_tagged(request, "from"),
        remote=_tagged(response, "to"),
        target=_target(response),
        routes=tuple(_route(route) for route in reversed(response.record_routes)),
        local_cseq=request.cseq.number,
        remote_cseq=0,
    )


def uas(request: Request, response: Response) -> Dialog:
    """The callee's view, from the INVITE as it got it and the answer as it gave it (RFC 3261 12.1.1)."""
    return Dialog(
        call_id=request.call_id,
        local=_tagged(response, "to"),
        remote=_tagged(request, "from"),
        target=_target(request),
        routes=tuple(_route(route) for route in request.record_routes),
        local_cseq=0,
        remote_cseq=request.cseq.number,
    )


def between(request: Request, response: Response, is_ours: Callable[[Uri], bool]) -> tuple[Dialog, Dialog]:
    """A proxy's two views: (as the caller, to the callee) and (as the callee, to the caller).

    ``request`` is the INVITE as we got it from the caller's side (its Contact, and the Record-Routes of the proxies
    before us); ``response`` is the answer as we got it, with our Record-Routes in it, by which ``is_ours`` knows them.
    Raises Malformed if a tag or a Contact is missing.
    """
    routes = response.record_routes
    ours = [at for at, route in enumerate(routes) if is_ours(route.uri)]
    # Top is nearest to the callee.  An answer that lost its Record-Routes leaves the callee without a route.
    beyond = routes[: ours[0]] if ours else []
    as_caller = replace(uac(request, response), routes=tuple(_route(route) for route in reversed(beyond)))
    return as_caller, uas(request, response)


def _route(address: NameAddr) -> str:
    return f"<{address.uri}>" + "".join(f";{k}" if v is None else f";{k}={v}" for k, v in address.params.items())


def _tagged(message: Request | Response, name: str) -> str:
    address = message.from_ if name == "from" else message.to
    if address.tag is None:
        raise Malformed("Missing Tag")
    return message.get(name) or ""


def _target(message: Request | Response) -> str:
    contacts = message.contacts
    if not contacts:
        raise Malformed("Missing Contact")
    return str(contacts[0].uri)
