"""What every capability asks of the process: the policy and the number lists in force. Docstrings are the contract."""

from typing import Protocol

from callwarden.call_admission.model.lists import Lists
from callwarden.call_admission.model.policy import AdmissionPolicy


class PolicySource(Protocol):
    """The policy that holds now."""

    @property
    def revision(self) -> int: ...

    def for_realm(self, realm: str) -> AdmissionPolicy: ...


class ListSource(Protocol):
    """The number lists that hold now."""

    @property
    def current(self) -> Lists: ...
