"""The coalescing bidirectional stream: many unary requests in few gRPC messages (DESIGN.md D5).

A unary call of grpc.aio costs about 500 µs over both sides, whatever it carries; a message on an open stream about 100.
So hot methods share one stream: a request made while nothing is under way is sent at once; requests made while a
message is being written wait and share the next one. Nothing waits for a timer, and load makes it cheaper.

Rules of one stream:
- The client counts ids up and uses none twice; id 0 is the stream's own (below).
- Each request is answered by exactly one item with its id, in any order, or not at all: when its time has passed,
  when it was cancelled, or when the stream breaks. The caller then gets TimedOut or Unavailable from its own side.
- Both sides hold a bounded number of items; beyond it a request is refused at once with Exhausted.
- A server that shuts down sends {id: 0, status: 14}: the client sends what is new elsewhere, waits for what it has
  asked, and closes. Until it has, the server answers.

Where there is no mutual TLS the frames leave gRPC for a bare TCP connection, see `callwarden.common.rpc.direct`; all of
the above applies there, too.

`client` and `pool` ask, `servicer` answers; benchmarks/stream.py measures.
"""

from callwarden.common.rpc.stream.client import StreamClient
from callwarden.common.rpc.stream.pool import StreamPool
from callwarden.common.rpc.stream.servicer import Handler, StreamServicer

__all__ = ["Handler", "StreamClient", "StreamPool", "StreamServicer"]
