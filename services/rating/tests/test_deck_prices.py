"""Prices of a compiled deck and quotes are computed once, cached within bounds, and never for the wrong numbers."""

from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callwarden.kernel import hours
from callwarden.kernel.tariff import RATE_MICROS_MAX, SECONDS_MAX, RateGroup
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.rating.core import deck as deck_module
from callwarden.rating.core import quotes as quotes_module
from callwarden.rating.core.deck import AS_THE_ROW, Deck, DeckEntry, DeckHead, DeckRow, RowPacker, Tariff, WindowCharges
from callwarden.rating.core.prefixes import PrefixOrder, code_of
from callwarden.rating.core.quotes import Catalogue, RatingQuote, not_exact, quote
from callwarden.rating.core.routes import Carrier, RatingRoute, RouteRow, RouteTable

NOON_S = 1_767_614_400.0  # Monday, 2026-01-05 12:00 UTC
HOUR_S, VALID_S = 3_600, 300.0
PLAIN, NIGHT = Tariff(60_000), Tariff(60_000, off_peak_rate_micros=30_000)


def compiled(*rows: tuple[str, Tariff], name: str = "retail", peak_hours: str = "") -> Deck:
    packer = RowPacker()
    packer.add(DeckRow(prefix, "", tariff) for prefix, tariff in rows)
    plan = hours.parse_plan([peak_hours], ZoneInfo("UTC")) if peak_hours else None
    return Deck(DeckHead(name, "EUR", 1, peak_hours), plan, packer.pack())


def table(prefix: str = "", cost_deck: str = "") -> RouteTable:
    return RouteTable([RatingRoute(RouteRow(prefix, "world", 0, cost_deck), Carrier("world", "world:5060", "id"))])


def ask(catalogue: Catalogue, number: str, at_s: float = NOON_S) -> RatingQuote:
    found = quote(catalogue, "retail", number, at_s, VALID_S)
    assert isinstance(found, RatingQuote), found
    return found


@pytest.mark.parametrize(
    ("tariff", "peak_hours"),
    [(PLAIN, "Mon-Fri 08:00-20:00"), (NIGHT, ""), (PLAIN, "")],
    ids=["no night", "no peak", "neither"],
)
def test_a_price_without_a_difference_has_one_window_for_all_hours(tariff: Tariff, peak_hours: str) -> None:
    deck = compiled(("49", tariff), peak_hours=peak_hours)
    price = deck.price(tariff, NOON_S, VALID_S)
    assert [(window.from_s, window.name) for window in price.windows] == [(0, "")]
    assert deck.price(tariff, NOON_S + 12 * HOUR_S, VALID_S) is price


STEPS = RateGroup(60, 5_000, 60, 1), RateGroup(600, 0, 1, 30)


@pytest.mark.parametrize(
    "tariff",
    [
        PLAIN,
        NIGHT,
        Tariff(1, 2, 3, 4, 5, 6, 7, 8, 9),
        Tariff(0, maximum_micros=0),
        Tariff(1, steps=STEPS, off_peak_steps=(), maximum_micros=7, cuts_at_maximum=True),
        Tariff(1, off_peak_steps=STEPS, windows=(AS_THE_ROW, WindowCharges(0, 1, 2, 3, 4, STEPS[:1]))),
        Tariff(1, windows=(WindowCharges(steps=()), AS_THE_ROW)),
    ],
)
def test_what_a_row_charges_is_the_same_after_it_was_packed(tariff: Tariff) -> None:
    deck = compiled(("1", PLAIN), ("49", tariff), ("44", NIGHT))
    found = [deck.match(number) for number in ("49", "44", "1")]
    assert [match[1].tariff for match in found if match is not None] == [tariff, NIGHT, PLAIN]


def test_peak_hours_count_from_the_first_hour_of_1970() -> None:
    deck = compiled(("49", NIGHT), peak_hours="Mon-Fri 08:00-20:00")
    windows = deck.price(NIGHT, 1_800.0, VALID_S).windows
    assert [(window.from_s, window.name) for window in windows[:2]] == [(0, "off-peak"), (8 * HOUR_S, "peak")]


def test_prices_are_cached_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck_module, "_PRICES_MAX", 2)
    deck = compiled(("49", PLAIN))
    first = deck.price(Tariff(1), NOON_S, VALID_S)
    deck.price(Tariff(2), NOON_S, VALID_S)
    assert deck.price(Tariff(1), NOON_S, VALID_S) is first
    deck.price(Tariff(3), NOON_S, VALID_S)
    assert len(deck._prices) == 1
    assert deck.price(Tariff(1), NOON_S, VALID_S) == first


def test_the_next_hour_leaves_this_hours_price_cached() -> None:
    deck = compiled(("49", NIGHT), peak_hours="Mon-Fri 08:00-20:00")
    price = deck.price(NIGHT, NOON_S, VALID_S)
    deck.price(NIGHT, NOON_S + HOUR_S, VALID_S)
    assert deck.price(NIGHT, NOON_S, VALID_S) is price


def test_prefixes_with_the_same_charges_share_one_entry_and_one_tariff() -> None:
    packer = RowPacker()
    packer.add(DeckRow(prefix, text, Tariff(1)) for prefix, text in (("49", "EU"), ("43", "EU"), ("41", "Swiss")))
    packed = packer.pack()
    assert packed.texts == b"EUSwiss"
    deck = Deck(DeckHead("retail", "EUR"), None, packed)
    german, swiss = deck.match("4930"), deck.match("4130")
    assert german is not None
    assert swiss is not None
    assert german[1].tariff is swiss[1].tariff


def test_a_quote_is_the_same_object_for_the_hour() -> None:
    catalogue = Catalogue({"retail": compiled(("49", PLAIN))}, table())
    assert ask(catalogue, "4930", NOON_S + 60) is ask(catalogue, "4930", NOON_S)
    assert ask(catalogue, "4930", NOON_S + HOUR_S) is not ask(catalogue, "4930", NOON_S)


def test_quotes_are_cached_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes_module, "QUOTES_KEPT_MAX", 2)
    decks = {"retail": compiled(*((prefix, Tariff(int(prefix))) for prefix in ("41", "42", "43")))}
    catalogue = Catalogue(decks, table())
    first = ask(catalogue, "4130")
    ask(catalogue, "4230")
    assert ask(catalogue, "4130") is first
    ask(catalogue, "4330")
    assert len(catalogue._kept) == 1
    assert ask(catalogue, "4130") == first


def test_a_route_and_its_cost_are_one_object_in_all_quotes_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotes_module, "QUOTES_KEPT_MAX", 2)
    prices = [compiled(("49", Tariff(number))).price(Tariff(number), NOON_S, VALID_S) for number in range(3)]
    catalogue = Catalogue()
    (route,) = table().match("49")
    first = catalogue.quoted(route, prices[0])
    catalogue.quoted(route, prices[1])
    assert catalogue.quoted(route, prices[0]) is first
    catalogue.quoted(route, prices[2])
    assert len(catalogue._quoted) == 1
    assert catalogue.quoted(route, prices[0]) == first


def test_a_longer_prefix_of_a_cost_deck_keeps_its_numbers_apart() -> None:
    decks = {
        "retail": compiled(("49", PLAIN)),
        "wholesale": compiled(("49", Tariff(1)), ("4917", Tariff(2)), name="wholesale"),
    }
    catalogue = Catalogue(decks, table(cost_deck="wholesale"))
    rates = []
    for number in ("4930", "4917"):
        (route,) = ask(catalogue, number).routes
        assert route.cost is not None
        rates.append(route.cost.windows[0].groups[0].rate_micros)
    assert rates == [1, 2]


@pytest.mark.parametrize(
    ("deck", "routes", "reason", "rule"),
    [
        ("other", table(), Reason.NO_RATE, "price"),
        ("retail", table(), Reason.NO_RATE, "price"),
        ("germany", table("44"), Reason.NO_ROUTE, "route"),
    ],
)
def test_a_refusal_names_its_rule(deck: str, routes: RouteTable, reason: Reason, rule: str) -> None:
    catalogue = Catalogue({"retail": compiled(("44", PLAIN)), "germany": compiled(("49", PLAIN))}, routes)
    found = quote(catalogue, deck, "4930", NOON_S, VALID_S)
    assert isinstance(found, Refuse)
    assert (found.reason, found.rule) == (reason, rule)


def test_an_inexact_price_is_refused_by_the_rule_of_prices() -> None:
    found = not_exact(ask(Catalogue({"retail": compiled(("49", PLAIN))}, table("493")), "4930"))
    assert (found.reason, found.rule) == (Reason.NO_RATE, "price")


def test_all_digits_of_the_longest_numbers_decide() -> None:
    order = PrefixOrder([code_of("493012345678901")])
    assert order.deciding(code_of("493012345678902"), 1) == 15


def test_a_carrier_gets_the_number_as_it_is_unless_it_wants_otherwise() -> None:
    (route,) = ask(Catalogue({"retail": compiled(("49", PLAIN))}, table()), "4930").routes
    details: Any = (route.strip_digits, route.add_prefix)
    assert details == (0, "")


@pytest.mark.parametrize("prefixes", list(permutations(["41", "4917", "49"])))
def test_prefixes_may_come_in_any_order(prefixes: tuple[str, ...]) -> None:
    deck = compiled(*((prefix, Tariff(int(prefix))) for prefix in prefixes))
    order = deck.order
    assert [order.deciding(code_of(number), 1) for number in ("4917", "4930", "4130", "5")] == [4, 3, 2, 1]
    found = [deck.match(number) for number in ("4917", "4930", "4130")]
    assert [match and (match[0], match[1].tariff) for match in found] == [
        ("4917", Tariff(4917)),
        ("49", Tariff(49)),
        ("41", Tariff(41)),
    ]
    assert deck.match("5") is None


tariffs = st.builds(
    Tariff,
    st.integers(0, RATE_MICROS_MAX),
    *[st.integers(0, SECONDS_MAX)] * 5,
    st.integers(0, RATE_MICROS_MAX),
    st.none() | st.integers(0, RATE_MICROS_MAX),
    st.none() | st.integers(0, RATE_MICROS_MAX),
)
described = st.text(st.characters(exclude_categories=["C"]), max_size=5)


@given(st.dictionaries(st.from_regex(r"[1-9][0-9]{0,14}", fullmatch=True), st.tuples(described, tariffs), max_size=20))
def test_packed_rows_are_the_rows(rows: dict[str, tuple[str, Tariff]]) -> None:
    packer = RowPacker()
    packer.add(DeckRow(prefix, *entry) for prefix, entry in rows.items())
    deck = Deck(DeckHead("retail", "EUR"), None, packer.pack())
    assert deck.rows == len(rows)
    for prefix, (description, tariff) in rows.items():
        assert deck.match(prefix) == (prefix, DeckEntry(description, tariff))


def test_the_tariffs_of_a_deck_are_cached_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deck_module, "_PRICES_MAX", 2)
    deck = compiled(*((prefix, Tariff(int(prefix))) for prefix in ("41", "42", "43")))
    for prefix in ("41", "42", "43", "41"):
        assert deck.match(prefix) == (prefix, DeckEntry("", Tariff(int(prefix))))
    assert len(deck._tariffs) == 2
