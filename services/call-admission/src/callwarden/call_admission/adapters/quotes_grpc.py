"""Prices and routes from rating, over one coalescing stream, remembered until they may have changed."""

import asyncio
from typing import Final

from callwarden.api.rating.v1 import rating_pb2
from callwarden.call_admission.adapters.messages import Bounded, price_from
from callwarden.call_admission.core.calls import NoQuote, Quote, Route
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

_Key = tuple[str, str]


class GrpcQuotes:
    """Implements ports.Quotes. Keyed by the whole number: a longer prefix may match another one of the same prefix."""

    def __init__(self, pool: StreamPool, size_max: int) -> None:
        self._pool = pool
        self._known: Bounded[_Key, tuple[Quote | NoQuote, float]] = Bounded(size_max)
        self._asking: dict[_Key, asyncio.Future[Quote | NoQuote]] = {}
        self._generation = 0
        self.asked = 0
        self.found = 0

    @property
    def size(self) -> int:
        return len(self._known)

    def known(self, deck: str, destination: str, at_s: float) -> Quote | NoQuote | None:
        entry = self._known.get((deck, destination))
        if entry is None or entry[1] <= at_s:
            return None
        self.found += 1
        return entry[0]

    async def ask(self, deck: str, destination: str, at_s: float) -> Quote | NoQuote:
        key = deck, destination
        asking = self._asking.get(key)
        if asking is None:  # a thousand calls to one number at once ask once
            asking = asyncio.ensure_future(self._ask(deck, destination, at_s))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    async def _ask(self, deck: str, destination: str, at_s: float) -> Quote | NoQuote:
        generation = self._generation
        self.asked += 1
        request = rating_pb2.QuoteRequest(deck=deck, destination=destination, at_s=at_s)
        try:
            reply = await self._pool.call(
                destination, "Quote", request, rating_pb2.QuoteReply, timeout_s=TIMEOUT_S, idempotent=True
            )
            answer = _answer(deck, reply)
        except (CallwardenError, BadPrice, ValueError) as error:
            log.warning("quote.failed", error=error, deck=deck)
            stale = self._known.get((deck, destination))
            # Rating is dead: the price it last said goes on (DESIGN.md D9), as long as nothing has changed since.
            return stale[0] if stale is not None else NoQuote(deck, Reason.UNAVAILABLE)
        if generation == self._generation:  # else it may be from before the change
            until_s = min(answer.valid_until_s, at_s + YES_TTL_MAX_S) if isinstance(answer, Quote) else at_s + NO_TTL_S
            self._known.put((deck, destination), (answer, until_s))
        return answer

    def forget(self, deck: str) -> None:
        """The deck (empty: any, or the routes) has changed."""
        self._generation += 1
        if deck:
            self._known.remove_if(lambda key: key[0] == deck)
        else:
            self._known.clear()


def _answer(deck: str, reply: rating_pb2.QuoteReply) -> Quote | NoQuote:
    if reply.WhichOneof("result") != "quote":
        return NoQuote(deck, Reason(reply.refused))
    quote = reply.quote
    return Quote(
        deck=deck,
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
