"""Fields about identity: digest authentication, passwords, trusted addresses, caller ids, and access to the APIs.

Enforced by auth, edge-proxy and, to come, the console. Out: how often authentication may fail (traffic).
"""

from typing import Annotated, Literal

from pydantic import Field

from callwarden.policy.fields import AUTH, EDGE, FieldGroup, Level, Many, row
from callwarden.policy.values import Duration, Network, text


class Digest(FieldGroup):
    """Digest authentication (RFC 7616, RFC 8760)."""

    algorithms: Level[Literal[0, 1, 2]] = Field(
        default=1,
        description="0: MD5 only. 1: MD5 and SHA-256, MD5 first, since many phones answer only the first challenge. "
        "2: SHA-256 or better only.",
        json_schema_extra=row("useshadigestauh", by=(AUTH, EDGE)),
    )
    nonce_lifetime: Duration = Field(
        default=300,
        ge=10,
        le=86_400,
        description="An older nonce is answered with stale=true, which doesn't count as a failure.",
        json_schema_extra=row(by=(EDGE,)),
    )
    strictness: Level[Literal[0, 1, 2, 3]] = Field(
        default=1,
        description="What is checked of a nonce. 0: that it was issued here. 1: its lifetime. 2: also its count, so "
        "that every process refuses a replay. 3: also the source address; and qop is required. Today a nonce is always "
        "bound to its address, and the process that it was used with refuses a replay.",
        json_schema_extra=row("strongdigestauth"),
    )


class Passwords(FieldGroup):
    """Which passwords are accepted, and how they are stored."""

    enforce_strong: bool = Field(
        default=True,
        description="Whether weak passwords are detected and replaced by random ones, with an event and a "
        "notification.",
        json_schema_extra=row("enforcestrongauth"),
    )
    min_length: int = Field(
        default=8,
        ge=4,
        le=128,
        description="Shorter passwords are refused.",
        json_schema_extra=row("minpwdlength", enforced=False, always=8, unit="characters"),
    )
    check: Level[Literal[0, 1, 2]] = Field(
        default=2,
        description="0: none. 1: length. 2: also a list of common passwords, and the user name. Today: length and "
        "user name.",
        json_schema_extra=row("validatepassword", enforced=False, always=1),
    )
    storage: Level[Literal[1]] = Field(
        default=1,
        description="1: no password is stored in clear text: digest secrets are encrypted (AES-GCM), web passwords and "
        "keys hashed (Argon2id). There is no other value.",
        json_schema_extra=row("securepasswords", by=(AUTH,)),
    )


class TrustedAddresses(FieldGroup):
    """Addresses whose requests are accepted without credentials."""

    mode: Level[Literal[0, 1, 2, 3, 4]] = Field(
        default=3,
        description="0: none. 1: the system's own. 2: private networks. 3: those in `addresses`. 4: also for "
        "administration.",
        json_schema_extra=row("allowtrustedip", enforced=False, always=0),
    )
    addresses: Many[Network] = Field(
        default=(),
        max_length=1_000,
        description="The addresses and networks that mode 3 and 4 trust.",
        json_schema_extra=row("allowtrustedip"),
    )
    subnets: bool = Field(
        default=False,
        description="Whether the whole subnet of a trusted address is trusted.",
        json_schema_extra=row("trustsubnet", enforced=False, always=False),
    )
    local_networks: bool = Field(
        default=False,
        description="Whether local networks are trusted (trustlanip).",
        json_schema_extra=row("trustsubnet", enforced=False, always=False),
    )
    authenticated: bool = Field(
        default=False,
        description="Whether an address is trusted once an account has authenticated from it (trustauthip).",
        json_schema_extra=row("trustsubnet", enforced=False, always=False),
    )
    users_as_known: bool = Field(
        default=False,
        description="Whether users count as known addresses (treatusersasknownip).",
        json_schema_extra=row("trustsubnet", enforced=False, always=False),
    )


class Authentication(FieldGroup):
    """How callers prove who they are."""

    digest: Digest = Field(default=Digest(), description="Digest authentication (RFC 7616, RFC 8760).")
    registration_cache: Level[Literal[0, 1]] = Field(
        default=1,
        description="0: every request is challenged. 1: all but refreshes and requests within a call, from the same "
        "address within the lifetime.",
        json_schema_extra=row("cacheregistrations", enforced=False, always=0),
    )
    passwords: Passwords = Field(default=Passwords(), description="Which passwords are accepted.")
    pin: Level[Literal[0, 5, 9]] = Field(
        default=5,
        description="Callers of an IVR. 0: no PIN. 5: PIN and a known calling number. 9: the PIN alone, with its own "
        "limit of attempts.",
        json_schema_extra=row("callingcardauth"),
    )
    calling_number: bool = Field(
        default=False,
        description="Whether the calling number alone authenticates a call, where a trunk allows it.",
        json_schema_extra=row("anumberhandling", enforced=False, always=False),
    )
    self_service_password_check: Level[Literal[0, 1]] = Field(
        default=0,
        description="1: an API may verify a user's password.",
        json_schema_extra=row("uauthverifypwd", enforced=False, always=0),
    )
    challenge_known: Level[Literal[0, 1]] = Field(
        default=1,
        description="1: known users are challenged like all others. 0: they aren't challenged.",
        json_schema_extra=row("authfastusers", enforced=False, always=1),
    )
    auto_create: bool = Field(
        default=False,
        description="Whether the registration of an unknown user creates an account (autocreatereguserstrict = 0); "
        "only with a strong password.",
        json_schema_extra=row("autocreatereguserstrict", enforced=False, always=False),
    )
    trusted_addresses: TrustedAddresses = Field(
        default=TrustedAddresses(), description="Addresses accepted without credentials."
    )
    allow_unauthenticated_calls: Level[Literal[0, 1]] = Field(
        default=0,
        description="1: calls need no credentials.",
        json_schema_extra=row("allownoauthcalls", enforced=False, always=0),
    )
    allow_anonymous_caller: Level[Literal[0, 1]] = Field(
        default=0,
        description="0: an anonymous caller is refused, unless a trusted peer asserts its identity. 1: allowed.",
        json_schema_extra=row("allowanonymouscaller", enforced=False, always=0),
    )
    caller_id: Literal["Rewrite", "Refuse", "Any"] = Field(
        default="Refuse",
        description="What happens to a subscriber's call with a caller id that isn't its own (allowcalleridchange = "
        "0): the caller id is replaced, the call is refused, or it is allowed.",
        json_schema_extra=row("allowcalleridchange", enforced=False, always="Refuse"),
    )
    fork_without_auth: Level[Literal[0, 1, 2, 3, 4]] = Field(
        default=3,
        description="Whether a call may be forked or forwarded without credentials: 0 to anyone … 3 to local users "
        "only, 4 never.",
        json_schema_extra=row("allownoauthfork"),
    )
    anti_spoofing: bool = Field(
        default=True,
        description="Whether a trunk that is authenticated by its address alone needs a tech prefix or TLS, in "
        "profile Hardened.",
        json_schema_extra=row("spoofing"),
    )


class ApiKeys(FieldGroup):
    """Random keys of the HTTP interfaces, stored as hashes, with roles."""

    generated: bool = Field(
        default=True,
        description="Whether a first key is created where there is none.",
        json_schema_extra=row("httpapikey"),
    )
    expire_after: Duration | None = Field(
        default=None, description="How long a key is valid; null: until it is revoked."
    )


Origin = Annotated[
    str,
    Field(max_length=255, pattern=r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"),
    text(255, r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$"),
]
"""What a browser calls the origin of a page."""


class Api(FieldGroup):
    """Access to the HTTP interfaces: the console, and the services' APIs for administration."""

    strict_input: bool = Field(
        default=True,
        description="Whether all input is validated by a schema, all output escaped, under a strict "
        "Content-Security-Policy.",
        json_schema_extra=row("web-input"),
    )
    input_validation: Level[Literal[0, 1, 2, 3, 4, 5]] = Field(
        default=3,
        description="How strictly text is checked before use. 0: not. 1: basic. 2: also SQL characters. 3: normal. 4: "
        "more. 5: extreme.",
        json_schema_extra=row("validateinput"),
    )
    keys: ApiKeys = Field(default=ApiKeys(), description="API keys.")
    allowed_addresses: Many[Network] = Field(
        default=(),
        max_length=1_000,
        description="When not empty, only these addresses and networks can use the API.",
        json_schema_extra=row("apiv2ipauth"),
    )
    login: Level[Literal[0, 1, 2, 3]] = Field(
        default=1,
        description="0: open, for development on one machine. 1: key. 2: key and login. 3: also a nonce on each "
        "request, so that replays are refused.",
        json_schema_extra=row("apidefneedlogin"),
    )
    admin_trust: Level[Literal[0, 1, 2, 3, 4]] = Field(
        default=1,
        description="What authenticates an administrator of the API. 0: nothing. 1: an administrator at a trusted "
        "address. 2: the address alone. 3: the password alone. 4: both.",
        json_schema_extra=row("apideftrustadmin"),
    )
    sip_auth: Level[Literal[0, 1]] = Field(
        default=0,
        description="1: a subscriber's own API requests need its SIP credentials.",
        json_schema_extra=row("apisipauth"),
    )
    cross_origin: Many[Origin] = Field(
        default=(),
        max_length=64,
        description="Origins whose pages may call the API; there is no JSONP.",
        json_schema_extra=row("enable jsonp"),
    )
    uploads: Level[Literal[0, 1]] = Field(
        default=0,
        description="Files that may be uploaded. 0: none. 1: rate decks, by an administrator, within size limits.",
        json_schema_extra=row("allowhttpfileupload"),
    )
    remote_admin: Level[Literal[0, 1, 2, 3, 4]] = Field(
        default=3,
        description="Where administration can be reached from; each value includes those before. 0: nowhere. 1: "
        "loopback. 2: private networks. 3: allowedAddresses. 4: anywhere.",
        json_schema_extra=row("remoteadmin"),
    )
    session_limits: bool = Field(
        default=True,
        description="Whether idle time-outs and limits of requests and failures apply to the web and the API.",
        json_schema_extra=row("session-level-web"),
    )
