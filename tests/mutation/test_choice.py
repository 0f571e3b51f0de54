"""Which mutants of a core a run takes."""

from tests.mutation.__main__ import chosen_modules, named_survivors
from tests.mutation.cores import CORES


def test_modules_are_chosen_by_their_names_within_the_package() -> None:
    core = CORES["rating"]
    assert chosen_modules(core, []) == core.modules()
    assert list(chosen_modules(core, ["core.deck*"])) == [
        "callwarden.rating.core.deck",
        "callwarden.rating.core.deck_csv",
    ]
    assert list(chosen_modules(core, ["core.quotes", "core.deck"])) == [
        "callwarden.rating.core.deck",
        "callwarden.rating.core.quotes",
    ]
    assert not chosen_modules(core, ["deck"])


def test_survivors_are_read_from_what_a_run_printed() -> None:
    modules = chosen_modules(CORES["rating"], ["core.deck"])
    source = "services/rating/src/callwarden/rating/core"
    log = (
        f"rating: 100 of 400\nsurvived: {source}/deck.py:7: Deck.price: constant: ':3' → ':4'\n"
        f"not run: {source}/deck.py:9: Deck._price: boundary: a < b → a <= b\n"
        f"survived: {source}/quotes.py:9: quote: constant: '' → 'mutant'\n| rating | 2 | 1 |\n"
    )
    assert named_survivors(modules, log) == [
        "callwarden.rating.core.deck: Deck.price: constant: ':3' → ':4'",
        "callwarden.rating.core.deck: Deck._price: boundary: a < b → a <= b",
    ]
