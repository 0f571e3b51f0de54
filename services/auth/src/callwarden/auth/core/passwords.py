"""Rules for passwords. Anyone who sees one digest exchange can attack the secret offline, so length protects it."""

from typing import Final

from callwarden.kernel.errors import Invalid

CHARS_MIN: Final = 8  # The catalogue's default of minpwdlength.
CHARS_MAX: Final = 128  # What phones can store; hashing more gains nothing.


def check(password: str, username: str) -> None:
    """Raises Invalid, without repeating the password."""
    if not CHARS_MIN <= len(password) <= CHARS_MAX:
        raise Invalid(f"a password has {CHARS_MIN} to {CHARS_MAX} characters", field="password")
    if not password.isprintable():
        raise Invalid("a password may contain printable characters only", field="password")
    if password.casefold() == username.casefold():
        raise Invalid("the password must not be the user name", field="password")
    if len(set(password)) == 1:
        raise Invalid("the password must not be one character repeated", field="password")
