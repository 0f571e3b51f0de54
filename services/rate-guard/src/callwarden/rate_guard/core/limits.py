"""The policy's limits on addresses, compiled when the policy changes. callwarden.policy.model documents the fields."""

from collections.abc import Iterable
from dataclasses import dataclass

from callwarden.limits.windows import WindowShape
from callwarden.policy.model import PolicySpec
from callwarden.rate_guard.core.addresses import Networks


@dataclass(frozen=True, slots=True)
class AddressLimits:
    """The most of each kind within its window; one more bans."""

    messages: WindowShape
    messages_max: int
    wrong: WindowShape
    wrong_max: int
    failures: WindowShape
    failures_address_max: int
    failures_known_address_max: int
    failures_known_endpoint_max: int
    ban_s: int
    """How long a ban that a counter caused lasts."""
    never: Networks
    """The policy's allowed addresses and our own: never banned."""

    @property
    def longest_s(self) -> float:
        """Nothing older than this counts."""
        return max(window.period_s + window.width_s for window in (self.messages, self.wrong, self.failures))


def compile_limits(spec: PolicySpec, own: Iterable[str] = ()) -> AddressLimits:
    """`own`: addresses and networks of this installation, which an attacker can spoof as senders."""
    # reenabledosblocked: counters end after that time, too, so no window is longer.
    end_s = spec.messages.reset_after
    return AddressLimits(
        messages=WindowShape(min(spec.messages.per_address.period, end_s)),
        messages_max=spec.messages.per_address.max,
        wrong=WindowShape(min(spec.messages.wrong_per_address.period, end_s)),
        wrong_max=spec.messages.wrong_per_address.max,
        failures=WindowShape(min(spec.auth_failures.period, end_s)),
        failures_address_max=spec.auth_failures.per_address.max,
        failures_known_address_max=spec.auth_failures.per_known_address.max,
        failures_known_endpoint_max=spec.auth_failures.per_known_endpoint.max,
        ban_s=spec.messages.reset_after,
        never=Networks((*spec.firewall.allow, *own)),
    )
