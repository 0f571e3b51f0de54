"""What a top-up is, and what is said to one that comes again."""

from typing import Any

import pytest

from callwarden.kernel.errors import Conflict, Invalid
from callwarden.kernel.money import AMOUNT_MICROS_MAX
from callwarden.payment.core.topup import TOP_UP_MICROS_MAX, Paid, Payee, TopUp, balance_after, repeated

GOOD: dict[str, Any] = {"account": "alice", "amount_micros": 5_000_000, "currency": "EUR", "key": "invoice-1"}
PAYEE = Payee("id-1", "EUR", 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account", ""),
        ("account", "a" * 65),
        ("account", "alice; DROP TABLE account"),
        ("account", "älice"),
        ("amount_micros", 0),
        ("amount_micros", -1),
        ("amount_micros", TOP_UP_MICROS_MAX + 1),
        ("currency", ""),
        ("currency", "eur"),
        ("currency", "EURO"),
        ("key", ""),
        ("key", "k" * 129),
        ("key", "two words"),
        ("key", "line\nbreak"),
        ("key", "ключ"),
        ("note", "n" * 257),
        ("note", "bell\x07"),
    ],
)
def test_what_cannot_be_credited_names_its_field(field: str, value: object) -> None:
    with pytest.raises(Invalid) as caught:
        TopUp(**(GOOD | {field: value}))
    assert caught.value.field == field


def test_the_largest_of_everything_is_accepted() -> None:
    TopUp("a" * 64, TOP_UP_MICROS_MAX, "EUR", "k" * 128, "ü" * 256)


def test_the_balance_grows_by_the_amount() -> None:
    assert balance_after(TopUp(**GOOD), PAYEE) == 5_000_007


def test_an_account_takes_only_its_own_currency() -> None:
    with pytest.raises(Invalid) as caught:
        balance_after(TopUp(**(GOOD | {"currency": "USD"})), PAYEE)
    assert caught.value.field == "currency"


def test_a_balance_never_grows_beyond_what_can_be_kept() -> None:
    full = Payee("id-1", "EUR", AMOUNT_MICROS_MAX - GOOD["amount_micros"])
    assert balance_after(TopUp(**GOOD), full) == AMOUNT_MICROS_MAX
    with pytest.raises(Invalid):
        balance_after(TopUp(**GOOD), Payee("id-1", "EUR", full.balance_micros + 1))


def test_the_same_payment_again_gets_the_same_entry_and_todays_balance() -> None:
    again = repeated(TopUp(**GOOD), PAYEE, Paid("id-1", 5_000_000, "EUR", "entry-1"))
    assert (again.entry_id, again.balance_micros, again.duplicate) == ("entry-1", 7, True)


@pytest.mark.parametrize(
    "paid",
    [Paid("id-2", 5_000_000, "EUR", "e"), Paid("id-1", 5_000_001, "EUR", "e"), Paid("id-1", 5_000_000, "USD", "e")],
)
def test_a_key_that_was_used_for_something_else_is_a_conflict(paid: Paid) -> None:
    with pytest.raises(Conflict) as caught:
        repeated(TopUp(**GOOD), PAYEE, paid)
    assert caught.value.field == "key"
