"""Quotes: price and routes for one number at one moment, from one immutable catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from callwarden.kernel.tariff import Price, billed_s, cost
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.rating.core.deck import Deck
from callwarden.rating.core.routes import RouteTable


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All decks by name and all routes, as they were at one moment; swapped whole."""

    decks: Mapping[str, Deck] = field(default_factory=dict)
    routes: RouteTable = field(default_factory=RouteTable)


@dataclass(frozen=True, slots=True)
class QuotedRoute:
    """Where the call may go, and what the carrier charges where that is known."""

    trunk: str
    address: str
    add_prefix: str
    strip_digits: int
    carrier_account_id: str
    cost: Price | None


@dataclass(frozen=True, slots=True)
class Quote:
    """The answer; true for the same deck and number until `valid_until_s`."""

    prefix: str
    description: str
    price: Price
    routes: tuple[QuotedRoute, ...]
    deck: str
    deck_version: int
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a call of some length would cost."""

    quote: Quote
    cost_micros: int
    billed_s: int


def quote(catalogue: Catalogue, deck_name: str, digits: str, at_s: float, valid_s: float) -> Quote | Refuse:
    """Price and routes. Refused as NO_RATE where the deck, or a prefix of the number in it, isn't there; as NO_ROUTE
    where no carrier takes the number.
    """
    found = _price(catalogue, deck_name, digits, at_s, valid_s)
    if isinstance(found, Quote) and not found.routes:
        return Refuse(Reason.NO_ROUTE, "route", text="no route leads to this number")
    return found


def simulate(
    catalogue: Catalogue, deck_name: str, digits: str, at_s: float, valid_s: float, duration_s: int
) -> Simulation | Refuse:
    """What that call would cost, whether or not a route leads there."""
    found = _price(catalogue, deck_name, digits, at_s, valid_s)
    if isinstance(found, Refuse):
        return found
    price = found.price
    return Simulation(found, cost(price, at_s, duration_s), billed_s(price, at_s, duration_s))


def _price(catalogue: Catalogue, deck_name: str, digits: str, at_s: float, valid_s: float) -> Quote | Refuse:
    deck = catalogue.decks.get(deck_name)
    if deck is None:
        return Refuse(Reason.NO_RATE, "price", text="the account has no price list")
    match = deck.match(digits)
    if match is None:
        return Refuse(Reason.NO_RATE, "price", text="the price list has no price for this number")
    prefix, entry = match
    routes = tuple(
        QuotedRoute(
            route.carrier.trunk,
            route.carrier.address,
            route.carrier.add_prefix,
            route.carrier.strip_digits,
            route.carrier.account_id,
            _cost(catalogue, route.row.cost_deck, digits, at_s, valid_s),
        )
        for route in catalogue.routes.match(digits)
    )
    price = deck.price(entry.tariff, at_s, valid_s)
    return Quote(prefix, entry.description, price, routes, deck_name, deck.head.version, at_s + valid_s)


def _cost(catalogue: Catalogue, deck_name: str, digits: str, at_s: float, valid_s: float) -> Price | None:
    deck = catalogue.decks.get(deck_name) if deck_name else None
    match = deck.match(digits) if deck is not None else None
    return None if deck is None or match is None else deck.price(match[1].tariff, at_s, valid_s)
