"""Which calls edges know, by what they write down in NATS: a record of each answered call in KV `dialogs`, that they
live in KV `members`. See ports.CallsOfEdges.
"""

import asyncio
from collections.abc import Iterable, Sequence, Set
from itertools import islice
from typing import Final
from uuid import UUID

from callwarden.call_admission.records.core.charges import OpenHold
from callwarden.common.bus import KeyValue, key_of

SERVICE: Final = "edge-proxy"
ASKED_AT_ONCE: Final = 32


class NatsEdgeCalls:
    """Implements ports.CallsOfEdges."""

    def __init__(self, dialogs: KeyValue, members: KeyValue) -> None:
        self._dialogs = dialogs
        self._members = members

    async def unknown(self, holds: Sequence[OpenHold]) -> Set[UUID]:
        answered = [hold.hold_id for hold in holds if hold.answered_at_s is not None]
        setting_up = [hold for hold in holds if hold.answered_at_s is None]
        missing = {UUID(key) for key in await _missing(self._dialogs, map(str, answered))}
        gone = await _missing(self._members, {key_of(SERVICE, hold.edge) for hold in setting_up})
        # An answer that is known to the edge only has a record, too, and maybe another edge has taken the call over.
        lost = [str(hold.hold_id) for hold in setting_up if key_of(SERVICE, hold.edge) in gone]
        return missing | {UUID(key) for key in await _missing(self._dialogs, lost)}


async def _missing(bucket: KeyValue, keys: Iterable[str]) -> set[str]:
    """Those of the keys that the bucket doesn't have."""
    missing: set[str] = set()
    wanted = iter(keys)
    while some := tuple(islice(wanted, ASKED_AT_ONCE)):
        found = await asyncio.gather(*map(bucket.get, some))
        missing.update(key for key, put in zip(some, found, strict=True) if put is None)
    return missing
