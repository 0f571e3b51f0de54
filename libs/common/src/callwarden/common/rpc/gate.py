"""Whom a server lets in: the caller's role, by certificate or token, and whether the method allows it.

Asked once a call and once a stream, by the interceptor of every server; the items of a stream are asked about by their
own methods, from the roles found when it was opened. Which method allows whom is in `access`.
"""

import time
from collections.abc import Iterable
from typing import Any, Final, Protocol, TypeAlias

from callwarden.common.logs import get_logger
from callwarden.common.metrics import Metric, Metrics
from callwarden.common.rpc.access import ROLES, callers_of
from callwarden.common.rpc.tokens import METADATA_KEY, TokenHashes
from callwarden.kernel.errors import Denied, Unauthenticated

log = get_logger(__name__)

LOG_EVERY_S: Final = 1.0  # A stranger may try ten thousand times a second; each try is counted.

REFUSED = Metric(
    "callwarden_rpc_callers_refused_total",
    "counter",
    "{calls}",
    "Calls and streams of callers without a known identity, or whose role the method doesn't allow.",
    labels=("method", "reason"),
)

Roles: TypeAlias = frozenset[str]
"""What a caller has proved to be: one role as a rule."""


class CallerIdentities(Protocol):
    """Who is calling."""

    def roles(self, context: Any) -> Roles:
        """The roles that the call's connection or metadata prove; empty if none."""
        ...


class CertificateIdentities:
    """By mutual TLS: gRPC has checked that our authority signed the certificate, so its names are true.

    A role is one of its subject alternative names, or where it has none its common name.
    """

    def roles(self, context: Any) -> Roles:
        shown = context.auth_context()
        names = shown.get("x509_subject_alternative_name") or shown.get("x509_common_name") or ()
        return ROLES.intersection(name.decode("utf-8", "replace") for name in names)


class TokenIdentities:
    """By the token in a call's metadata."""

    def __init__(self, hashes: TokenHashes) -> None:
        self._hashes = hashes

    def roles(self, context: Any) -> Roles:
        shown = [value for key, value in context.invocation_metadata() or () if key == METADATA_KEY]
        return self._hashes.roles(str(shown[0])) if len(shown) == 1 else frozenset()


class Gate:
    """`Gate(identities, metrics)`; without identities everybody may call everything."""

    def __init__(self, identities: CallerIdentities | None = None, metrics: Metrics | None = None) -> None:
        self._identities = identities
        self._metrics = metrics or Metrics()
        self._logged_s = 0.0
        self._unlogged = 0

    @property
    def is_open(self) -> bool:
        return self._identities is None

    def admit(self, method: str, context: Any) -> Roles:
        """The caller's roles. Raises Unauthenticated for a stranger, Denied where the method allows none of them."""
        if self._identities is None:
            return ROLES
        roles = self._identities.roles(context)
        if not roles:
            self._refused(method, "unknown caller", roles, context)
            raise Unauthenticated("this service answers only callers that it knows")
        if callers_of(method).isdisjoint(roles):
            self._refused(method, "role", roles, context)
            raise Denied(f"{_named(roles)} may not call {method.rpartition('/')[2]}")
        return roles

    def allows(self, method: str, roles: Roles) -> bool:
        """Whether the method allows one of these roles."""
        return self._identities is None or not callers_of(method).isdisjoint(roles)

    def _refused(self, method: str, reason: str, roles: Roles, context: Any) -> None:
        self._metrics.counter(REFUSED, method, reason).value += 1
        mono_s = time.monotonic()
        if mono_s - self._logged_s < LOG_EVERY_S:
            self._unlogged += 1
            return
        peer, unlogged = context.peer(), self._unlogged
        self._logged_s, self._unlogged = mono_s, 0
        log.warning("rpc.caller_refused", method=method, reason=reason, role=_named(roles), peer=peer, more=unlogged)


def _named(roles: Iterable[str]) -> str:
    return "+".join(sorted(roles))
