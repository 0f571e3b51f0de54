"""CSeq (RFC 3261 20.16): which request of a dialog this is, or answers."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from callwarden.sip.grammar import TOKEN
from callwarden.sip.malformed import Malformed

NUMBER_MAX = 2**31 - 1  # RFC 3261 8.1.1.5

_parts = re.compile(r"([0-9]{1,10})[ \t]+(" + TOKEN + r")").fullmatch


class CSeq(NamedTuple):
    """A NamedTuple because one is made for each datagram."""

    number: int
    method: str

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


@lru_cache(1024)  # most are small numbers
def parse_cseq(text: str) -> CSeq:
    """Read a CSeq value.  Raises Malformed."""
    found = _parts(text)
    if found is None or (number := int(found[1])) > NUMBER_MAX:
        raise Malformed("Bad CSeq")
    return CSeq(number, found[2])
