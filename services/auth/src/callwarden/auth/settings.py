"""What auth is told by its environment."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from callwarden.auth.core.sealing import BadKey, SealingKeys
from callwarden.common import settings


class Settings(settings.Settings):
    """The process's settings and these; every name gets the prefix CALLWARDEN_."""

    credential_key: SecretStr = Field(default=...)
    """Seals the credentials at rest: 64 hexadecimal digits (32 bytes of chance, from a secret). All processes of auth
    have the same. Without it, or with another one, nobody can log in."""

    credential_keys_old: SecretStr = SecretStr("")
    """Former keys with commas: they still open. When auth starts it seals with the present key what an old one sealed,
    and logs `credentials.resealed`; after that they can go."""

    cache_users_max: Annotated[int, Field(ge=100, le=2_000_000)] = 50_000
    """Users kept in memory, 700 bytes each. With fewer than call at the same time, the database is asked more."""

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
