"""Users and their accounts. `sealing` seals secrets, `digest` checks answers."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from callwarden.kernel.errors import Invalid

USERNAME_CHARS_MAX: Final = 128  # RFC 3261 sets no bound; no user has a longer one.
REALM_CHARS_MAX: Final = 255  # A domain name (RFC 1035 section 2.3.4).


class UserKey(NamedTuple):
    """Identifies a credential. A tuple, for speed: made and hashed for every verification."""

    realm: str
    username: str


@dataclass(frozen=True, slots=True)
class AuthAccount:
    """The account behind a credential or trunk. `kind`: "enduser", "traffic-sender" or "carrier"."""

    id: str
    kind: str
    active: bool
    numbers: tuple[str, ...] = ()
    """E.164 with "+": the numbers that the account owns and may present."""


@dataclass(frozen=True, slots=True)
class Ha1s:
    """H(username:realm:password) by each algorithm, in hex (RFC 7616 section 3.4.2). As good as the password.

    `in_full`: the same of phones that send user@realm as their name; None where the password was set before auth kept
    them.
    """

    md5: str = field(repr=False)
    sha256: str = field(repr=False)
    sha512_256: str = field(repr=False)
    in_full: "Ha1s | None" = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AuthIdentity:
    """A verified caller. `ttl_s`: how long the answer may be cached, unless an account event says otherwise."""

    account: AuthAccount
    tech_prefix: str
    ttl_s: int
    trunk: str = ""
    """The trunk that identified the caller; empty: a credential did."""


def name_in_full(key: UserKey) -> str:
    """How a phone may give its name that takes its address for it: user@realm."""
    return f"{key.username}@{key.realm}"


def could_exist(key: UserKey) -> bool:
    """Whether such a user can be in the database at all. If not, no look-up is needed, and the answer reveals nothing
    that isn't public."""
    return (
        0 < len(key.username) <= USERNAME_CHARS_MAX
        and len(key.realm) <= REALM_CHARS_MAX
        # ":" would make the HA1 inputs of two different users equal (RFC 7616 section 3.4: user names have none);
        # databases hold no NUL; the others can't be typed.
        and ":" not in key.username
        and key.username.isprintable()
        and key.realm.isprintable()
    )


def check_key(key: UserKey) -> None:
    """Raises Invalid, naming the field that is impossible."""
    if not key.realm:
        raise Invalid("a realm is required", field="realm")
    if not could_exist(UserKey(key.realm, "user")):
        raise Invalid(f"a realm is a domain of at most {REALM_CHARS_MAX} printable characters", field="realm")
    if key.username.endswith(f"@{key.realm}"):
        raise Invalid("leave the realm out of the user name: both forms are accepted", field="username")
    if not could_exist(key):
        raise Invalid(f'a user name has 1 to {USERNAME_CHARS_MAX} printable characters and no ":"', field="username")
