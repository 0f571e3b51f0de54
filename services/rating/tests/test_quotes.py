"""A number gets the price of its longest prefix at that moment, and the routes that lead there."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callwarden.kernel import hours as peak
from callwarden.kernel.tariff import RateGroup, Rounding, RoundingMethod, cost
from callwarden.kernel.verdict import Reason, Refuse
from callwarden.policy.values import DURATION_S_MAX
from callwarden.rating.core.deck import Deck, DeckHead, DeckRow, RowPacker, Tariff, is_prefix
from callwarden.rating.core.prefixes import PrefixOrder, code_of
from callwarden.rating.core.quotes import QUOTES_KEPT_MAX, Catalogue, RatingQuote, not_exact, quote, simulate
from callwarden.rating.core.routes import ROUTES_MAX, Carrier, RatingRoute, RouteRow, RouteTable

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY_NOON_S = datetime(2026, 1, 5, 12, tzinfo=BERLIN).timestamp()
VALID_S = 300.0


def compile_deck(*rows: DeckRow, name: str = "retail", peak_hours: str = "", **head: Any) -> Deck:
    details: dict[str, Any] = {"version": 3, "peak_hours": peak_hours} | head
    made = DeckHead(name, "EUR", **details)
    hours = [period.hours for period in made.periods]
    packer = RowPacker()
    for row in rows:
        packer.add([row])
    return Deck(made, peak.parse_plan(hours, BERLIN) if hours else None, packer.pack())


def route(prefix: str, trunk: str, priority: int = 0, cost_deck: str = "", **carrier: Any) -> RatingRoute:
    details = {"address": f"{trunk}.example:5060", "account_id": f"account of {trunk}"} | carrier
    return RatingRoute(RouteRow(prefix, trunk, priority, cost_deck), Carrier(trunk, **details))


RETAIL = compile_deck(
    DeckRow("49", "Germany", Tariff(19_000)),
    DeckRow("4917", "Germany mobile", Tariff(89_000, first_increment_s=60)),
    DeckRow("49900", "Premium", Tariff(1_990_000, 60, 0, 60, 60, 0, 500_000)),
    DeckRow("1", "North America", Tariff(10_000)),
)
ANYWHERE = RouteTable([route("", "world")])


def ask(
    number: str, catalogue: Catalogue | None = None, *, deck: str = "retail", at_s: float = MONDAY_NOON_S
) -> RatingQuote:
    found = quote(catalogue or Catalogue({"retail": RETAIL}, ANYWHERE), deck, number, at_s, VALID_S)
    assert isinstance(found, RatingQuote), found
    return found


@pytest.mark.parametrize(
    ("number", "prefix"),
    [("493012345", "49"), ("4917012345", "4917"), ("4990012345", "49900"), ("12025550123", "1"), ("49", "49")],
)
def test_the_longest_prefix_wins(number: str, prefix: str) -> None:
    assert ask(number).prefix == prefix


def test_a_quote_says_what_priced_it() -> None:
    found = ask("493012345")
    assert (found.deck, found.deck_version, found.description) == ("retail", 3, "Germany")


def test_first_and_following_increments_become_two_groups_of_one_rate() -> None:
    (window,) = ask("4917012345").price.windows
    assert window.groups == (RateGroup(0, 89_000, 60, 60), RateGroup(60, 89_000, 60, 1))


@pytest.mark.parametrize(
    ("deck", "number"), [("retail", "33123"), ("retail", "48"), ("other", "493012345"), ("", "49")]
)
def test_without_a_price_a_call_is_refused_even_if_a_route_leads_there(deck: str, number: str) -> None:
    found = quote(Catalogue({"retail": RETAIL}, ANYWHERE), deck, number, MONDAY_NOON_S, VALID_S)
    assert isinstance(found, Refuse)
    assert found.reason is Reason.NO_RATE


def test_without_a_route_a_call_is_refused_but_what_it_would_cost_can_be_asked() -> None:
    catalogue = Catalogue({"retail": RETAIL}, RouteTable([route("44", "london")]))
    found = quote(catalogue, "retail", "493012345", MONDAY_NOON_S, VALID_S)
    assert isinstance(found, Refuse)
    assert found.reason is Reason.NO_ROUTE
    simulated = simulate(catalogue, "retail", "493012345", MONDAY_NOON_S, VALID_S, 90)
    assert not isinstance(simulated, Refuse)
    assert (simulated.cost_micros, simulated.billed_s) == (28_500, 90)
    refused = simulate(catalogue, "retail", "33123", MONDAY_NOON_S, VALID_S, 90)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.NO_RATE


def test_routes_of_the_longest_prefix_are_tried_in_order_of_priority_then_name() -> None:
    table = RouteTable(
        [route("", "world"), route("49", "b", 2), route("49", "c", 1), route("49", "a", 2), route("4917", "mobile")]
    )
    assert [found.row.trunk for found in table.match("493012345")] == ["c", "a", "b"]
    assert [found.row.trunk for found in table.match("4917012345")] == ["mobile"]
    assert [found.row.trunk for found in table.match("12025550123")] == ["world"]
    assert RouteTable().match("49") == ()


def test_a_carrier_that_is_not_usable_is_as_if_it_were_not_there() -> None:
    table = RouteTable([route("", "world"), route("49", "down", is_usable=False), route("4930", "a", is_usable=False)])
    assert [found.row.trunk for found in table.match("493012345")] == ["world"]


def test_an_answer_names_a_bounded_number_of_routes() -> None:
    table = RouteTable([route("49", f"trunk{number:02}", number) for number in range(20)])
    assert [found.row.priority for found in table.match("4930")] == list(range(ROUTES_MAX))


def test_a_route_says_where_how_the_number_is_written_and_what_it_costs() -> None:
    wholesale = compile_deck(DeckRow("493", "Berlin", Tariff(5_000)), name="wholesale")
    routes = RouteTable(
        [route("49", "a", 1, "wholesale", strip_digits=2, add_prefix="0"), route("49", "b", 2, "no such deck")]
    )
    first, second = ask("493012345", Catalogue({"retail": RETAIL, "wholesale": wholesale}, routes)).routes
    assert (first.trunk, first.address, first.carrier_account_id) == ("a", "a.example:5060", "account of a")
    assert (first.strip_digits, first.add_prefix) == (2, "0")
    assert first.cost is not None
    assert cost(first.cost, MONDAY_NOON_S, 60) == 5_000
    assert second.cost is None


DAY_AND_NIGHT = compile_deck(
    DeckRow("49", "Germany", Tariff(60_000, 60, 100_000, off_peak_rate_micros=30_000)),
    DeckRow("44", "UK", Tariff(60_000, 60, 100_000, off_peak_connect_fee_micros=0)),
    DeckRow("1", "NANP", Tariff(60_000)),
    peak_hours="Mon-Fri 08:00-20:00",
)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("number", "when", "expected"),
    [
        ("4930", "2026-01-05T12:00", 160_000),
        ("4930", "2026-01-05T21:00", 130_000),
        ("4930", "2026-01-10T12:00", 130_000),
        ("4420", "2026-01-05T12:00", 160_000),
        ("4420", "2026-01-05T21:00", 60_000),
        ("1202", "2026-01-05T21:00", 60_000),
    ],
)
def test_off_peak_is_charged_off_peak(number: str, when: str, expected: int) -> None:
    found = simulate(Catalogue({"d": DAY_AND_NIGHT}), "d", number, at(when), VALID_S, 60)
    assert not isinstance(found, Refuse)
    assert found.cost_micros == expected


def test_a_call_over_the_switch_pays_both_prices() -> None:
    found = simulate(Catalogue({"d": DAY_AND_NIGHT}), "d", "4930", at("2026-01-05T19:59"), VALID_S, 120)
    assert not isinstance(found, Refuse)
    assert found.cost_micros == 100_000 + 60_000 + 30_000
    assert [window.name for window in found.quote.price.windows] == ["peak", "off-peak", "peak", "off-peak"]


def test_a_price_reaches_to_the_end_of_the_longest_call_that_may_begin_with_it() -> None:
    for hour in range(48):
        at_s = at("2026-01-05T00:30") + hour * 3600
        price = ask("4930", Catalogue({"d": DAY_AND_NIGHT}, ANYWHERE), deck="d", at_s=at_s).price
        last_s = at_s + VALID_S + 86_400  # Somebody keeps the quote to its end, and talks for a day.
        fresh = ask("4930", Catalogue({"d": DAY_AND_NIGHT}, ANYWHERE), deck="d", at_s=last_s - 60).price
        assert cost(price, last_s - 60, 60) == cost(fresh, last_s - 60, 60)


@pytest.mark.cases
@pytest.mark.setting("call-timeout")
@pytest.mark.parametrize("days", [3, DURATION_S_MAX // 86_400])
@pytest.mark.parametrize("begins", ["2026-03-27T12:34", "2026-10-23T19:59", "2026-07-04T00:00", "2026-12-31T23:59"])
def test_a_quote_prices_the_longest_call_to_its_end(begins: str, days: int) -> None:
    start_s = at(begins)
    price = ask("4420", Catalogue({"d": DAY_FEE}, ANYWHERE), deck="d", at_s=start_s).price
    micros = 100_000 if _is_dear(start_s) else 0
    for minute in range(days * 24 * 60):
        micros += 60_000 if _is_dear(start_s + minute * 60) else 20_000
    assert cost(price, start_s, days * 86_400) == micros
    assert len(price.windows) <= 8  # Whoever keeps a price keeps what is usual, and how it goes on.


def _is_dear(moment_s: float) -> bool:
    local = datetime.fromtimestamp(moment_s, BERLIN)
    return local.weekday() < 5 and 8 <= local.hour < 20


DAY_FEE = compile_deck(
    DeckRow("44", "UK", Tariff(60_000, 60, 100_000, off_peak_rate_micros=20_000, off_peak_connect_fee_micros=0)),
    peak_hours="Mon-Fri 08:00-20:00",
    time_zone="Europe/Berlin",
)


def test_the_same_hour_gives_the_same_price_and_other_hours_are_forgotten() -> None:
    deck = compile_deck(DeckRow("49", "", Tariff(2, off_peak_rate_micros=1)), peak_hours="Mon-Fri 08:00-20:00")
    tariff = Tariff(2, off_peak_rate_micros=1)
    first = deck.price(tariff, MONDAY_NOON_S, VALID_S)
    assert deck.price(tariff, MONDAY_NOON_S + 1, VALID_S) is first
    for hour in range(1, 100):
        deck.price(tariff, MONDAY_NOON_S + hour * 3600, VALID_S)
    assert len(deck._schedules) <= 4
    assert len(deck._prices) <= 4
    assert deck.price(tariff, MONDAY_NOON_S, VALID_S) == first


def test_a_deck_rounds_and_charges_as_its_head_and_rows_say() -> None:
    rounding = Rounding(RoundingMethod.UP, 2)
    deck = compile_deck(DeckRow("49", "", Tariff(19_000, free_s=10, minimum_micros=20_000)), rounding=rounding)
    price = ask("4930", Catalogue({"retail": deck}, ANYWHERE)).price
    assert (price.rounding, price.free_s, price.minimum_micros) == (rounding, 10, 20_000)
    assert cost(price, MONDAY_NOON_S, 10) == 20_000
    assert cost(price, MONDAY_NOON_S, 130) == 40_000  # 120 s at 0.019 are 0.038, up to two decimals.


numbers = st.integers(1, 10**15 - 1).map(str)


@given(st.sets(numbers, min_size=1, max_size=60), numbers)
@settings(deadline=None)
def test_a_match_is_what_looking_at_every_prefix_finds(prefixes: set[str], number: str) -> None:
    deck = compile_deck(*(DeckRow(prefix, prefix, Tariff(1)) for prefix in prefixes))
    expected = max((prefix for prefix in prefixes if number.startswith(prefix)), key=len, default=None)
    found = deck.match(number)
    assert (found and found[0]) == expected
    assert found is None or found[1].description == expected
    assert deck.rows == len(prefixes)


@given(st.text(max_size=20))
@settings(deadline=None)
def test_a_prefix_is_what_a_number_can_begin_with(text: str) -> None:
    expected = 1 <= len(text) <= 15 and all(letter in "0123456789" for letter in text) and text[0] != "0"
    assert is_prefix(text) is expected


def quoted(catalogue: Catalogue, number: str, parent: str = "", deck: str = "retail") -> RatingQuote:
    found = quote(catalogue, deck, number, MONDAY_NOON_S, VALID_S, parent)
    assert isinstance(found, RatingQuote), found
    return found


WHOLESALE = compile_deck(
    DeckRow("49", "Germany", Tariff(5_000)),
    DeckRow("4917", "Germany mobile", Tariff(50_000)),
    DeckRow("49176", "Germany, one network", Tariff(70_000)),
    DeckRow("4930", "Berlin", Tariff(4_000)),
    name="wholesale",
)


@pytest.mark.setting("vgetpriceexactmatch", "blocknotbilledcalls")
@pytest.mark.parametrize(
    ("number", "routed_prefix", "is_exact"),
    [
        ("4921112345", "49", True),  # priced and routed as Germany
        ("4917012345", "4917", True),
        ("4917612345", "49176", False),  # the carrier charges one network apart, the list has all mobiles
        ("493012345", "4930", False),
        ("4990012345", "49", True),  # told apart by the list alone
        ("12025550123", "", True),  # routed anywhere, at no known cost
        ("44201234567", "44", True),
        ("49", "49", True),
    ],
)
def test_a_price_is_exact_when_nobody_routes_by_a_longer_prefix(
    number: str, routed_prefix: str, is_exact: bool
) -> None:
    deck = compile_deck(
        DeckRow("49", "Germany", Tariff(19_000)),
        DeckRow("4917", "Germany mobile", Tariff(89_000)),
        DeckRow("49900", "Premium", Tariff(1_990_000)),
        DeckRow("1", "North America", Tariff(10_000)),
        DeckRow("44201234567", "One number", Tariff(10_000)),
    )
    routes = RouteTable([route("", "world", 1, "wholesale"), route("44", "london")])
    found = quoted(Catalogue({"retail": deck, "wholesale": WHOLESALE}, routes), number)
    assert (found.routed_prefix, found.is_exact) == (routed_prefix, is_exact)


@pytest.mark.setting("vgetpriceexactmatch")
def test_a_longer_prefix_of_a_route_makes_a_price_inexact_too_and_the_refusal_names_both() -> None:
    found = quoted(Catalogue({"retail": RETAIL}, RouteTable([route("493", "berlin")])), "493012345")
    assert not found.is_exact
    refused = not_exact(found)
    assert refused.reason is Reason.NO_RATE
    assert "prefix 49," in refused.text
    assert "routed by 493:" in refused.text


@pytest.mark.setting("blocknotbilledcalls", "blocknotprofitablecalls")
def test_the_parent_deck_is_asked_beside_and_decides_nothing() -> None:
    parent = compile_deck(DeckRow("493", "Berlin", Tariff(12_000)), name="parent", peak_hours="Mon-Fri 08:00-20:00")
    catalogue = Catalogue({"retail": RETAIL, "parent": parent}, ANYWHERE)
    found = quoted(catalogue, "493012345", "parent")
    assert found.parent_price is not None
    assert (found.parent_prefix, cost(found.parent_price, MONDAY_NOON_S, 60)) == ("493", 12_000)
    for number, name in (("4917012345", "parent"), ("493012345", ""), ("493012345", "no such deck")):
        found = quoted(catalogue, number, name)
        assert (found.parent_prefix, found.parent_price) == ("", None)
        assert found.prefix


@given(st.lists(numbers, max_size=40), numbers, st.integers(1, 15))
@settings(deadline=None)
def test_deciding_digits_are_the_fewest_that_no_longer_prefix_begins_with(
    prefixes: list[str], number: str, at_least: int
) -> None:
    at_least = min(at_least, len(number))
    expected = at_least
    while expected <= len(number) and any(
        len(prefix) > expected and prefix.startswith(number[:expected]) for prefix in prefixes
    ):
        expected += 1
    assert PrefixOrder(sorted(map(code_of, prefixes))).deciding(code_of(number), at_least) == expected


few = st.text("123", min_size=1, max_size=6)
tables = st.sets(few, max_size=12)


@given(st.sets(few, min_size=1, max_size=12), tables, tables, tables, few, st.lists(few, min_size=1, max_size=30))
@settings(deadline=None, max_examples=300)
def test_every_number_that_begins_alike_has_the_same_answer(
    retail: set[str], wholesale: set[str], parent: set[str], routed: set[str], number: str, others: list[str]
) -> None:
    def deck(name: str, prefixes: set[str]) -> Deck:
        return compile_deck(*(DeckRow(prefix, prefix, Tariff(int(prefix))) for prefix in prefixes), name=name)

    decks = {"retail": deck("retail", retail), "w": deck("w", wholesale), "parent": deck("parent", parent)}
    table = RouteTable([route("", "world"), *(route(prefix, f"t{prefix}", 0, "w") for prefix in routed)])
    found = quote(Catalogue(decks, table), "retail", number, MONDAY_NOON_S, VALID_S, "parent")
    if not isinstance(found, RatingQuote):
        return
    length = found.valid_prefix_length
    assert length <= len(number)
    alike = [number + other for other in others] if length else []
    alike += [number[:length] + other for other in others] if length else []
    for other in [number, *alike]:
        assert quote(Catalogue(decks, table), "retail", other, MONDAY_NOON_S, VALID_S, "parent") == found
    if length > 1:  # and one digit less would not do: some table goes on there
        every = {
            *retail,
            *parent,
            *routed,
            *(wholesale if any(route.row.cost_deck for route in table.match(number)) else ()),
        }
        assert len(found.prefix) == length or any(
            len(prefix) >= length and prefix.startswith(number[: length - 1]) for prefix in every
        )


@given(st.sets(few, min_size=1, max_size=12), st.lists(few, min_size=1, max_size=60))
@settings(deadline=None)
def test_a_cached_quote_is_what_a_new_one_would_be(prefixes: set[str], numbers: list[str]) -> None:
    deck = compile_deck(*(DeckRow(prefix, prefix, Tariff(1)) for prefix in prefixes))
    kept = Catalogue({"retail": deck}, ANYWHERE)
    for number in numbers:
        fresh = quote(Catalogue({"retail": deck}, ANYWHERE), "retail", number, MONDAY_NOON_S, VALID_S)
        assert quote(kept, "retail", number, MONDAY_NOON_S, VALID_S) == fresh


def test_numbers_alike_share_one_answer_and_what_is_remembered_is_bounded() -> None:
    rows = [DeckRow(str(10_000 + index), "", Tariff(1)) for index in range(QUOTES_KEPT_MAX + 10)]
    catalogue = Catalogue({"retail": compile_deck(*rows)}, ANYWHERE)
    assert quoted(catalogue, "1000077") is quoted(catalogue, "10000123456")
    for row in rows:
        quoted(catalogue, row.prefix + "77")
    assert len(catalogue._kept) <= QUOTES_KEPT_MAX
