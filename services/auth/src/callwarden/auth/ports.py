"""What auth needs of the world, in its own words. Each docstring is the contract; tests/contracts.py runs over all that
implement one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from callwarden.auth.core.sealing import Sealed
from callwarden.auth.core.trunks import SenderTrunk
from callwarden.auth.core.users import Account, UserKey
from callwarden.policy.model import PolicySpec


@dataclass(frozen=True, slots=True)
class Stored:
    """A credential as it is kept, with its account as it is now."""

    sealed: Sealed
    account: Account


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What the world is told when an account is not what it was. `user` is empty where all of its users may differ."""

    account_id: str
    what: Literal["credential", "status", "limits", "numbers", "trunk"]
    user: UserKey | None = None


class Accounts(Protocol):
    """Where accounts, credentials and trunks are kept. All methods raise Unavailable if it can't be asked."""

    async def look_up(self, users: Sequence[UserKey]) -> Mapping[UserKey, Stored]:
        """The credentials of those of the users that exist, in one round trip."""
        ...

    async def sender_trunks(self) -> list[SenderTrunk]:
        """All enabled trunks of direction traffic-sender, at most TRUNKS_MAX."""
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
        """The first credentials behind `after`, in order of realm and name, that aren't sealed with this key."""
        ...

    async def replace_seal(self, user: UserKey, old: Sealed, new: Sealed) -> bool:
        """Puts `new` where `old` still stands; whether it did."""
        ...


class Events(Protocol):
    """Where changes are told."""

    def account_changed(self, change: AccountChange) -> None:
        """Tells everybody, now or when it is possible again. Doesn't block."""
        ...


class Policies(Protocol):
    """The policy that holds now."""

    def for_realm(self, realm: str) -> PolicySpec: ...
