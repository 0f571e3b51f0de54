"""Counts and grants as bytes in the database: msgpack, whose fields may be missing in what was written before them."""

from collections.abc import Mapping
from typing import Final

import msgspec

from callwarden.call_admission.model.usage import Usage
from callwarden.limits.shards import Grant

_ENCODER: Final = msgspec.msgpack.Encoder()
_USAGE: Final = msgspec.msgpack.Decoder(Usage)
_GRANTS: Final = msgspec.msgpack.Decoder(dict[str, Grant])


def usage_bytes(usage: Usage) -> bytes:
    return _ENCODER.encode(usage)


def usage_from(data: bytes) -> Usage:
    return _USAGE.decode(data) if data else Usage()


def grants_bytes(grants: Mapping[str, Grant]) -> bytes:
    return _ENCODER.encode(grants) if grants else b""


def grants_from(data: bytes) -> dict[str, Grant]:
    return _GRANTS.decode(data) if data else {}
