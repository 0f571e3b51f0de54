"""Every known call costs what exact arithmetic says when its price comes from a deck in CSV: none is left out."""

import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from callwarden.kernel.hours import parse_plan
from callwarden.kernel.money import parse_amount
from callwarden.kernel.tariff import Price, Rounding, RoundingMethod, affordable_s, cost
from callwarden.rating.core.deck import Deck, DeckHead, DeckRow, DeckWindow, RowPacker
from callwarden.rating.core.deck_csv import read

VECTORS = json.loads(
    (Path(__file__).resolve().parents[3] / "libs" / "kernel" / "tests" / "data" / "rating_vectors.json").read_text()
)
COST_VECTORS: list[dict[str, Any]] = VECTORS["cost_vectors"]
BALANCE_VECTORS: dict[str, dict[str, Any]] = {vector["id"]: vector for vector in VECTORS["balance_vectors"]}
EVENING = DeckWindow("evening", "Mon-Sun 18:00-24:00")  # what the second windows of the vectors are
START_S = 1_328_203_800  # 2012-02-02T17:30:00Z, when those of several windows begin


def cells(groups: list[dict[str, str]], suffix: str = "") -> dict[str, str]:
    first, *steps = groups
    texts = [f"{step['start_s']}:{step['rate']}:{step['increment_s']}:{step['unit_s']}" for step in steps]
    named = {
        "connect_fee": first["connect_fee"],
        "rate": first["rate"],
        "unit_s": first["unit_s"],
        "first_increment_s": first["increment_s"],
        "next_increment_s": first["increment_s"],
        "steps": " ".join(texts) or ("none" if suffix else ""),
    }
    return {name + suffix: cell for name, cell in named.items()}


def price_from(row: dict[str, str], rounding: Rounding, *windows: DeckWindow) -> Price:
    """As it comes of a file with that row."""
    row = {"prefix": "49"} | row
    text = f"{','.join(row)}\n{','.join(row.values())}\n"
    (found,) = read(text, has_peak=False, windows=[window.name for window in windows])
    assert isinstance(found, DeckRow), found
    head = DeckHead("vectors", "EUR", rounding=rounding, windows=windows)
    plan = parse_plan([window.hours for window in windows], ZoneInfo("UTC")) if windows else None
    packer = RowPacker()
    packer.add([found])
    deck = Deck(head, plan, packer.pack())
    match = deck.match("4930")
    assert match is not None
    return deck.price(match[1].tariff, START_S, 300.0)


def price_of(vector: dict[str, Any]) -> Price:
    first, *later = vector.get("windows", [vector])
    row = cells(first["rate_groups"])
    for other in later:
        row |= cells(other["rate_groups"], f".{EVENING.name}")
    if "max_cost" in vector:
        row |= {
            "maximum": vector["max_cost"],
            "at_maximum": {"disconnect": "cut"}.get(vector["max_cost_strategy"], "free"),
        }
    rounding = Rounding(RoundingMethod(vector["rounding"]["method"]), vector["rounding"]["decimals"])
    return price_from(row, rounding, *([EVENING] if later else []))


@pytest.mark.parametrize("vector", COST_VECTORS, ids=lambda vector: str(vector["id"]))
def test_a_known_call_costs_what_exact_arithmetic_says(vector: dict[str, Any]) -> None:
    price, duration_s = price_of(vector), int(vector["duration_s"])
    micros: int = cost(price, START_S, duration_s)
    if vector.get("no_connect_fee"):  # The vector is about a later slice of the call: the first one took the fee.
        micros -= price.windows[0].connect_fee_micros
    assert micros == parse_amount(vector["exact_cost"])


def test_all_vectors_are_there() -> None:
    assert len(COST_VECTORS) == 26
    assert sum(len(vector["rate_groups"]) > 1 for vector in COST_VECTORS) == 6
    assert sum("max_cost" in vector for vector in COST_VECTORS) == 4
    assert sum("windows" in vector for vector in COST_VECTORS) == 2


@pytest.mark.parametrize(
    ("key", "row", "money"),
    [
        ("blocker-balance", {"rate": "0.05", "connect_fee": "0.15"}, "1"),
        ("max-session-free", {"rate": "1", "unit_s": "1", "maximum": "10", "at_maximum": "free"}, "11"),
    ],
)
def test_money_buys_as_long_a_call_as_the_vectors_say(key: str, row: dict[str, str], money: str) -> None:
    vector = BALANCE_VECTORS[key]
    price = price_from(row, Rounding(RoundingMethod.UP, 2))
    assert affordable_s(price, START_S, parse_amount(money), vector["asked_s"]) == vector["expect_granted_s"]


def test_a_maximum_that_disconnects_ends_the_call_there() -> None:
    vector = next(vector for vector in COST_VECTORS if vector["id"] == "1cnt-per-sec-70s-disconnect")
    assert affordable_s(price_of(vector), START_S, parse_amount("100"), 70) == 62
