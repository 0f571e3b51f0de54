"""What auth needs of the outside world. Each docstring is the contract; tests/test_auth_credentials.py runs over every
implementation of CredentialStore.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from callwarden.auth.core.sealing import Sealed
from callwarden.auth.core.trunks import AuthTrunk
from callwarden.auth.core.users import AuthAccount, UserKey
from callwarden.policy.model import PolicySpec


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A stored credential, with its account's current state."""

    sealed: Sealed
    account: AuthAccount


@dataclass(frozen=True, slots=True)
class AuthAccountChange:
    """A changed account. `user` is None if all of its users may be affected."""

    account_id: str
    what: Literal["credential", "status", "limits", "numbers", "trunk"]
    user: UserKey | None = None
    numbers: tuple[str, ...] = ()
    """With "numbers": those that were given or taken away (E.164 digits); none: any may have been."""


class CredentialStore(Protocol):
    """Keeps accounts, credentials and trunks. Every method raises Unavailable if the store can't be reached."""

    async def look_up(self, users: Sequence[UserKey]) -> Mapping[UserKey, StoredCredential]:
        """The credentials of those of the users that exist, in one round trip."""
        ...

    async def enabled_trunks(self) -> list[AuthTrunk]:
        """All enabled trunks, at most TRUNKS_MAX."""
        ...

    async def numbers(self, after: str, limit: int) -> list[tuple[str, UUID]]:
        """The first `limit` numbers (E.164 digits, in the order of text) after `after`, with the accounts that own
        them."""
        ...

    async def owners(self, numbers: Sequence[str]) -> Mapping[str, UUID]:
        """The owners of those of the numbers that have one."""
        ...

    async def users_of_digits(self, after: UserKey, limit: int) -> list[tuple[UserKey, UUID]]:
        """The first `limit` users after `after`, by realm and name, whose names consist of at most 15 digits, with the
        accounts that they belong to."""
        ...

    async def accounts_of(self, users: Sequence[UserKey]) -> Mapping[UserKey, UUID]:
        """The accounts of those of the users that there are."""
        ...

    async def realm_of(self, account_id: str) -> str:
        """The account's realm. Raises NotFound."""
        ...

    async def set_credential(self, account_id: str, user: UserKey, sealed: Sealed) -> None:
        """Sets or replaces the credential, atomically. Raises NotFound if there is no such account, Conflict if the
        user name is another account's."""
        ...

    async def remove_credential(self, user: UserKey) -> str | None:
        """Removes it; returns its account's id, or None if there was none."""
        ...

    async def sealed_otherwise(self, key_id: str, after: UserKey, limit: int) -> Mapping[UserKey, Sealed]:
        """The first `limit` credentials after `after`, by realm and name, that are sealed with another key."""
        ...

    async def replace_seal(self, user: UserKey, old: Sealed, new: Sealed) -> bool:
        """Replaces `old` by `new` if it is still stored; returns whether it was."""
        ...


class AccountEventPublisher(Protocol):
    """Publishes changes of accounts."""

    def account_changed(self, change: AuthAccountChange) -> None:
        """Publishes the change now, or when the bus is available again. Doesn't block."""
        ...


class AuthPolicies(Protocol):
    """The policy in force."""

    def for_realm(self, realm: str) -> PolicySpec: ...
