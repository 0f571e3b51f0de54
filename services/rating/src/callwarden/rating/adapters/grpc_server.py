"""RatingService over gRPC: messages to values and back. Quote also on the coalescing stream."""

from collections.abc import AsyncIterator
from typing import Any, Final

from callwarden.api.rating.v1 import rating_pb2 as pb
from callwarden.api.rating.v1 import rating_pb2_grpc
from callwarden.common.prices import price_message, rounding_of
from callwarden.common.rpc.stream import StreamServicer
from callwarden.kernel.errors import Invalid
from callwarden.kernel.tariff import BadPrice, Price, Rounding, RoundingMethod
from callwarden.kernel.verdict import Refuse
from callwarden.rating.app.rating import Rating
from callwarden.rating.core import quotes
from callwarden.rating.core.deck import DeckHead, DeckWindow, ImportedDeck
from callwarden.rating.core.routes import RouteRow

_PRICES_MAX: Final = 4_096  # As many as a deck caches.
_DECIMALS_DEFAULT: Final = 6  # A request without rounding is exact.


class RatingServicer(StreamServicer, rating_pb2_grpc.RatingServiceServicer):
    """The service."""

    def __init__(self, app: Rating) -> None:
        self._app = app
        self._price_messages: dict[int, tuple[Price, pb.Price]] = {}
        self._quote_messages: dict[int, tuple[quotes.RatingQuote, pb.Quote]] = {}
        self._route_messages: dict[int, tuple[quotes.QuotedRoute, pb.Route]] = {}
        super().__init__({"Quote": (pb.QuoteRequest, self._quote)})

    def _quote(self, request: pb.QuoteRequest) -> pb.QuoteReply:
        found = self._app.quote(
            request.deck,
            request.destination,
            request.at_s,
            parent_deck=request.parent_deck,
            realm=request.account_realm,
            is_resellers=request.reseller,
        )
        if isinstance(found, Refuse):
            return pb.QuoteReply(refused=found.reason.value, text=found.text)
        reply = pb.QuoteReply()
        reply.quote.CopyFrom(self._quote_message(found))
        reply.quote.valid_until_s = self._app.good_until_s(request.at_s)
        return reply

    async def Quote(self, request: pb.QuoteRequest, context: Any) -> pb.QuoteReply:  # noqa: N802
        return self._quote(request)

    async def Simulate(self, request: pb.SimulateRequest, context: Any) -> pb.SimulateReply:  # noqa: N802
        found = self._app.simulate(request.deck, request.destination, request.at_s, request.duration_s)
        if isinstance(found, Refuse):
            return pb.SimulateReply(refused=found.reason.value, text=found.text)
        reply = pb.SimulateReply(
            simulation=pb.Simulation(
                quote=self._quote_message(found.quote), cost_micros=found.cost_micros, billed_s=found.billed_s
            )
        )
        reply.simulation.quote.valid_until_s = self._app.good_until_s(request.at_s)
        return reply

    async def ImportDeck(self, request: pb.ImportDeckRequest, context: Any) -> pb.ImportDeckReply:  # noqa: N802
        return await self._import(request, _contents(request))

    async def ImportDeckParts(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ImportDeckRequest], context: Any
    ) -> pb.ImportDeckReply:
        first = await anext(request_iterator, None)
        if first is None:
            raise Invalid("there is no part", field="csv")
        return await self._import(first, _contents(first, request_iterator))

    async def _import(self, request: pb.ImportDeckRequest, content: AsyncIterator[bytes]) -> pb.ImportDeckReply:
        head = DeckHead(
            request.name,
            request.currency,
            0,
            request.peak_hours,
            request.time_zone or "UTC",
            _rounding(request),
            tuple(DeckWindow(window.name, window.hours) for window in request.windows),
        )
        result = await self._app.import_deck(head, content)
        if isinstance(result, ImportedDeck):
            return pb.ImportDeckReply(rows=result.rows, version=result.version)
        errors = [pb.LineError(line=error.line, field=error.field, reason=error.reason) for error in result]
        return pb.ImportDeckReply(errors=errors)

    async def ListDecks(self, request: pb.ListDecksRequest, context: Any) -> pb.ListDecksReply:  # noqa: N802
        return pb.ListDecksReply(
            decks=[
                pb.Deck(name=deck.head.name, currency=deck.head.currency, version=deck.head.version, rows=deck.rows)
                for deck in self._app.decks()
            ]
        )

    async def SetRoute(self, request: pb.SetRouteRequest, context: Any) -> pb.SetRouteReply:  # noqa: N802
        await self._app.set_route(RouteRow(request.prefix, request.trunk, request.priority, request.cost_deck))
        return pb.SetRouteReply()

    async def DeleteRoute(self, request: pb.DeleteRouteRequest, context: Any) -> pb.DeleteRouteReply:  # noqa: N802
        return pb.DeleteRouteReply(deleted=await self._app.delete_route(request.prefix, request.trunk))

    async def ListRoutes(self, request: pb.ListRoutesRequest, context: Any) -> pb.ListRoutesReply:  # noqa: N802
        return pb.ListRoutesReply(
            routes=[
                pb.SetRouteRequest(prefix=row.prefix, trunk=row.trunk, priority=row.priority, cost_deck=row.cost_deck)
                for row in await self._app.list_routes()
            ]
        )

    def _quote_message(self, quote: quotes.RatingQuote) -> pb.Quote:
        """All but until when it is good. Made once for each quote, as `_price_message`."""
        known = self._quote_messages.get(id(quote))
        if known is not None:
            return known[1]
        if len(self._quote_messages) >= quotes.QUOTES_KEPT_MAX:
            self._quote_messages.clear()
        message = pb.Quote(
            prefix=quote.prefix,
            description=quote.description,
            price=self._price_message(quote.price),
            routes=[self._route_message(route) for route in quote.routes],
            deck=quote.deck,
            deck_version=quote.deck_version,
            exact=quote.is_exact,
            parent_priced=quote.parent_price is not None,
            parent_prefix=quote.parent_prefix,
            parent_price=None if quote.parent_price is None else self._price_message(quote.parent_price),
            valid_prefix_length=quote.valid_prefix_length,
        )
        self._quote_messages[id(quote)] = quote, message
        return message

    def _route_message(self, route: quotes.QuotedRoute) -> pb.Route:
        """Made once for each route and cost, like `_price_message`."""
        known = self._route_messages.get(id(route))
        if known is not None:
            return known[1]
        if len(self._route_messages) >= _PRICES_MAX:
            self._route_messages.clear()
        message = pb.Route(
            trunk=route.trunk,
            address=route.address,
            add_prefix=route.add_prefix,
            strip_digits=route.strip_digits,
            carrier_account_id=route.carrier_account_id,
            cost=None if route.cost is None else self._price_message(route.cost),
        )
        self._route_messages[id(route)] = route, message
        return message

    def _price_message(self, price: Price) -> pb.Price:
        """Made once for each price: a deck returns the same object again, and building its message would be half of a
        quote's work (10 of 20 µs, measured).

        The key is the object's id, which stays valid because the entry refers to the object; hashing it costs more.
        """
        known = self._price_messages.get(id(price))
        if known is not None:
            return known[1]
        if len(self._price_messages) >= _PRICES_MAX:
            self._price_messages.clear()
        message = price_message(price)
        self._price_messages[id(price)] = price, message
        return message


async def _contents(
    first: pb.ImportDeckRequest, others: AsyncIterator[pb.ImportDeckRequest] | None = None
) -> AsyncIterator[bytes]:
    """The parts of a file as they come."""
    yield first.csv
    if others is not None:
        async for part in others:
            yield part.csv


def _rounding(request: pb.ImportDeckRequest) -> Rounding:
    if not request.HasField("rounding"):
        return Rounding(RoundingMethod.UP, _DECIMALS_DEFAULT)
    try:
        return rounding_of(request.rounding)
    except BadPrice as error:
        raise Invalid(error.reason, field=error.field) from error
    except ValueError as error:
        raise Invalid("must be up, middle or down", field="rounding.method") from error
