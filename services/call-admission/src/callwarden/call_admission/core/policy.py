"""A realm's policy as admission uses it: compiled once when it is swapped, so that a call only looks things up.

Out: the fields' meaning and defaults (callwarden.policy.model), how a bundle comes here (callwarden.common.policy).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from callwarden.kernel.verdict import Mode
from callwarden.policy.bundle import PolicySet
from callwarden.policy.model import PolicySpec

_MODES: Final = {"Enforce": Mode.ENFORCE, "Report": Mode.REPORT, "Off": Mode.OFF}


@dataclass(frozen=True, slots=True)
class SlicePolicy:
    """Sizes of the pieces in which talk time is paid for."""

    first_s: int
    next_s: int
    minimum_s: int


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What one realm's policy says about calls."""

    revision: int
    modes: Mapping[str, Mode]
    """By rule name; a rule that isn't named is enforced."""
    lines_max: int
    daily_enduser_micros: int | None
    daily_traffic_sender_micros: int | None
    slice: SlicePolicy
    talk_s_max: int
    setup_s_max: int
    """From the admission to the answer, at most."""
    grace_s: int
    reject_status: int
    block_premium: bool
    block_satellite: bool
    allowed_prefixes: frozenset[str]
    blocked_prefixes: frozenset[str]
    reports: bool
    """Whether some rule is only reported."""

    @classmethod
    def of(cls, spec: PolicySpec, revision: int) -> "AdmissionPolicy":
        session, spend, fraud = spec.session, spec.spend, spec.fraud
        return cls(
            revision=revision,
            modes={name: _MODES[getattr(spec.modes, name)] for name in type(spec.modes).model_fields},
            lines_max=spec.lines.max,
            daily_enduser_micros=spend.daily.end_user,
            daily_traffic_sender_micros=spend.daily.traffic_sender,
            slice=SlicePolicy(spend.slice.first, spend.slice.next, spend.slice.minimum),
            talk_s_max=min(session.call_timeout, session.absolute_timeout),
            setup_s_max=session.ring_timeout + session.call_init_timeout,
            grace_s=spend.grace,
            reject_status=spend.reject_status,
            block_premium=fraud.block_premium,
            block_satellite=fraud.block_satellite,
            allowed_prefixes=frozenset(fraud.destinations.allow),
            blocked_prefixes=frozenset(fraud.destinations.block),
            reports=any(getattr(spec.modes, name) == "Report" for name in type(spec.modes).model_fields),
        )


class Policies:
    """One revision for all realms: what is swapped whole."""

    def __init__(self, policies: PolicySet) -> None:
        self.revision = policies.revision
        self._policies = policies
        self._compiled: dict[str, AdmissionPolicy] = {}

    def for_realm(self, realm: str) -> AdmissionPolicy:
        found = self._compiled.get(realm)
        if found is None:
            # Realms are those of accounts in our database, not what a packet says: bounded by it.
            found = AdmissionPolicy.of(self._policies.for_realm(realm), self.revision)
            self._compiled[realm] = found
        return found
