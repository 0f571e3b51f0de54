"""Users and what is known of them. How secrets are sealed is in `sealing`, how an answer is checked in `digest`."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from callwarden.kernel.errors import Invalid

USERNAME_CHARS_MAX: Final = 128  # Longer ones are nobody's; RFC 3261 sets no bound.
REALM_CHARS_MAX: Final = 255  # A domain name (RFC 1035 section 2.3.4).


class UserKey(NamedTuple):
    """Whose credential it is. A tuple: it is made and hashed for every verification."""

    realm: str
    username: str


@dataclass(frozen=True, slots=True)
class Account:
    """The account behind a credential or trunk. `kind`: "enduser", "traffic-sender" or "carrier"."""

    id: str
    kind: str
    active: bool
    numbers: tuple[str, ...] = ()
    """E.164 with "+": what the account owns and may show."""


@dataclass(frozen=True, slots=True)
class Ha1s:
    """H(username:realm:password) by each algorithm, in hex (RFC 7616 section 3.4.2). As good as the password."""

    md5: str = field(repr=False)
    sha256: str = field(repr=False)
    sha512_256: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who it is. `ttl_s`: the answer holds so long, unless an account event says otherwise."""

    account: Account
    tech_prefix: str
    ttl_s: int
    trunk: str = ""
    """By which it was known; empty: by a credential."""


def could_exist(key: UserKey) -> bool:
    """Whether such a user can be in the database at all; if not, nobody needs to look, and the answer tells nothing
    that isn't public."""
    return (
        0 < len(key.username) <= USERNAME_CHARS_MAX
        and len(key.realm) <= REALM_CHARS_MAX
        # ":" would make two different users' HA1 inputs alike (RFC 7616 section 3.4: user names have none); databases
        # hold no NUL; the others can't be typed.
        and ":" not in key.username
        and key.username.isprintable()
        and key.realm.isprintable()
    )


def check_key(key: UserKey) -> None:
    """Raises Invalid with the field that no user can have."""
    if not key.realm:
        raise Invalid("a realm is required", field="realm")
    if not could_exist(UserKey(key.realm, "user")):
        raise Invalid(f"a realm is a domain of at most {REALM_CHARS_MAX} printable characters", field="realm")
    if not could_exist(key):
        raise Invalid(f'a user name has 1 to {USERNAME_CHARS_MAX} printable characters and no ":"', field="username")
