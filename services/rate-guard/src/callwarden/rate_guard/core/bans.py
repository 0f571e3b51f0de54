"""A ban as a value. How it comes about is in `counters`, where it is kept in `ports`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from callwarden.kernel.errors import Invalid
from callwarden.rate_guard.core.addresses import Networks, address_of
from callwarden.rate_guard.core.counters import Excess

PERMANENT: Final = 0.0
REASON_CHARS_MAX: Final = 200  # One line for people.

By = Literal["counter", "operator"]


@dataclass(frozen=True, slots=True)
class Ban:
    """Nothing is served from `target`, an address or endpoint, from `since_s` until `until_s` (wall seconds)."""

    target: str
    reason: str
    """A callwarden.kernel.verdict.Reason value, or the operator's word."""
    evidence: str
    since_s: float
    until_s: float
    """PERMANENT: until it is lifted."""
    by: By

    def holds_at(self, now_s: float) -> bool:
        return self.until_s == PERMANENT or now_s < self.until_s


def for_excess(excess: Excess, ban_s: int, never: Networks, now_s: float) -> Ban | None:
    """The ban that a passed limit causes, or None for an address that may not be banned."""
    if address_of(excess.target) in never:
        return None
    return Ban(excess.target, excess.reason.value, excess.evidence, now_s, now_s + ban_s, "counter")


def by_operator(target: str, reason: str, duration_s: int, never: Networks, now_s: float) -> Ban:
    """The ban that a person sets; 0 seconds: permanent. Raises Invalid."""
    if address_of(target) in never:
        raise Invalid(f"{target} is an allowed or own address, which is never banned", field="address")
    reason = " ".join(reason.split()) or "operator"
    if len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise Invalid(f"a reason has at most {REASON_CHARS_MAX} printable characters", field="reason")
    return Ban(target, reason, "", now_s, now_s + duration_s if duration_s else PERMANENT, "operator")


def on(address: str, bans: Iterable[Ban]) -> list[Ban]:
    """The bans on an address or endpoint, and, on an address, those on its endpoints."""
    return [ban for ban in bans if address in (ban.target, address_of(ban.target))]
