"""Tokens that prove a role where there is no mutual TLS: how they are made, kept in files, shown and checked.

Each process has its own role's token in a file, and a file with the SHA-256 of everyone's, by role: it can check the
others' and not pretend to be them. Both are read again when they change, so that tokens are exchanged without a
restart; a role may have several hashes for that time. A token is a secret of 256 bits, so its plain hash is as good as
the best.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

from callwarden.common.logs import get_logger
from callwarden.kernel.errors import Invalid

log = get_logger(__name__)

METADATA_KEY: Final = "authorization"
SCHEME: Final = "Bearer "
FILE_BYTES_MAX: Final = 64 * 1024  # a hundred roles with a few hashes each; more is another file
CALLERS_FILE: Final = "callers.json"

# Distinguishes one reading of a file from another.
Stamp: TypeAlias = tuple[int, int, int]
Content = TypeVar("Content")


class _RenewedFile(Generic[Content]):
    """A small file, read again when it has changed. What was read last stays good while it can't be read."""

    def __init__(self, path: Path, parse: Callable[[str], Content]) -> None:
        """OSError if it can't be read, Invalid if it can't be parsed."""
        self.path = path
        self._parse = parse
        self._stamp = _stamp(path)
        self._content = self._read()

    def _read(self) -> Content:
        try:
            with self.path.open(encoding="ascii") as file:
                return self._parse(file.read(FILE_BYTES_MAX))
        except ValueError:  # what that says may repeat the content
            raise Invalid(f"{self.path} doesn't hold what it should") from None

    def content(self) -> Content:
        """3 µs where nothing has changed."""
        try:
            stamp = _stamp(self.path)
            if stamp != self._stamp:
                self._content, self._stamp = self._read(), stamp
                log.info("tokens.renewed", file=str(self.path))
        except (OSError, Invalid) as error:
            log.warning("tokens.unreadable", error=error, file=str(self.path))
        return self._content


def _stamp(path: Path) -> Stamp:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size


class TokenFile:
    """A client's own token, as the metadata that shows it."""

    def __init__(self, path: Path) -> None:
        """OSError if the file can't be read, Invalid if it holds no token."""
        self._file = _RenewedFile(path, _token)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ((METADATA_KEY, SCHEME + self._file.content()),)


class TokenHashes:
    """A server's list of those who may show a token."""

    def __init__(self, path: Path) -> None:
        """OSError if the file can't be read, Invalid if it isn't such a list."""
        self._file = _RenewedFile(path, _hashes)

    def roles(self, shown: str) -> frozenset[str]:
        """Those that this `authorization` proves; empty for a wrong one. Takes the same time for each."""
        digest = hash_of(shown.removeprefix(SCHEME)) if shown.startswith(SCHEME) else ""
        return frozenset(
            [role for role, known in self._file.content() if hmac.compare_digest(known, digest) and digest]
        )


def _token(text: str) -> str:
    token = text.strip()
    if len(token) < 32 or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("no token")
    return token


def _hashes(text: str) -> tuple[tuple[str, str], ...]:
    stored = json.loads(text)
    if not isinstance(stored, dict) or not all(isinstance(known, list) for known in stored.values()):
        raise ValueError("not a list of hashes by role")
    found = tuple((str(role), str(each)) for role, known in stored.items() for each in known)
    if not all(len(each) == hashlib.sha256().digest_size * 2 for _, each in found):
        raise ValueError("not the SHA-256 of tokens")
    return found


def hash_of(token: str) -> str:
    """What the list has of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_tokens(roles: Iterable[str]) -> dict[str, str]:
    """A random one for each."""
    return {role: secrets.token_urlsafe(32) for role in roles}


def callers_json(tokens: Mapping[str, str]) -> str:
    """The list that servers read."""
    return json.dumps({role: [hash_of(token)] for role, token in sorted(tokens.items())}, indent=2) + "\n"
