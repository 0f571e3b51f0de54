"""A ban as a value. `counters` decides when to ban; `ports` says where bans are kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from callwarden.kernel.clock import UnixS
from callwarden.kernel.errors import Invalid
from callwarden.rate_guard.core.addresses import Networks, address_of, host_of
from callwarden.rate_guard.core.counters import ExceededLimit

PERMANENT: Final = 0.0
REASON_CHARS_MAX: Final = 200  # One line of text.

By = Literal["counter", "operator"]


@dataclass(frozen=True, slots=True)
class Ban:
    """Nothing is served from `target`, an address or endpoint, from `since_s` until `until_s` (Unix seconds)."""

    target: str
    reason: str
    """A callwarden.kernel.verdict.Reason value, or what the operator gave."""
    evidence: str
    since_s: float
    until_s: float
    """PERMANENT: until it is lifted."""
    by: By

    def is_active_at(self, unix_s: UnixS) -> bool:
        return self.until_s == PERMANENT or unix_s < self.until_s


def for_excess(excess: ExceededLimit, ban_s: int, never: Networks, unix_s: UnixS) -> Ban | None:
    """The ban for an exceeded limit, or None for an address that must not be banned."""
    if host_of(excess.target) in never:
        return None
    return Ban(excess.target, excess.reason.value, excess.evidence, unix_s, unix_s + ban_s, "counter")


def by_operator(target: str, reason: str, duration_s: int, never: Networks, unix_s: UnixS) -> Ban:
    """The ban that an operator sets; 0 seconds: permanent. Raises Invalid."""
    if host_of(target) in never:
        raise Invalid(f"{target} is an allowed or own address, which must not be banned", field="address")
    reason = " ".join(reason.split()) or "operator"
    if len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise Invalid(f"a reason has at most {REASON_CHARS_MAX} printable characters", field="reason")
    return Ban(target, reason, "", unix_s, unix_s + duration_s if duration_s else PERMANENT, "operator")


def on(address: str, bans: Iterable[Ban]) -> list[Ban]:
    """The bans on an address or endpoint, and, on an address, those on its endpoints."""
    return [ban for ban in bans if address in (ban.target, address_of(ban.target))]
