"""Digest access authentication (RFC 7616, RFC 8760, RFC 3261 22): challenges, answers to them, nonces.

In: MD5, SHA-256 and SHA-512-256; qop auth, and none (RFC 2069 clients).  Nonces are stateless: time and an HMAC, so any
pod that has the key can check what another one issued.  Out: who the users are and what they know (their HA1 is an
argument); auth-int and the -sess algorithms, which SIP phones don't use; chance (the salt is an argument).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import md5, new, sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import NamedTuple

from callwarden.sip.grammar import TOKEN, quote, unescape
from callwarden.sip.malformed import Malformed

CREDENTIALS_MAX = 2048  # An Authorization with SHA-512-256 and a long nonce has about 500 characters.
FIELDS_MAX = 20  # RFC 7616 names eleven.

_scheme_at = re.compile(r"[Dd][Ii][Gg][Ee][Ss][Tt][ \t]+").match
# Commas with nothing between them are one (RFC 9110 5.6.1). Possessive, for there is one way to read them.
_FIELD = (
    r"[ \t]*({token})[ \t]*=[ \t]*(?:\"([^\"\\]*(?:\\.[^\"\\]*)*)\"|([^\",\s]+))[ \t]*(?:,(?:[ \t]*+,)*+|$)".replace(
        "{token}", TOKEN
    )
)
_fields = re.compile(_FIELD, re.DOTALL).findall
# Asked first: in text that is no list of fields findall would look for one from every place.
_are_fields = re.compile(f"(?:{_FIELD})+", re.DOTALL).fullmatch
_is_hex = re.compile(r"[0-9a-fA-F]+").fullmatch


class Algorithm(StrEnum):
    """The algorithms spoken here; values as on the wire."""

    MD5 = "MD5"
    SHA_256 = "SHA-256"
    SHA_512_256 = "SHA-512-256"


_HEX_DIGITS = {Algorithm.MD5: 32, Algorithm.SHA_256: 64, Algorithm.SHA_512_256: 64}
_BY_NAME = {algorithm.lower(): algorithm for algorithm in Algorithm}


def _hash(algorithm: Algorithm, text: str) -> str:
    data = text.encode()
    match algorithm:
        case Algorithm.MD5:
            return md5(data, usedforsecurity=False).hexdigest()  # asked for by the phone, offered by policy only
        case Algorithm.SHA_256:
            return sha256(data).hexdigest()
        case Algorithm.SHA_512_256:
            return new("sha512_256", data).hexdigest()


def ha1(algorithm: Algorithm, username: str, realm: str, password: str) -> str:
    """H(username:realm:password) in hex: what is kept instead of the password (RFC 7616 3.4.2)."""
    return _hash(algorithm, f"{username}:{realm}:{password}")


def response_for(
    algorithm: Algorithm,
    ha1_hex: str,
    method: str,
    uri: str,
    nonce: str,
    *,
    qop: str | None = None,
    nc: str = "",
    cnonce: str = "",
) -> str:
    """The digest of an answer in hex (RFC 7616 3.4.1; RFC 2069 style without qop)."""
    ha2 = _hash(algorithm, f"{method}:{uri}")
    if qop is None:
        return _hash(algorithm, f"{ha1_hex}:{nonce}:{ha2}")
    return _hash(algorithm, f"{ha1_hex}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}")


def userhash(algorithm: Algorithm, username: str, realm: str) -> str:
    """What replaces the user name where userhash=true (RFC 7616 3.4.4)."""
    return _hash(algorithm, f"{username}:{realm}")


class Credentials(NamedTuple):
    """A Digest Authorization or Proxy-Authorization.  Text, quotes undone; nothing of it is proven."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str  # hex in lower case
    algorithm: Algorithm
    qop: str | None  # "auth", or None
    nc: str  # eight hex digits, '' without qop
    cnonce: str
    opaque: str
    userhash: bool

    @property
    def user(self) -> str:
        """The user name, without the realm where a phone gives its whole address for it."""
        return self.username.removesuffix(f"@{self.realm}")

    def verify(self, ha1_hex: str, method: str) -> bool:
        """The response is that of a user with this HA1 (of this algorithm), for this method.  Takes constant time.

        That the nonce is fresh, the realm ours and the uri that of the request is for the caller to see to.
        """
        expected = response_for(
            self.algorithm, ha1_hex, method, self.uri, self.nonce, qop=self.qop, nc=self.nc, cnonce=self.cnonce
        )
        return compare_digest(expected.encode(), self.response.encode())

    def __str__(self) -> str:
        fields = [
            f"username={quote(self.username)}",
            f"realm={quote(self.realm)}",
            f"nonce={quote(self.nonce)}",
            f"uri={quote(self.uri)}",
            f'response="{self.response}"',
            f"algorithm={self.algorithm}",
        ]
        if self.qop is not None:
            fields += [f"qop={self.qop}", f"nc={self.nc}", f"cnonce={quote(self.cnonce)}"]
        if self.opaque:
            fields.append(f"opaque={quote(self.opaque)}")
        if self.userhash:
            fields.append("userhash=true")
        return f"Digest {', '.join(fields)}"

    def __repr__(self) -> str:
        return "<Credentials>"  # a digest in a log can be attacked offline


def parse_fields(text: str) -> dict[str, str]:
    """``Digest a=1, b="2"`` as names in lower case and values without quotes.  Raises Malformed."""
    if len(text) > CREDENTIALS_MAX:
        raise Malformed("Credentials Too Long")
    scheme = _scheme_at(text)
    if scheme is None:
        raise Malformed("Not Digest")
    if _are_fields(text, scheme.end()) is None:
        raise Malformed("Bad Credentials")
    found = _fields(text, scheme.end())
    fields = {name.lower(): plain or (unescape(quoted) if "\\" in quoted else quoted) for name, quoted, plain in found}
    if len(fields) != len(found) or len(found) > FIELDS_MAX:
        raise Malformed("Bad Credentials")  # RFC 7616 3.4: each at most once
    return fields


def parse_credentials(text: str) -> Credentials:
    """Read an Authorization or Proxy-Authorization value.  Raises Malformed; answer as to a wrong password."""
    fields = parse_fields(text)
    algorithm = _BY_NAME.get(fields.get("algorithm", "MD5").lower())  # RFC 7616 3.3: absent is MD5
    qop = fields.get("qop")
    if algorithm is None or (qop is not None and qop.lower() != "auth"):
        raise Malformed("Digest Variant Not Supported")
    try:
        credentials = Credentials(
            fields["username"],
            fields["realm"],
            fields["nonce"],
            fields["uri"],
            fields["response"].lower(),
            algorithm,
            qop,
            fields["nc"] if qop is not None else "",
            fields["cnonce"] if qop is not None else "",
            fields.get("opaque", ""),
            fields.get("userhash", "").lower() == "true",
        )
    except KeyError:
        raise Malformed("Incomplete Credentials") from None
    if len(credentials.response) != _HEX_DIGITS[algorithm] or _is_hex(credentials.response) is None:
        raise Malformed("Bad Credentials")
    if qop is not None and (len(credentials.nc) != 8 or _is_hex(credentials.nc) is None):
        raise Malformed("Bad Credentials")
    return credentials


@dataclass(frozen=True, slots=True)
class Challenge:
    """A WWW-Authenticate or Proxy-Authenticate value.  One for each algorithm, best first (RFC 8760 2.3)."""

    realm: str
    nonce: str
    algorithm: Algorithm
    qop: bool = True
    stale: bool = False
    opaque: str = ""

    def __str__(self) -> str:
        text = f'Digest realm={quote(self.realm)}, nonce="{self.nonce}", algorithm={self.algorithm}'
        if self.qop:
            text += ', qop="auth"'
        if self.stale:
            text += ", stale=true"
        return f"{text}, opaque={quote(self.opaque)}" if self.opaque else text

    def answer(
        self, username: str, password: str, method: str, uri: str, *, cnonce: str = "", nc: int = 1
    ) -> Credentials:
        """What a client answers."""
        qop, count = ("auth", f"{nc:08x}") if self.qop else (None, "")
        digest = response_for(
            self.algorithm,
            ha1(self.algorithm, username, self.realm, password),
            method,
            uri,
            self.nonce,
            qop=qop,
            nc=count,
            cnonce=cnonce,
        )
        return Credentials(
            username,
            self.realm,
            self.nonce,
            uri,
            digest,
            self.algorithm,
            qop,
            count,
            cnonce if qop else "",
            self.opaque,
            False,
        )


def parse_challenge(text: str) -> Challenge:
    """Read a WWW-Authenticate or Proxy-Authenticate value.  Raises Malformed."""
    fields = parse_fields(text)
    algorithm = _BY_NAME.get(fields.get("algorithm", "MD5").lower())
    offered = [qop.strip().lower() for qop in fields.get("qop", "").split(",")]
    if algorithm is None or (offered != [""] and "auth" not in offered):
        raise Malformed("Digest Variant Not Supported")
    if "realm" not in fields or "nonce" not in fields:
        raise Malformed("Incomplete Challenge")
    return Challenge(
        fields["realm"],
        fields["nonce"],
        algorithm,
        "auth" in offered,
        fields.get("stale", "").lower() == "true",
        fields.get("opaque", ""),
    )


class Freshness(StrEnum):
    """What a nonce is worth."""

    FRESH = "fresh"
    STALE = "stale"  # ours, but too old: challenge again with stale=true; counts as nothing
    FORGED = "forged"  # never issued by us, or issued to another address


_MAC_BYTES = 16
_SALT_BYTES = 5  # makes 30 bytes, which base64 writes without padding
_NONCE_BYTES = 1 + 8 + _SALT_BYTES + _MAC_BYTES
_NONCE_CHARS = 4 * ((_NONCE_BYTES + 2) // 3)


@dataclass(frozen=True, slots=True)
class NonceKeys:
    """The keys that nonces are signed with, by their number (0 to 255); all pods have the same.

    ``current`` signs; the others are still accepted, so that keys can be rotated: add the new one everywhere, make it
    current, take the old one away when its nonces are stale.
    """

    keys: Mapping[int, bytes]
    current: int

    def __post_init__(self) -> None:
        if self.current not in self.keys or not all(0 <= number < 256 for number in self.keys):
            raise ValueError("nonce keys are numbered 0 to 255, and the current one is among them")
        if any(len(key) < 16 for key in self.keys.values()):
            raise ValueError("a nonce key has at least 16 bytes")

    def __repr__(self) -> str:
        return f"<NonceKeys {sorted(self.keys)} current {self.current}>"

    def issue(self, unix_s: float, salt: bytes, binding: str = "") -> str:
        """A nonce of this moment.  ``salt``: 5 random bytes.  ``binding``: what it is good for, such as the source."""
        if len(salt) != _SALT_BYTES:
            raise ValueError("the salt has 5 bytes")
        head = bytes((self.current,)) + int(unix_s * 1000).to_bytes(8, "big") + salt
        mac = hmac_digest(self.keys[self.current], head + binding.encode(), "sha256")[:_MAC_BYTES]
        return urlsafe_b64encode(head + mac).decode()

    def check(self, nonce: str, unix_s: float, max_age_s: float, binding: str = "") -> Freshness:
        """Ours, and not older than ``max_age_s``?  A time ahead of ours (another pod's clock) passes by as much."""
        if len(nonce) != _NONCE_CHARS or not nonce.isascii():
            return Freshness.FORGED
        try:
            data = urlsafe_b64decode(nonce)
        except ValueError:
            return Freshness.FORGED
        if len(data) != _NONCE_BYTES or (key := self.keys.get(data[0])) is None:
            return Freshness.FORGED
        head, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if not compare_digest(hmac_digest(key, head + binding.encode(), "sha256")[:_MAC_BYTES], mac):
            return Freshness.FORGED
        age_s = unix_s - int.from_bytes(head[1:9], "big") / 1000
        return Freshness.FRESH if -max_age_s <= age_s <= max_age_s else Freshness.STALE


def challenges(realm: str, nonce: str, algorithms: Sequence[Algorithm], *, stale: bool = False) -> list[Challenge]:
    """One challenge for each algorithm, in the order given: best first (RFC 8760 2.3)."""
    return [Challenge(realm, nonce, algorithm, stale=stale) for algorithm in algorithms]
