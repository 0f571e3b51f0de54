"""The numbers both sides of a stream agree on, each with its reason."""

from typing import Final

IN_FLIGHT_MAX: Final = 4_096  # 20,000/s answered in 200 ms; a server that is further behind should refuse now.
STREAMS_WORTH: Final = 4  # full streams that one process serves: 16,000 requests, about 64 MB of Tasks and messages
FRAME_ITEMS_MAX: Final = 256  # 1 to 3 ms of work in one go; more would make small requests wait behind it.
FRAME_BYTES_MAX: Final = 256 * 1024  # far below the 4 MiB a message may have
ITEM_BYTES_MAX: Final = 1024 * 1024  # the largest single request or reply; pages go by unary calls
# One timer looks at all that is in flight instead of one timer each (0.1 against 2 µs a request). A time-out is noticed
# this much late at worst; the shortest we use is 50 ms.
SWEEP_S: Final = 0.01

GOODBYE_ID: Final = 0  # see the package: an item with this id comes from the server itself and announces its shutdown
