"""What a far side may do with the requests it gets: the behaviours that every state of a call is met with.

For tests of the edge's core and of whole systems, which share this table so that neither leaves one out.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

TIMER_F_S: Final = 32.0  # RFC 3261 17.1.2.2: 64 × T1.


class Answer(NamedTuple):
    """One answer to a request: its status, after how many seconds, and whether from another address."""

    status: int
    after_s: float = 0.0
    elsewhere: bool = False


BEHAVIOURS: Final[Mapping[str, tuple[Answer, ...]]] = {
    "accepts": (Answer(200),),
    "knows nothing": (Answer(481),),
    "times out": (Answer(408),),
    "fails": (Answer(500),),
    "is overloaded": (Answer(503),),
    "declines": (Answer(603),),
    "refuses": (Answer(403),),
    "challenges": (Answer(407),),
    "is silent": (),
    "is late": (Answer(200, TIMER_F_S + 1),),
    "refuses late": (Answer(481, TIMER_F_S - 1),),
    "answers twice": (Answer(200), Answer(200, 1)),
    "changes its mind": (Answer(481), Answer(200, 1)),
    "answers from elsewhere": (Answer(200, elsewhere=True),),
    "refuses from elsewhere": (Answer(481, elsewhere=True),),
    "only rings": (Answer(180),),
}
