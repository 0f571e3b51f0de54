"""Accounts and credentials in memory, for tests. The same contract suite runs over it and over the database."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from callwarden.auth.core.numbers import is_digits
from callwarden.auth.core.sealing import Sealed
from callwarden.auth.core.trunks import AuthTrunk
from callwarden.auth.core.users import AuthAccount, UserKey
from callwarden.auth.ports import StoredCredential
from callwarden.kernel.errors import Conflict, NotFound, Unavailable


class MemoryCredentialStore:
    """ports.CredentialStore. `accounts` by id, with their realm; `trunks` the enabled ones; `down` makes it
    unavailable; `asked` has the users of each look-up."""

    def __init__(self) -> None:
        self.accounts: dict[str, tuple[str, AuthAccount]] = {}
        self.credentials: dict[UserKey, tuple[str, Sealed]] = {}
        self.trunks: list[AuthTrunk] = []
        self.down = False
        self.asked: list[tuple[UserKey, ...]] = []

    async def look_up(self, users: Sequence[UserKey]) -> Mapping[UserKey, StoredCredential]:
        self._check_up()
        self.asked.append(tuple(users))
        found = {}
        for user in users:
            if user in self.credentials:
                account_id, sealed = self.credentials[user]
                found[user] = StoredCredential(sealed, self.accounts[account_id][1])
        return found

    async def enabled_trunks(self) -> list[AuthTrunk]:
        self._check_up()
        return list(self.trunks)

    async def numbers(self, after: str, limit: int) -> list[tuple[str, UUID]]:
        self._check_up()
        return [(number, owner) for number, owner in sorted(self._owners().items()) if number > after][:limit]

    async def owners(self, numbers: Sequence[str]) -> Mapping[str, UUID]:
        self._check_up()
        return {number: owner for number, owner in self._owners().items() if number in numbers}

    async def users_of_digits(self, after: UserKey, limit: int) -> list[tuple[UserKey, UUID]]:
        self._check_up()
        users = sorted(user for user in self.credentials if is_digits(user.username) and user > after)
        return [(user, UUID(self.credentials[user][0])) for user in users[:limit]]

    async def accounts_of(self, users: Sequence[UserKey]) -> Mapping[UserKey, UUID]:
        self._check_up()
        return {user: UUID(self.credentials[user][0]) for user in users if user in self.credentials}

    def _owners(self) -> dict[str, UUID]:
        return {
            number.removeprefix("+"): UUID(account.id)
            for _, account in self.accounts.values()
            for number in account.numbers
        }

    async def realm_of(self, account_id: str) -> str:
        self._check_up()
        return self._account(account_id)[0]

    async def set_credential(self, account_id: str, user: UserKey, sealed: Sealed) -> None:
        self._check_up()
        self._account(account_id)
        if self.credentials.get(user, (account_id,))[0] != account_id:
            raise Conflict("another account has this user name", field="username")
        self.credentials[user] = account_id, sealed

    async def remove_credential(self, user: UserKey) -> str | None:
        self._check_up()
        removed = self.credentials.pop(user, None)
        return None if removed is None else removed[0]

    async def sealed_otherwise(self, key_id: str, after: UserKey, limit: int) -> Mapping[UserKey, Sealed]:
        self._check_up()
        others = sorted(user for user, (_, sealed) in self.credentials.items() if sealed.key_id != key_id)
        return {user: self.credentials[user][1] for user in [user for user in others if user > after][:limit]}

    async def replace_seal(self, user: UserKey, old: Sealed, new: Sealed) -> bool:
        self._check_up()
        if user not in self.credentials or self.credentials[user][1] != old:
            return False
        self.credentials[user] = self.credentials[user][0], new
        return True

    def _account(self, account_id: str) -> tuple[str, AuthAccount]:
        if account_id not in self.accounts:
            raise NotFound("there is no such account", field="account_id")
        return self.accounts[account_id]

    def _check_up(self) -> None:
        if self.down:
            raise Unavailable("the database is not available")
