"""Top-ups: money that an operator credits to an account, exactly once for each key.

In: what makes a top-up valid, and what to answer when its key was used before. Out: writing it (the store's
transaction).
"""

import re
from dataclasses import dataclass
from typing import Final

from callwarden.kernel.errors import Conflict, Invalid
from callwarden.kernel.money import AMOUNT_MICROS_MAX, MICROS, BadCurrency, format_amount, parse_currency

# A million units at once is a typing error. The bound also keeps sums of top-ups far below 64 bits.
TOP_UP_MICROS_MAX: Final = 1_000_000 * MICROS
KEY_CHARS_MAX: Final = 128
NOTE_CHARS_MAX: Final = 256
ACCOUNT_CHARS_MAX: Final = 64  # An account's name, longer than its id.

# Printable ASCII without the space: a key is compared byte by byte, so two keys that look the same must be the same.
_KEY = re.compile(rf"[!-~]{{1,{KEY_CHARS_MAX}}}", re.ASCII)
_ACCOUNT = re.compile(rf"[A-Za-z0-9._-]{{1,{ACCOUNT_CHARS_MAX}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TopUp:
    """A credit to make. `account` is an id or a name; `key` is the caller's own id for this payment."""

    account: str
    amount_micros: int
    currency: str
    key: str
    note: str = ""

    def __post_init__(self) -> None:
        """Raises Invalid, naming the field."""
        if _ACCOUNT.fullmatch(self.account) is None:
            raise Invalid("must be the id or name of an account", field="account")
        if self.amount_micros <= 0:
            raise Invalid("must be above zero", field="amount_micros")
        if self.amount_micros > TOP_UP_MICROS_MAX:
            raise Invalid(f"must be at most {format_amount(TOP_UP_MICROS_MAX)} at once", field="amount_micros")
        try:
            parse_currency(self.currency)
        except BadCurrency as error:
            raise Invalid(str(error), field="currency") from error
        if _KEY.fullmatch(self.key) is None:
            raise Invalid(f"a key is 1 to {KEY_CHARS_MAX} printable characters without spaces", field="key")
        if len(self.note) > NOTE_CHARS_MAX or not self.note.isprintable():
            raise Invalid(f"a note is at most {NOTE_CHARS_MAX} printable characters", field="note")


@dataclass(frozen=True, slots=True)
class Payee:
    """The account before the top-up."""

    account_id: str
    currency: str
    balance_micros: int


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment that was credited under the same key."""

    account_id: str
    amount_micros: int
    currency: str
    entry_id: str


@dataclass(frozen=True, slots=True)
class Credited:
    """The answer: the ledger entry, the current balance, and whether the key had been credited before."""

    entry_id: str
    balance_micros: int
    currency: str
    duplicate: bool


def repeated(top_up: TopUp, payee: Payee, paid: Paid) -> Credited:
    """The answer to a top-up whose key was used before. Conflict if that was a different payment."""
    same = (paid.account_id, paid.amount_micros, paid.currency) == (
        payee.account_id,
        top_up.amount_micros,
        top_up.currency,
    )
    if not same:
        raise Conflict("this key was used for another payment", field="key")
    return Credited(paid.entry_id, payee.balance_micros, payee.currency, duplicate=True)


def balance_after(top_up: TopUp, payee: Payee) -> int:
    """The account's new balance in micros. Invalid for a currency that isn't the account's, or too large a balance."""
    if top_up.currency != payee.currency:
        raise Invalid(f"the account is kept in {payee.currency}", field="currency")
    balance_micros = payee.balance_micros + top_up.amount_micros
    if balance_micros > AMOUNT_MICROS_MAX:
        raise Invalid("the balance would exceed the largest amount", field="amount_micros")
    return balance_micros
