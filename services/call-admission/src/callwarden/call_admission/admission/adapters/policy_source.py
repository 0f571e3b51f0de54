"""The policy that the process follows, compiled for admission once a revision."""

from collections.abc import Callable

from callwarden.call_admission.model.policy import AdmissionPolicies, AdmissionPolicy
from callwarden.common import policy
from callwarden.policy.bundle import PolicySet


class CompiledPolicies:
    """Implements ports.PolicySource."""

    def __init__(self, followed: policy.Policies) -> None:
        self._current = AdmissionPolicies(followed.current)
        self._followed = followed
        followed.on_change(self._swap)

    def on_change(self, then: Callable[[], None]) -> None:
        """Has `then` called after each swap."""
        self._followed.on_change(lambda _: then())

    def _swap(self, policies: PolicySet) -> None:
        self._current = AdmissionPolicies(policies)

    @property
    def revision(self) -> int:
        return self._current.revision

    def for_realm(self, realm: str) -> AdmissionPolicy:
        return self._current.for_realm(realm)
