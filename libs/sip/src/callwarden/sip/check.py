"""A message laid out as JSON-able values, for people: ``callwarden sip check FILE``.

In: one message.  Out: judgement about what it asks for; only its form is looked at.
"""

from __future__ import annotations

from typing import Any

from callwarden.sip.malformed import Malformed
from callwarden.sip.message import Request, Response
from callwarden.sip.nameaddr import NameAddr
from callwarden.sip.uri import Uri


def describe(message: Request | Response) -> dict[str, Any]:
    """The message, strictly read.  Raises Malformed with the reason if any known header is not what it should be."""
    message.validate()
    if isinstance(message, Request):
        start: dict[str, Any] = {"kind": "request", "method": message.method, "uri": _uri(message.uri)}
    else:
        start = {"kind": "response", "status": message.status, "reason": message.reason}
    cseq = message.cseq
    return {
        **start,
        "call_id": message.call_id,
        "cseq": {"number": cseq.number, "method": cseq.method},
        "from": _address(message.from_),
        "to": _address(message.to),
        "via": [
            {
                "transport": via.transport,
                "sent_by": via.sent_by,
                "branch": via.branch,
                "received": via.received,
                "rport": via.params.get("rport"),
            }
            for via in message.vias
        ],
        "max_forwards": message.max_forwards,
        "contact": "*" if message.contact_star else [_address(contact) for contact in message.contacts],
        "route": [str(route) for route in message.routes],
        "record_route": [str(route) for route in message.record_routes],
        "headers": [{"name": name, "value": value} for name, value in message.headers()],
        "body": _body(message),
    }


def _uri(uri: Uri) -> dict[str, Any]:
    if uri.opaque:
        return {"scheme": uri.scheme, "text": str(uri)}
    # The password is not shown: what is checked ends up in tickets.
    return {"scheme": uri.scheme, "user": uri.user, "host": uri.host, "port": uri.port, "params": uri.params}


def _address(address: NameAddr) -> dict[str, Any]:
    return {"display": address.display, "uri": _uri(address.uri), "params": address.params}


def _body(message: Request | Response) -> dict[str, Any] | None:
    if not message.body:
        return None
    found: dict[str, Any] = {"type": message.content_type, "bytes": len(message.body)}
    try:
        found["text"] = message.body.decode()
    except UnicodeDecodeError:
        found["hex"] = message.body.hex()
    return found


def explain(error: Malformed) -> dict[str, Any]:
    """Why a message was refused, and what a server would answer."""
    return {"reason": error.reason, "status": error.status, "answerable": error.request is not None}
