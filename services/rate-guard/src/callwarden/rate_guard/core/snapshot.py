"""Writes the counters of a shard as bytes and reads them back, so that they survive the process. `ports` says where.

Only hot addresses and endpoints are saved (known, failing, or well on the way to a limit). Others start from zero at
the next owner, having sent less than an eighth of what is allowed. Loading never lowers a count: counts are restored
as young as they can have been.
"""

import json
import zlib
from collections.abc import Iterable
from typing import Any, Final

from callwarden.kernel.clock import MonoS, UnixS
from callwarden.limits.rendezvous import shard_of
from callwarden.limits.windows import SlidingCounter, WindowShape
from callwarden.rate_guard.core.addresses import address_of
from callwarden.rate_guard.core.counters import AddressCounters, AddressEntry, EndpointEntry

VERSION: Final = 1
BYTES_MAX: Final = 700_000  # The most that the bucket accepts for one key.
PLAIN_BYTES_MAX: Final = 32_000_000  # Bounds what we unpack, whatever is in the bucket.

_Dump = list[tuple[float, int]]


class BadSnapshot(ValueError):
    """The bytes are not a snapshot that this version can read."""


def save(counters: AddressCounters, shards: Iterable[int], mono_s: MonoS, unix_s: UnixS) -> dict[int, bytes]:
    """A snapshot of each shard. Takes 10 µs for each hot address and endpoint, and 0.5 for those of other shards."""
    addresses: dict[int, list[Any]] = {shard: [] for shard in shards}
    endpoints: dict[int, list[Any]] = {shard: [] for shard in addresses}
    for name, address in counters.addresses.hot_items():
        found = addresses.get(shard_of(name))
        if found is not None:
            found.append(
                [name, address.known, *(_dump(c, mono_s) for c in (address.messages, address.wrong, address.failures))]
            )
    for name, endpoint in counters.endpoints.hot_items():
        found = endpoints.get(shard_of(address_of(name)))
        if found is not None:
            by_name = {user: _dump(counter, mono_s) for user, counter in (endpoint.by_name or {}).items()}
            found.append([name, endpoint.known, _dump(endpoint.failures, mono_s), by_name])
    return {shard: _pack([VERSION, unix_s, addresses[shard], endpoints[shard]]) for shard in addresses}


def load(counters: AddressCounters, data: bytes, mono_s: MonoS, unix_s: UnixS) -> int:
    """Adds a snapshot to the counters; returns its number of addresses. Raises BadSnapshot without adding anything."""
    version, taken_s, addresses, endpoints = _unpack(data)
    if version != VERSION:
        raise BadSnapshot("unknown version")
    try:
        # If our clock is behind that of the writer, counts must not get a negative age.
        since_s = max(0.0, unix_s - taken_s)
        read_addresses = [
            (str(name), bool(known), [_read(each, since_s) for each in dumps]) for name, known, *dumps in addresses
        ]
        read_endpoints = [
            (str(name), bool(known), _read(dump, since_s), {str(u): _read(d, since_s) for u, d in by_name.items()})
            for name, known, dump, by_name in endpoints
        ]
        if any(len(dumps) != 3 for _, _, dumps in read_addresses):
            raise BadSnapshot("unexpected structure")
    except (TypeError, ValueError, AttributeError) as error:
        raise BadSnapshot("unexpected structure") from error
    limits = counters.limits
    for name, known, (messages, wrong, failures) in read_addresses:
        address: AddressEntry = counters.addresses.use(name, mono_s)
        counters.addresses.heat(name)
        address.known |= known
        address.messages.load(limits.messages, mono_s, messages)
        address.wrong = _restore(address.wrong, limits.wrong, mono_s, wrong)
        address.failures = _restore(address.failures, limits.failures, mono_s, failures)
    for name, known, failed, by_name in read_endpoints:
        endpoint: EndpointEntry = counters.endpoints.use(name, mono_s)
        counters.endpoints.heat(name)
        endpoint.known |= known
        endpoint.failures = _restore(endpoint.failures, limits.failures, mono_s, failed)
        for user, dump in by_name.items():
            if endpoint.by_name is None:
                endpoint.by_name = {}
            counter = _restore(endpoint.by_name.get(user), limits.failures, mono_s, dump)
            if counter is not None:
                endpoint.by_name[user] = counter
    return len(read_addresses)


def drop(counters: AddressCounters, owned: frozenset[int]) -> int:
    """Removes the addresses and endpoints of all other shards; returns how many. Takes 0.5 µs for each entry."""
    gone = [name for name, _ in counters.addresses if shard_of(name) not in owned]
    for name in gone:
        counters.addresses.remove(name)
    gone_endpoints = [name for name, _ in counters.endpoints if shard_of(address_of(name)) not in owned]
    for name in gone_endpoints:
        counters.endpoints.remove(name)
    return len(gone) + len(gone_endpoints)


def _dump(counter: SlidingCounter | None, mono_s: MonoS) -> _Dump:
    return [] if counter is None else [(round(age_s, 3), count) for age_s, count in counter.dump(mono_s)]


def _read(dump: Any, since_s: float) -> _Dump:
    return [(float(age_s) + since_s, int(count)) for age_s, count in dump]


def _restore(counter: SlidingCounter | None, window: WindowShape, mono_s: MonoS, dump: _Dump) -> SlidingCounter | None:
    if not dump:
        return counter
    counter = counter or SlidingCounter()
    counter.load(window, mono_s, dump)
    return counter


def _pack(value: list[Any]) -> bytes:
    while len(data := zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)) > BYTES_MAX:
        # Tens of thousands of hot addresses in one shard: drop the half that was unused longest.
        for entries in value[2:]:
            del entries[: (len(entries) + 1) // 2]
    return data


def _unpack(data: bytes) -> tuple[Any, float, Any, Any]:
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(data, PLAIN_BYTES_MAX)
        if not unpacker.eof:
            raise BadSnapshot("too large or truncated")
        version, taken_s, addresses, endpoints = json.loads(plain)
        return version, float(taken_s), addresses, endpoints
    except (zlib.error, ValueError, TypeError, RecursionError) as error:
        raise BadSnapshot("unexpected structure") from error
