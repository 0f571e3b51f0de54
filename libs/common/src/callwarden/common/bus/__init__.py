"""NATS: one connection a process, events to and from JetStream, key-value buckets that are watched, a spool on disk.

`streams` defines the streams and buckets; `connection` connects and declares them; `publisher` and `spool` send,
`consumer` receives, `kv` reads and writes buckets. Payloads are bytes here; callwarden.api.events defines them.
"""

from callwarden.common.bus.connection import Bus
from callwarden.common.bus.consumer import Delivery, Poison
from callwarden.common.bus.keys import key_of, parts_of
from callwarden.common.bus.kv import KeyValue
from callwarden.common.bus.ordered import Change, Deleted, Put, Synced
from callwarden.common.bus.publisher import Publisher
from callwarden.common.bus.spool import Spool
from callwarden.common.bus.streams import Bucket, Stream

__all__ = [
    "Bucket",
    "Bus",
    "Change",
    "Deleted",
    "Delivery",
    "KeyValue",
    "Poison",
    "Publisher",
    "Put",
    "Spool",
    "Stream",
    "Synced",
    "key_of",
    "parts_of",
]
