"""HA1 values at rest, sealed with AES-256-GCM: the database alone is not enough to log in.

In: keys, their names, sealing and opening. Out: where keys come from (settings); the salt is an argument.

A sealed value is bound to its user (name and realm are authenticated with it): rows that are swapped in the database
don't open. To rotate keys, make the new one current and keep the old one among the others until every row is resealed
(`app.reseal`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from callwarden.auth.core.users import Ha1s, UserKey

KEY_BYTES: Final = 32
SALT_BYTES: Final = 12  # NIST SP 800-38D section 8.2.2: random nonces of 96 bits are good for 2^32 seals a key.
_TAG_BYTES: Final = 16
_HA1_BYTES: Final = (16, 32, 32)
_PLAIN_BYTES: Final = sum(_HA1_BYTES)
# Twice: of the user name, and of the name in full. Older ones have the first only.
SEALED_BYTES: Final = SALT_BYTES + 2 * _PLAIN_BYTES + _TAG_BYTES
_SEALED_BYTES_OLD: Final = SALT_BYTES + _PLAIN_BYTES + _TAG_BYTES


class BadKey(ValueError):
    """A key isn't 64 hexadecimal digits. The message doesn't repeat it."""


class CannotOpen(Exception):
    """A sealed value can't be opened: its key isn't configured, or the value was changed or belongs to another user."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the database keeps: salt, ciphertext and tag, and the name of the key."""

    value: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class _Key:
    id: str
    cipher: AESGCM = field(repr=False)


class SealingKeys:
    """The key that seals, and all keys that open."""

    __slots__ = ("_by_id", "_current")

    def __init__(self, current_hex: str, others_hex: Iterable[str] = ()) -> None:
        """Raises BadKey."""
        self._current = _key(current_hex)
        self._by_id = {key.id: key for key in (*map(_key, others_hex), self._current)}

    @property
    def current_id(self) -> str:
        """The name of the key that seals: derived from it, so that keys need no numbers."""
        return self._current.id

    def seal(self, key: UserKey, ha1s: Ha1s, salt: bytes) -> Sealed:
        """`salt`: SALT_BYTES random bytes, new for each seal."""
        if len(salt) != SALT_BYTES:
            raise ValueError("the salt has 12 bytes")
        plain = _bytes_of(ha1s) + (_bytes_of(ha1s.in_full) if ha1s.in_full is not None else b"")
        return Sealed(salt + self._current.cipher.encrypt(salt, plain, _bound_to(key)), self._current.id)

    def open(self, key: UserKey, sealed: Sealed) -> Ha1s:
        """Raises CannotOpen. 3 µs."""
        opener = self._by_id.get(sealed.key_id)
        if opener is None:
            raise CannotOpen("the key that sealed it is not configured")
        if len(sealed.value) not in (SEALED_BYTES, _SEALED_BYTES_OLD):
            raise CannotOpen("not a sealed value")
        try:
            plain = opener.cipher.decrypt(sealed.value[:SALT_BYTES], sealed.value[SALT_BYTES:], _bound_to(key))
        except InvalidTag:
            raise CannotOpen("changed, or sealed for another user") from None
        rest = plain[_PLAIN_BYTES:]
        return Ha1s(*_texts(plain), in_full=Ha1s(*_texts(rest)) if rest else None)


def _bytes_of(ha1s: Ha1s) -> bytes:
    return bytes.fromhex(ha1s.md5 + ha1s.sha256 + ha1s.sha512_256)


def _texts(plain: bytes) -> tuple[str, str, str]:
    return plain[:16].hex(), plain[16:48].hex(), plain[48:_PLAIN_BYTES].hex()


def _key(text: str) -> _Key:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise BadKey("a credential key is 64 hexadecimal digits") from None
    if len(key) != KEY_BYTES:
        raise BadKey("a credential key is 64 hexadecimal digits")
    # From a hash used for nothing else: the name is stored next to the sealed value.
    return _Key(sha256(b"callwarden credential key id\0" + key).hexdigest()[:16], AESGCM(key))


def _bound_to(key: UserKey) -> bytes:
    realm = key.realm.encode()
    return b"callwarden ha1 v1\0" + len(realm).to_bytes(2, "big") + realm + key.username.encode()
