"""Header names: their one key whatever their spelling (RFC 3261 7.3.1 case, 7.3.3 compact forms).

In: names.  Out: values; each header that is read has a module of its own.
"""

from __future__ import annotations

from callwarden.sip.grammar import is_token
from callwarden.sip.malformed import Malformed

NAME_MAX = 128  # The longest registered name has 34 characters (IANA sip-parameters), RFC 4475 3.1.1.7 tries 92.

COMPACT = {
    "a": "accept-contact",  # RFC 3841
    "b": "referred-by",  # RFC 3892
    "c": "content-type",
    "d": "request-disposition",  # RFC 3841
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",  # RFC 3841
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "n": "identity-info",  # RFC 4474
    "o": "event",  # RFC 6665
    "r": "refer-to",  # RFC 3515
    "s": "subject",
    "t": "to",
    "u": "allow-events",  # RFC 6665
    "v": "via",
    "x": "session-expires",  # RFC 4028
    "y": "identity",  # RFC 8224
}

# May occur only once: a second one would let two readers see two different messages.  Of those that nobody acts on
# (Subject, User-Agent …) the RFC says the same, but a call needn't fail for them.
SINGLE = frozenset(
    {
        "call-id",
        "content-encoding",
        "content-length",
        "content-type",
        "cseq",
        "event",
        "expires",
        "from",
        "max-forwards",
        "min-expires",
        "refer-to",
        "referred-by",
        "reply-to",
        "retry-after",
        "session-expires",
        "to",
    }
)
REQUIRED = frozenset({"via", "from", "to", "call-id", "cseq"})  # and Max-Forwards, which RFC 2543 clients leave out

_SPELLED = """Accept Accept-Encoding Accept-Language Alert-Info Allow Allow-Events Authorization Call-ID Call-Info
Contact Content-Disposition Content-Encoding Content-Language Content-Length Content-Type CSeq Date Diversion Error-Info
Event Expires From History-Info Identity In-Reply-To Max-Forwards Min-Expires Min-SE Organization P-Access-Network-Info
P-Asserted-Identity P-Preferred-Identity Path Priority Privacy Proxy-Authenticate Proxy-Authorization Proxy-Require RAck
Reason Record-Route Refer-To Referred-By Remote-Party-ID Replaces Reply-To Require Retry-After Route RSeq Server
Service-Route Session-Expires Subject Subscription-State Supported Timestamp To Unsupported User-Agent Via Warning
WWW-Authenticate""".split()  # noqa: SIM905

# The spellings seen on the wire, straight to the key; anything else goes through ``canonical``.
KEYS: dict[str, str] = {}
for _name in _SPELLED:
    KEYS[_name] = KEYS[_name.lower()] = KEYS[_name.upper()] = KEYS[_name.title()] = _name.lower()
for _short, _key in COMPACT.items():
    KEYS[_short] = KEYS[_short.upper()] = _key
KEYS["Call-Id"] = "call-id"


def canonical(name: str) -> str:
    """The key of a header name: lower case, compact forms spelled out.  Raises Malformed if it is no header name."""
    if (key := KEYS.get(name)) is not None:
        return key
    name = name.rstrip(" \t")  # RFC 3261 7.3.1: "Call-ID : x"
    if len(name) > NAME_MAX or not is_token(name):
        raise Malformed("Bad Header Name")
    name = name.lower()
    return KEYS.get(name, name)
