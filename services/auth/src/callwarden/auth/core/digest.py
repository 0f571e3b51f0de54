"""Checks digest answers (RFC 7616, RFC 8760). The edge, which has the request, checks the nonce, its age, and that the
digest-uri is that of the request.
"""

from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from callwarden.auth.core.users import Ha1s, UserKey, name_in_full
from callwarden.sip.digest import Algorithm, ha1, response_for

_BY_NAME: Final = {"": Algorithm.MD5} | {
    str(algorithm): algorithm for algorithm in Algorithm
}  # RFC 7616 3.3: none is MD5

ALLOWED: Final[dict[int, frozenset[Algorithm]]] = {
    0: frozenset({Algorithm.MD5}),
    1: frozenset(Algorithm),
    2: frozenset({Algorithm.SHA_256, Algorithm.SHA_512_256}),
}
"""The accepted algorithms, by the policy's `authentication.digest.algorithms`."""


@dataclass(slots=True)
class DigestAnswer:
    """What a phone sent, as text. Not frozen, which would double the cost (1.2 µs); nothing changes it.

    `source`: the address it came from. `is_registered`: the edge knows a phone of that user there. `in_full`: it gave
    its name as user@realm.
    """

    user: UserKey
    method: str
    uri: str
    nonce: str
    nonce_count: str
    cnonce: str
    qop: str
    """ "auth", or empty for an RFC 2069 client. """
    algorithm: str
    response: str
    source: str = ""
    is_registered: bool = False
    in_full: bool = False

    def __repr__(self) -> str:
        return f"<DigestAnswer of {self.user.username}>"  # A response in a log can be attacked offline.


def algorithm_of(answer: DigestAnswer, allowed: frozenset[Algorithm]) -> Algorithm | None:
    """The algorithm to check with, or None if the answer's is not allowed, or its form is not what we challenge for."""
    algorithm = _BY_NAME.get(answer.algorithm)
    return algorithm if algorithm in allowed and answer.qop in ("", "auth") else None


def is_right(answer: DigestAnswer, algorithm: Algorithm, ha1s: Ha1s) -> bool:
    """Whether the answer was made with the password. Takes the same time for any wrong one: 5 µs."""
    if answer.in_full and ha1s.in_full is not None:
        ha1s = ha1s.in_full
    match algorithm:
        case Algorithm.MD5:
            known = ha1s.md5
        case Algorithm.SHA_256:
            known = ha1s.sha256
        case Algorithm.SHA_512_256:
            known = ha1s.sha512_256
    expected = response_for(
        algorithm,
        known,
        answer.method,
        answer.uri,
        answer.nonce,
        qop=answer.qop or None,
        nc=answer.nonce_count,
        cnonce=answer.cnonce,
    )
    return compare_digest(expected.encode(), answer.response.encode())


def ha1s_of(user: UserKey, password: str) -> Ha1s:
    """The values stored instead of the password."""
    return Ha1s(
        *_by_algorithm(user.username, user.realm, password),
        in_full=Ha1s(*_by_algorithm(name_in_full(user), user.realm, password)),
    )


def _by_algorithm(username: str, realm: str, password: str) -> tuple[str, str, str]:
    return (
        ha1(Algorithm.MD5, username, realm, password),
        ha1(Algorithm.SHA_256, username, realm, password),
        ha1(Algorithm.SHA_512_256, username, realm, password),
    )
