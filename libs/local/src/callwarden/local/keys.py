"""The secrets of one local system: random, made once, kept in its state folder, so that a restart still reads its own
data.
"""

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Self

from callwarden.local.files import write_private


class KeysUnusable(Exception):
    """The file of secrets can't be used; the message says why."""


@dataclass(frozen=True, slots=True)
class LocalKeys:
    """All are hexadecimal or URL-safe text. Never printed: `repr` hides them."""

    nonce_key: str = field(repr=False)  # Signs nonces and Record-Route cookies (HMAC-SHA256).
    credential_key: str = field(repr=False)  # Encrypts accounts' secrets at rest (AES-256-GCM).
    database_password: str = field(repr=False)
    nats_password: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        return cls(secrets.token_hex(32), secrets.token_hex(32), secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    def role_password(self, service: str) -> str:
        """Of its database role: from the owner's, which it doesn't give away."""
        return hashlib.sha256(f"{service} {self.database_password}".encode()).hexdigest()

    def bus_password(self, role: str) -> str:
        """Of its user on NATS, likewise."""
        return hashlib.sha256(f"{role} {self.nats_password}".encode()).hexdigest()

    @classmethod
    def load_or_make(cls, path: Path, *, must_exist: bool = False) -> Self:
        """The secrets in the file; made if there is none, unless data that need the old ones exist. KeysUnusable."""
        try:
            if path.stat().st_mode & 0o077:
                raise KeysUnusable(f"{path} can be read by others: chmod 600 it, and consider the secrets known")
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            if must_exist:
                raise KeysUnusable(f"{path} is missing, and the data beside it can't be read without it") from None
            keys = cls.new()
            write_private(path, json.dumps(asdict(keys), indent=2) + "\n")
            return keys
        except ValueError as error:
            raise KeysUnusable(f"{path} is not JSON: {error}") from None
        try:
            return cls(**{entry.name: str(stored[entry.name]) for entry in fields(cls)})
        except (KeyError, TypeError):
            raise KeysUnusable(f"{path} lacks some of the secrets") from None
