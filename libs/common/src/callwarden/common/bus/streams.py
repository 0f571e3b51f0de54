"""The JetStream streams and key-value buckets, and their retention. Every process declares them.

The only place for both (DESIGN.md "NATS"). All processes make those that aren't there when they connect, so the order
of start does not matter; only one service may change those that are (`rights`).
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError

from callwarden.common.logs import get_logger

log = get_logger(__name__)

_DAY_S: Final = 86_400.0
_GIB: Final = 1024**3
_MIB: Final = 1024**2

# A message id is remembered this long: an edge that spooled to disk and one whose acknowledgement was lost send again.
# What comes later still meets the unique keys in the database.
DUPLICATES_S: Final = 600.0
MESSAGE_BYTES_MAX: Final = 256 * 1024  # an event is 0.3 KB; NATS itself refuses 1 MB

# How long the trace of an expired key stays, so that a watcher that was away for a moment still learns of it.
DELETE_MARKER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """Retention by age and size, whichever comes first; the oldest go then."""

    subjects: tuple[str, ...]
    age_max_s: float
    bytes_max: int


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """`age_max_s` is the backstop for keys whose owner forgot to give them a time to live; 0: kept for ever."""

    bytes_max: int
    value_bytes_max: int
    age_max_s: float = 0.0
    history: int = 1


class Stream(Enum):
    """Every stream, by name."""

    CALLS = "CALLS"
    SECURITY = "SECURITY"
    PAYMENTS = "PAYMENTS"


class Bucket(Enum):
    """Every key-value bucket, by name."""

    POLICY = "policy"
    POLICY_ACKS = "policy_acks"
    BANS = "bans"
    DIALOGS = "dialogs"
    LOCATIONS = "locations"
    MEMBERS = "members"
    COUNTERS = "counters"
    LISTED = "listed"


STREAMS: Final[dict[Stream, StreamSpec]] = {
    # Three days to repair a consumer over a week-end; 4 GiB are ten million calls.
    Stream.CALLS: StreamSpec(("calls.>",), 3 * _DAY_S, 4 * _GIB),
    Stream.SECURITY: StreamSpec(("security.>",), 3 * _DAY_S, 1 * _GIB),
    Stream.PAYMENTS: StreamSpec(("payments.>",), 30 * _DAY_S, 1 * _GIB),
}

BUCKETS: Final[dict[Bucket, BucketSpec]] = {
    # A bundle of all documents; the last ones are kept to see what was in force.
    Bucket.POLICY: BucketSpec(64 * _MIB, MESSAGE_BYTES_MAX * 3, history=10),
    Bucket.POLICY_ACKS: BucketSpec(16 * _MIB, 1024, age_max_s=_DAY_S),
    # A million banned addresses at 250 bytes; kept by their own time to live, or for ever.
    Bucket.BANS: BucketSpec(256 * _MIB, 4096),
    # No call lasts longer than a day (policy bounds it lower).
    Bucket.DIALOGS: BucketSpec(512 * _MIB, 16 * 1024, age_max_s=_DAY_S),
    Bucket.LOCATIONS: BucketSpec(1 * _GIB, 16 * 1024, age_max_s=_DAY_S),
    Bucket.MEMBERS: BucketSpec(4 * _MIB, 4096, age_max_s=_DAY_S),
    # rate-guard's snapshots, one key a shard, 256 of them; a shard of 100 addresses has 3 KB.
    Bucket.COUNTERS: BucketSpec(256 * _MIB, MESSAGE_BYTES_MAX * 3, age_max_s=_DAY_S),
    # Numbers that are listed for a time, 400 bytes each; kept by their own time to live.
    Bucket.LISTED: BucketSpec(64 * _MIB, 4096),
}


async def declare(jetstream: JetStreamContext, replicas: int, *, update: bool = True) -> None:
    """Have every stream and bucket as said above; without `update`, leave one that is there as it is. Raises nats
    errors when the server can't.
    """
    configs = [_stream_config(stream, replicas) for stream in Stream] + [
        _bucket_config(bucket, replicas) for bucket in Bucket
    ]
    await asyncio.gather(*(_declare(jetstream, config, update) for config in configs))


async def _declare(jetstream: JetStreamContext, config: api.StreamConfig, update: bool) -> None:
    try:
        await jetstream.add_stream(config)
    except BadRequestError as error:
        if error.err_code != _NAME_IN_USE:
            raise
        if update:
            await jetstream.update_stream(config)
        else:
            log.info("streams.kept", stream=config.name)  # differs from what we would make; who may change it does


_NAME_IN_USE: Final = 10058  # "stream name already in use with a different configuration"


def _stream_config(stream: Stream, replicas: int) -> api.StreamConfig:
    spec = STREAMS[stream]
    return api.StreamConfig(
        name=stream.value,
        subjects=list(spec.subjects),
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.OLD,
        storage=api.StorageType.FILE,
        max_age=spec.age_max_s,
        max_bytes=spec.bytes_max,
        max_msg_size=MESSAGE_BYTES_MAX,
        duplicate_window=DUPLICATES_S,
        num_replicas=replicas,
        allow_direct=True,
    )


def _bucket_config(bucket: Bucket, replicas: int) -> api.StreamConfig:
    """By the NATS KV design (ADR-8), with TTL per key (ADR-43; server 2.11) and markers when keys expire."""
    spec = BUCKETS[bucket]
    return api.StreamConfig(
        name=f"KV_{bucket.value}",
        subjects=[f"$KV.{bucket.value}.>"],
        discard=api.DiscardPolicy.NEW,  # a full bucket refuses instead of forgetting a ban
        storage=api.StorageType.FILE,
        max_age=spec.age_max_s,
        max_bytes=spec.bytes_max,
        max_msg_size=spec.value_bytes_max,
        max_msgs_per_subject=spec.history,
        num_replicas=replicas,
        allow_direct=True,
        allow_rollup_hdrs=True,
        deny_delete=True,
        allow_msg_ttl=True,
        subject_delete_marker_ttl=DELETE_MARKER_S,
    )
