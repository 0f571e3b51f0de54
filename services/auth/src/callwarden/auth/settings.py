"""Settings of an auth process, read from its environment."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from callwarden.auth.core.sealing import BadKey, SealingKeys
from callwarden.common import settings


class AuthSettings(settings.Settings):
    """Settings of every process, and these. Environment variables have the prefix CALLWARDEN_."""

    credential_key: SecretStr = Field(default=...)
    """Seals the credentials at rest: 64 hexadecimal digits (32 random bytes, from a secret). All auth processes
    share it. Without it, or with another one, nobody can log in."""

    credential_keys_old: SecretStr = SecretStr("")
    """Former keys, separated by commas, which still open. When auth starts, it reseals with the current key what a
    former one sealed, and logs `credentials.resealed`; after that you can remove them."""

    cache_users_max: Annotated[int, Field(ge=100, le=2_000_000)] = 50_000
    """Most users kept in memory, 700 bytes each. Set it above the number of active users to spare the database."""

    @field_validator("credential_key", "credential_keys_old")
    @classmethod
    def _is_keys(cls, value: SecretStr) -> SecretStr:
        for part in filter(None, map(str.strip, value.get_secret_value().split(","))):
            try:
                SealingKeys(part)
            except BadKey as error:
                raise ValueError(str(error)) from None
        return value

    def sealing_keys(self) -> SealingKeys:
        """The keys, ready for use."""
        old = filter(None, map(str.strip, self.credential_keys_old.get_secret_value().split(",")))
        return SealingKeys(self.credential_key.get_secret_value(), old)
