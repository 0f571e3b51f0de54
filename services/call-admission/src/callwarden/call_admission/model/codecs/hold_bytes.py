"""What a hold contains in addition to its columns, as bytes: where it is counted, what its routes would cost."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from uuid import UUID

import msgspec

from callwarden.call_admission.model.calls import Hold, LimitScope, RouteCost
from callwarden.call_admission.model.codecs.messages import LruCache, price_bytes, price_from

CACHED: Final = 4_096  # Sets of routes: some for each destination's quote, 0.5 KB each.

_Owners = tuple[list[tuple[str, bytes, int]], tuple[str, ...], tuple[str, ...]]
_Costs = list[tuple[str, bytes, bytes]]
_ENCODER: Final = msgspec.msgpack.Encoder()
_OWNERS: Final = msgspec.msgpack.Decoder(_Owners)
_COSTS: Final = msgspec.msgpack.Decoder(_Costs)
_COST_BYTES: Final[LruCache[int, tuple[tuple[RouteCost, ...], bytes]]] = LruCache(CACHED)


def scopes_bytes(hold: Hold) -> bytes:
    """Owners, velocity marks and limits hit; nothing for most."""
    return scopes_bytes_of(hold.scopes, hold.marks, hold.limits_hit)


def scopes_bytes_of(owners: Sequence[LimitScope], marks: tuple[str, ...], limits_hit: tuple[str, ...]) -> bytes:
    if not owners and not marks and not limits_hit:
        return b""
    return _ENCODER.encode(([(kind, scope.bytes, shard) for kind, scope, shard in owners], marks, limits_hit))


def scopes_from(data: bytes) -> tuple[tuple[LimitScope, ...], tuple[str, ...], tuple[str, ...]]:
    if not data:
        return (), (), ()
    owners, marks, limits_hit = _OWNERS.decode(data)
    return tuple(LimitScope(kind, UUID(bytes=scope), shard) for kind, scope, shard in owners), marks, limits_hit


def costs_bytes(costs: tuple[RouteCost, ...]) -> bytes:
    if not costs:
        return b""
    # By identity: a quote's costs are one object for all of its calls. What is remembered is kept alive by it, so that
    # nothing else can have its id.
    known = _COST_BYTES.get(id(costs))
    if known is None:
        rows = [
            (
                cost.trunk,
                b"" if cost.carrier_account_id is None else cost.carrier_account_id.bytes,
                b"" if cost.cost is None else price_bytes(cost.cost),
            )
            for cost in costs
        ]
        known = costs, _ENCODER.encode(rows)
        _COST_BYTES.put(id(costs), known)
    return known[1]


@lru_cache(CACHED)
def costs_from(data: bytes) -> tuple[RouteCost, ...]:
    if not data:
        return ()
    return tuple(
        RouteCost(trunk, UUID(bytes=carrier) if carrier else None, price_from(cost) if cost else None)
        for trunk, carrier, cost in _COSTS.decode(data)
    )
