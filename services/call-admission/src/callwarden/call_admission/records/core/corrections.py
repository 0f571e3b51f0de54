"""What a correction adds to an account: the reversing entry that makes a call cost what it should have.

In: amounts, and whether an account can bear them. Out: reading and writing entries (adapters.records_sql). An entry is
never changed: what was wrong stays in the ledger, next to the entry that corrects it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

from callwarden.kernel.errors import Conflict
from callwarden.kernel.money import AMOUNT_MICROS_MAX, format_amount

# An entry's id is made of the key, so that the database itself keeps one key from being used twice.
_KEYS: Final = UUID("6f0f6c1e-6d0c-4b62-9b0e-2f8f3f3f8a51")


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One entry about a call or a payment: the first (`slice` 0) or one that reverses some of it."""

    id: UUID
    slice: int
    amount_micros: int


@dataclass(frozen=True, slots=True)
class AccountFunds:
    """The account as it was read in the transaction."""

    name: str
    currency: str
    prepaid: bool
    balance_micros: int
    held_micros: int
    overdraft_micros: int


@dataclass(frozen=True, slots=True)
class Reversal:
    """The entry to be written."""

    id: UUID
    slice: int
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Corrected:
    """What was done, or `duplicate`: what had been done with this key."""

    entry_id: UUID
    account: str
    amount_micros: int
    currency: str
    balance_micros: int
    duplicate: bool


def id_of(key: str) -> UUID:
    return uuid5(_KEYS, key)


def reversal(entries: Sequence[LedgerLine], key: str, net_micros: int, purse: AccountFunds) -> Reversal | Corrected:
    """The entry after which the sum of all is `net_micros`; or what this key did before.

    Raises Conflict when a prepaid account can't bear it, or the key has done something else.
    """
    entry_id = id_of(key)
    for done in entries:
        if done.id == entry_id:
            after = sum(entry.amount_micros for entry in entries if entry.slice <= done.slice)
            if after != net_micros:
                raise Conflict("this key was used for another correction", field="key")
            return Corrected(
                done.id, purse.name, done.amount_micros, purse.currency, purse.balance_micros, duplicate=True
            )
    amount_micros = net_micros - sum(entry.amount_micros for entry in entries)
    after_micros = purse.balance_micros + amount_micros
    if abs(after_micros) > AMOUNT_MICROS_MAX:
        raise Conflict("the balance would be beyond what an amount can be")
    free_micros = purse.balance_micros + purse.overdraft_micros - purse.held_micros
    if amount_micros < 0 and purse.prepaid and free_micros + amount_micros < 0:
        raise Conflict(
            f"{purse.name} has {format_amount(free_micros, purse.currency)} that isn't held by running calls; "
            f"this takes {format_amount(-amount_micros, purse.currency)}"
        )
    return Reversal(entry_id, max((entry.slice for entry in entries), default=0) + 1, amount_micros)
