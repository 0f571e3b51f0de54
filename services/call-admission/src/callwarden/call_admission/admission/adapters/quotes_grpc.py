"""Prices and routes from rating, over one coalescing stream, remembered until they may have changed."""

import asyncio
from math import inf
from typing import Final

from callwarden.api.rating.v1 import rating_pb2
from callwarden.call_admission.model.calls import NoQuote, Pricing, Quote, Route
from callwarden.call_admission.model.codecs.messages import LruCache, price_from
from callwarden.common.logs import get_logger
from callwarden.common.rpc.stream import StreamPool
from callwarden.kernel.errors import CallwardenError
from callwarden.kernel.tariff import BadPrice
from callwarden.kernel.verdict import Reason

log = get_logger(__name__)

SERVICE: Final = "callwarden.api.rating.v1.RatingService"
TIMEOUT_S: Final = 1.0  # rating answers from memory in a millisecond
# A no is remembered only shortly: rating.changed is not kept for who is away, and an operator repairs it in a minute.
NO_TTL_S: Final = 5.0
YES_TTL_MAX_S: Final = 300.0  # for the same reason: a change that was missed is seen after this

_WHOLE: Final = 0
"""Instead of a number of digits: only this very number."""

_Key = tuple[Pricing, str]


class GrpcQuotes:
    """Implements ports.Quotes. An answer is kept for all numbers with the first digits for which rating says that it
    holds: a few hundred for a deck instead of one for each number. No number begins with two of them, whatever their
    lengths, as long as prices and routes stay as they are; all are forgotten together when these change."""

    def __init__(self, pool: StreamPool, size_max: int) -> None:
        self._pool = pool
        self._known: LruCache[_Key, tuple[Quote | NoQuote, float]] = LruCache(size_max)
        self._lengths: LruCache[Pricing, tuple[int, ...]] = LruCache(size_max)
        """How many digits are remembered, or _WHOLE."""
        self._asking: dict[_Key, asyncio.Future[Quote | NoQuote]] = {}
        self._generation = 0
        self.asked = 0
        self.found = 0

    @property
    def size(self) -> int:
        return len(self._known)

    def known(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote | None:
        answer = self._find(pricing, destination, at_s)
        if answer is not None:
            self.found += 1
        return answer

    def _find(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote | None:
        for length in self._lengths.get(pricing) or ():
            entry = self._known.get((pricing, _beginning(destination, length)))
            if entry is not None and entry[1] > at_s:
                return entry[0]
        return None

    async def ask(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote:
        key = pricing, destination
        asking = self._asking.get(key)
        if asking is None:  # a thousand calls to one number at once ask once
            asking = asyncio.ensure_future(self._ask(pricing, destination, at_s))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    async def _ask(self, pricing: Pricing, destination: str, at_s: float) -> Quote | NoQuote:
        generation = self._generation
        self.asked += 1
        request = rating_pb2.QuoteRequest(
            deck=pricing.deck,
            destination=destination,
            at_s=at_s,
            parent_deck=pricing.parent_deck,
            account_realm=pricing.realm,
            reseller=pricing.is_resellers,
        )
        try:
            reply = await self._pool.call(
                destination, "Quote", request, rating_pb2.QuoteReply, timeout_s=TIMEOUT_S, idempotent=True
            )
            answer = _answer(pricing, reply)
        except (CallwardenError, BadPrice, ValueError) as error:
            log.warning("quote.failed", error=error, deck=pricing.deck)
            stale = self._find(pricing, destination, -inf)
            # Rating is dead: the price it last said goes on (DESIGN.md D9), as long as nothing has changed since.
            return stale if stale is not None else NoQuote(pricing, Reason.UNAVAILABLE)
        if generation == self._generation:  # else it may be from before the change
            until_s = min(answer.valid_until_s, at_s + YES_TTL_MAX_S) if isinstance(answer, Quote) else at_s + NO_TTL_S
            # 0 of a no, too.
            length = min(reply.quote.valid_prefix_length, len(destination))
            self._known.put((pricing, _beginning(destination, length)), (answer, until_s))
            lengths = self._lengths.get(pricing) or ()
            if length not in lengths:
                self._lengths.put(pricing, (*lengths, length))
        return answer

    def forget(self) -> None:
        """A deck, routes or a policy has changed. All: a deck may be the cost of any route."""
        self._generation += 1
        self._known.clear()
        self._lengths.clear()


def _beginning(destination: str, length: int) -> str:
    """By what an answer that holds for so many digits is kept; of a whole number by what no other begins with."""
    return f"{destination}." if length == _WHOLE else destination[:length]


def _answer(pricing: Pricing, reply: rating_pb2.QuoteReply) -> Quote | NoQuote:
    if reply.WhichOneof("result") != "quote":
        return NoQuote(pricing, Reason(reply.refused))
    quote = reply.quote
    return Quote(
        pricing=pricing,
        prefix=quote.prefix,
        price=price_from(quote.price.SerializeToString()),
        routes=tuple(
            Route(
                trunk=route.trunk,
                address=route.address,
                add_prefix=route.add_prefix,
                strip_digits=route.strip_digits,
                carrier_account_id=route.carrier_account_id,
                cost=price_from(route.cost.SerializeToString()) if route.HasField("cost") else None,
            )
            for route in quote.routes
        ),
        valid_until_s=quote.valid_until_s,
        exact=quote.exact,
        parent_priced=quote.parent_priced,
    )
