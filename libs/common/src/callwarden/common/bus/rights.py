"""What each role may do on NATS: the subjects, streams and buckets that it needs, as a server's permissions.

The table is compiled into users of a nats-server's configuration: `callwarden up` writes it, and the chart has it as a
file. A service can't write a bucket that another one decides about. A limit of NATS itself: who may read a stream may
have its messages delivered to any subject, since it is the server that sends them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from callwarden.common.bus.streams import Bucket, Stream

INBOX: Final = "_INBOX"  # of the NATS client; a role has its own below it, or each could read what others are answered


@dataclass(frozen=True, slots=True)
class BusRights:
    """Of one role. `writes` are the keys by bucket (`>`: all); who writes a bucket need not be able to read it."""

    reads: tuple[Bucket, ...] = ()
    writes: tuple[tuple[Bucket, str], ...] = ()
    publishes: tuple[str, ...] = ()
    hears: tuple[str, ...] = ()
    """Plain messages."""
    consumes: tuple[tuple[Stream, str], ...] = ()
    """By stream, the durable consumer that this role shares."""
    creates: bool = True
    """Make streams and buckets that aren't there; one that is stays as it is."""
    updates: bool = False
    """Change how streams and buckets are kept, after an upgrade."""


_ACCOUNTS: Final = "security.account_changed"


def _service(
    name: str,
    *,
    reads: tuple[Bucket, ...] = (),
    writes: tuple[tuple[Bucket, str], ...] = (),
    publishes: tuple[str, ...] = (),
    hears: tuple[str, ...] = (),
    consumes: tuple[tuple[Stream, str], ...] = (),
    updates: bool = False,
) -> BusRights:
    """With what every service does: follow the policy, and acknowledge it under its own name."""
    acks = (Bucket.POLICY_ACKS, f"{name}.*")
    return BusRights((Bucket.POLICY, *reads), (acks, *writes), publishes, hears, consumes, updates=updates)


RIGHTS: Final[dict[str, BusRights]] = {
    "edge-proxy": _service(
        "edge-proxy",
        reads=(Bucket.BANS, Bucket.MEMBERS, Bucket.DIALOGS, Bucket.LOCATIONS),
        # Of members its own kind only, whose keys have no dot: rate-guard's begin with `rate-guard.`.
        writes=((Bucket.DIALOGS, ">"), (Bucket.LOCATIONS, ">"), (Bucket.MEMBERS, "*")),
        publishes=("calls.*", "security.decision", "edges.news"),
        hears=(_ACCOUNTS, "edges.news"),
    ),
    "auth": _service("auth", publishes=(_ACCOUNTS,), hears=(_ACCOUNTS,)),
    "rate-guard": _service(
        "rate-guard",
        reads=(Bucket.BANS, Bucket.MEMBERS, Bucket.COUNTERS),
        writes=((Bucket.BANS, ">"), (Bucket.MEMBERS, "rate-guard.*"), (Bucket.COUNTERS, ">")),
        publishes=("security.banned", "security.unbanned"),
        hears=("security.unbanned",),
    ),
    "call-admission": _service(
        "call-admission",
        reads=(Bucket.LISTED,),
        writes=((Bucket.LISTED, ">"),),
        publishes=("security.limit", "lists.counted"),
        hears=(_ACCOUNTS, "rating.changed", "lists.changed", "lists.counted"),
        consumes=((Stream.CALLS, "call-admission"), (Stream.SECURITY, "call-admission-decisions")),
    ),
    "administration": _service(
        "administration",
        # What edges know of running calls, for the check of charges.
        reads=(Bucket.LISTED, Bucket.DIALOGS, Bucket.MEMBERS),
        writes=((Bucket.LISTED, ">"),),
        publishes=(_ACCOUNTS, "lists.changed"),
        hears=(_ACCOUNTS, "rating.changed", "lists.changed"),
        updates=True,
    ),
    "rating": _service(
        "rating", publishes=("rating.changed", "security.unbilled"), hears=("rating.changed", _ACCOUNTS)
    ),
    "payment": _service("payment"),
    "security-policy": BusRights(
        reads=(Bucket.POLICY, Bucket.POLICY_ACKS, Bucket.BANS), writes=((Bucket.POLICY, ">"),)
    ),
    "admin": BusRights(reads=(Bucket.POLICY, Bucket.POLICY_ACKS), writes=((Bucket.POLICY, ">"),), creates=False),
}
"""By role, which is also the name of its user."""


@dataclass(frozen=True, slots=True)
class BusPermissions:
    """Subjects; whatever isn't among them is denied."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def may_update(role: str) -> bool:
    """Whether streams and buckets are changed by this role. Names that aren't in the table: tools and tests, yes."""
    return role not in RIGHTS or RIGHTS[role].updates


def inbox_of(user: str) -> str:
    """Below which a user gets its replies."""
    return f"{INBOX}.{user}" if user in RIGHTS else INBOX


def permissions(role: str) -> BusPermissions:
    """Of one role in the table."""
    rights = RIGHTS[role]
    return BusPermissions(tuple(_published(rights)), (f"{INBOX}.{role}.>", *rights.hears))


def _published(rights: BusRights) -> Iterator[str]:
    yield from rights.publishes
    for bucket, keys in rights.writes:
        yield f"$KV.{bucket.value}.{keys}"
    for bucket in rights.reads:
        stream = f"KV_{bucket.value}"
        # A read of one key; a consumer that delivers all of them; the answer to its flow control.
        yield f"$JS.API.DIRECT.GET.{stream}.>"
        yield f"$JS.API.CONSUMER.CREATE.{stream}"
        yield f"$JS.FC.{stream}.>"
    for consumed, durable in rights.consumes:
        stream = consumed.value
        yield f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{durable}"
        yield f"$JS.API.CONSUMER.INFO.{stream}.{durable}"
        yield f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        yield f"$JS.ACK.{stream}.{durable}.>"
    names = [stream.value for stream in Stream] + [f"KV_{bucket.value}" for bucket in Bucket]
    for verb, allowed in (("CREATE", rights.creates), ("UPDATE", rights.updates)):
        yield from (f"$JS.API.STREAM.{verb}.{name}" for name in names if allowed)


def users(passwords: Mapping[str, str]) -> str:
    """The value of `users` in a server's configuration; passwords as they are written there, a string or a variable."""
    entries = []
    for role, password in passwords.items():
        allowed = permissions(role)
        entries.append(
            f"  {{ user: {json.dumps(role)}, password: {password}, permissions: {{\n"
            f"    publish: {{ allow: {_listed(allowed.publish)} }}\n"
            f"    subscribe: {{ allow: {_listed(allowed.subscribe)} }}\n"
            "  } }\n"
        )
    return "[\n" + "".join(entries) + "]\n"


def _listed(subjects: tuple[str, ...]) -> str:
    return "[\n" + "".join(f"      {json.dumps(subject)}\n" for subject in subjects) + "    ]"
