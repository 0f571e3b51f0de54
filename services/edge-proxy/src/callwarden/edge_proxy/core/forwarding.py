"""Copies that are passed on: the edits of RFC 3261 16.6 on requests and 16.7 on responses.

In: Via, Max-Forwards, Record-Route, what must not leave. Out: where to, and whether.
"""

from callwarden.edge_proxy.core.context import Context
from callwarden.edge_proxy.core.cookie import PARAMETER
from callwarden.edge_proxy.core.validation import fingerprint
from callwarden.sip.message import Request
from callwarden.sip.via import MAGIC_COOKIE, Via

_BRANCH_BYTES = 8  # Too long to guess: nobody else can answer in the callee's place.


def forward(
    context: Context, request: Request, *, uri: str, cookie: str | None = None, branch: str | None = None
) -> Request:
    """A copy of the request for its next hop.

    `uri` is its Request-URI there; `cookie` makes a Record-Route; `branch` is given where no transaction is (16.11).
    """
    proxy = context.proxy
    copy = request.copy()
    copy.uri_text = uri
    copy._read.pop("@uri", None)
    copy.decrement_max_forwards()
    if cookie is not None:
        copy.push_record_route(f"sip:{proxy.address};lr;{PARAMETER}={cookie}")
    # Consumed here: a carrier has no business with our users' digests (16.6 step 3 lets us; RFC 3261 22.3).
    copy.remove("proxy-authorization")
    if branch is None:
        branch = f"{MAGIC_COOKIE}{context.random_bytes(_BRANCH_BYTES).hex()}-{fingerprint(request)}"
    copy.push_via(Via("UDP", proxy.uri_host, proxy.endpoint.port, {"branch": branch}))
    return copy


def clean_identity(copy: Request) -> None:
    """Take away what only a trusted peer may claim (RFC 3325 5, RFC 8224's carrier headers stay)."""
    copy.remove("p-asserted-identity")
    copy.remove("remote-party-id")
