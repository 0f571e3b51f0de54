"""Rows of accounts and trunks to values and back, and what the database has to say against an account.

In: columns, checks that need other rows (reseller, deck, ledger). Out: transactions (accounts_sql), checks of the
values themselves (core.accounts).
"""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, and_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from callwarden.call_admission.accounts.core.account_csv import Line
from callwarden.call_admission.accounts.core.accounts import (
    SEVERAL,
    AccountChange,
    AccountFilter,
    AccountRef,
    check_together,
    check_verified,
)
from callwarden.call_admission.accounts.core.checks import check_lists
from callwarden.call_admission.accounts.ports import Resellers
from callwarden.common.sql.expressions import total
from callwarden.kernel.account import FIELDS, LIMITS, AccountType, NewAccount
from callwarden.kernel.csv_rows import LineError
from callwarden.kernel.errors import Conflict, Invalid, NotFound
from callwarden.kernel.fields import DataField, FieldKind
from callwarden.kernel.trunk import TRUNK_FIELDS, Trunk
from callwarden.schema.tables import account, account_number, counter, deck, hold, ledger_entry

# `parent` is the id of a row that has to be looked up.
COLUMNS: Final = tuple(field for field in FIELDS if field.column and field.name != "parent")
TRUNK_COLUMNS: Final = tuple(field for field in TRUNK_FIELDS if field.column and field.name not in ("name", "account"))

# ------------------------------------------------------------------ rows


def row_of(account_id: UUID, new: NewAccount, parent_id: UUID | None) -> dict[str, Any]:
    columns = {field.column: stored(field, getattr(new, field.name)) for field in COLUMNS}
    return {"id": account_id, "parent": parent_id, **columns}


def account_of(row: Row[Any], numbers: Mapping[UUID, Sequence[str]], parents: Mapping[UUID, str]) -> NewAccount:
    columns = row._mapping
    return NewAccount(
        numbers=tuple(numbers.get(row.id, ())),
        parent="" if row.parent is None else parents[row.parent],
        **{field.name: loaded(field, columns[field.column]) for field in COLUMNS},
    )


def stored(field: DataField, value: Any) -> Any:
    """A field's value as its column holds it."""
    match field.kind:
        case FieldKind.WORD:
            return value.value
        case FieldKind.STATUS:
            return "active" if value else "disabled"
        case FieldKind.NAMES:
            return _SEPARATOR.join(value)
    return value


def loaded(field: DataField, stored: Any) -> Any:
    """The value of what a column holds."""
    match field.kind:
        case FieldKind.WORD:
            return AccountType(stored)
        case FieldKind.STATUS:
            return stored == "active"
        case FieldKind.NAMES:
            return tuple(filter(None, stored.split(_SEPARATOR)))
    return stored


_SEPARATOR: Final = ","


async def numbers_and_parents(
    connection: AsyncConnection, rows: Sequence[Row[Any]]
) -> tuple[dict[UUID, list[str]], dict[UUID, str]]:
    """Of the accounts of these rows: their numbers, and their resellers' names by id."""
    ids = [row.id for row in rows]
    numbers: dict[UUID, list[str]] = {}
    of_accounts = select(account_number).where(account_number.c.account_id.in_(ids)).order_by(account_number.c.number)
    for row in (await connection.execute(of_accounts)).all():
        numbers.setdefault(row.account_id, []).append(row.number)
    parent_ids = {row.parent for row in rows if row.parent is not None}
    if not parent_ids:
        return numbers, {}
    named = await connection.execute(select(account.c.id, account.c.name).where(account.c.id.in_(parent_ids)))
    return numbers, {row.id: row.name for row in named}


def filtered(query: Select[Any], wanted: AccountFilter, parent_id: UUID | None) -> Select[Any]:
    if wanted.type is not None:
        query = query.where(account.c.type == wanted.type.value)
    if wanted.realm:
        query = query.where(account.c.realm == wanted.realm)
    return query if parent_id is None else query.where(account.c.parent == parent_id)


def trunk_row(new: Trunk) -> dict[str, Any]:
    return {field.column: stored(field, getattr(new, field.name)) for field in TRUNK_COLUMNS}


def trunk_of(row: Row[Any]) -> Trunk:
    columns = row._mapping
    values = {field.name: loaded(field, columns[field.column]) for field in TRUNK_COLUMNS}
    return Trunk(name=row.name, account=row.owner, realm=row.realm, **values)


# ------------------------------------------------------------------ one account


async def changed(connection: AsyncConnection, before: Row[Any], change: AccountChange) -> dict[str, Any]:
    """The columns that are to be different. Raises Invalid, NotFound or Conflict for what can't be."""
    values: dict[str, Any] = {
        field.column: None if field.is_optional else "" for field in COLUMNS if field.name in change.clear
    }
    values |= {
        field.column: stored(field, change.values[field.name]) for field in COLUMNS if field.name in change.values
    }
    for field in SEVERAL:
        add, remove = change.add.get(field.name, ()), change.remove.get(field.name, ())
        if field.column and (add or remove):
            there = loaded(field, before._mapping[field.column])
            values[field.column] = stored(field, _lists_changed(there, add, remove))
    after = {**before._mapping, **values}
    check_together({name: after[name] for name in LIMITS})
    check_verified(after)
    if after["currency"] != before.currency:
        await _check_currency_may_change(connection, before.id)
    if "currency" in change.values or change.values.get("deck"):
        await check_deck(connection, after["deck"], after["currency"])
    if change.values.get("prepaid") and not before.prepaid and await _free_micros(connection, before) < 0:
        raise Conflict("the account owes money: credit it before it becomes prepaid", field="prepaid")
    if "parent" in change.clear:
        values["parent"] = None
    elif "parent" in change.values:
        if before.type == AccountType.RESELLER.value:
            raise Invalid("a reseller can't belong to another reseller", field="parent")
        values["parent"] = await reseller_of(connection, change.values["parent"], before.realm, after["currency"])
    elif before.parent is not None and "currency" in change.values:
        await reseller_of(connection, str(before.parent), before.realm, after["currency"])
    return values


async def _free_micros(connection: AsyncConnection, row: Row[Any]) -> int:
    """What the account has that isn't held by running calls, its overdraft included."""
    free_micros = int(row.balance_micros + row.overdraft_micros - row.held_micros)
    found = await connection.execute(in_shards().where(counter.c.scope == row.id))
    return free_micros - sum(int(each.held + each.spent) for each in found)


def in_shards() -> Select[Any]:
    """What sharded accounts hold and were charged in their shards, beside their rows."""
    held, spent = total(counter.c.held_micros).label("held"), total(counter.c.spent_micros).label("spent")
    return select(counter.c.scope, held, spent).group_by(counter.c.scope)


def _lists_changed(before: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> Sequence[str]:
    if missing := [name for name in remove if name not in before]:
        raise Invalid(f"list {missing[0]} isn't the account's", field="remove_lists")
    after = [name for name in dict.fromkeys((*before, *add)) if name not in remove]
    return check_lists(after, "add_lists")


async def _check_currency_may_change(connection: AsyncConnection, account_id: UUID) -> None:
    for query, why in (
        (select(ledger_entry.c.id).where(ledger_entry.c.account_id == account_id), "the account has ledger entries"),
        (
            select(hold.c.id).where(hold.c.account_id == account_id),
            "the account has running calls, or had just now",
        ),
        (select(account.c.id).where(account.c.parent == account_id), "accounts belong to this reseller"),
    ):
        if (await connection.execute(query.limit(1))).first() is not None:
            raise Conflict(f"the currency can't change: {why}", field="currency")


async def check_deck(connection: AsyncConnection, name: str, currency: str) -> None:
    """A deck may be imported later; one that is there must charge in the account's currency."""
    charged = (await _deck_currencies(connection, {name})).get(name, currency)
    if charged != currency:
        raise Invalid(f"deck {name} charges in {charged}, the account pays in {currency}", field="deck")


async def _deck_currencies(connection: AsyncConnection, names: Collection[str]) -> dict[str, str]:
    wanted = [name for name in names if name]
    if not wanted:
        return {}
    found = await connection.execute(select(deck.c.name, deck.c.currency).where(deck.c.name.in_(wanted)))
    return {row.name: row.currency for row in found}


async def reseller_of(connection: AsyncConnection, text: str, realm: str, currency: str) -> UUID:
    """The id of the reseller of that name or id, if an account of this realm and currency may belong to it. Raises
    NotFound, Invalid."""
    ref = AccountRef.parse(text, "parent")
    named = and_(account.c.name == ref.name, account.c.realm == (ref.realm or realm))
    query = _RESELLER.where(account.c.id == ref.id if ref.id else named)
    found = (await connection.execute(query)).one_or_none()
    if found is None:
        raise NotFound(f"there is no reseller {ref} in {realm}", field="parent")
    if wrong := _wrong_with(found, text, realm, currency):
        raise Invalid(wrong, field="parent")
    reseller_id: UUID = found.id
    return reseller_id


_RESELLER: Final[Select[Any]] = select(
    account.c.id, account.c.name, account.c.type, account.c.realm, account.c.currency
)


def _wrong_with(reseller: Row[Any], text: str, realm: str, currency: str) -> str:
    if reseller.type != AccountType.RESELLER.value:
        return f"{text} is not a reseller but of type {reseller.type}"
    if reseller.realm != realm:
        return f"reseller {text} is of realm {reseller.realm}, the account of {realm}"
    if reseller.currency != currency:
        return f"reseller {text} pays in {reseller.currency}, the account in {currency}"
    return ""


# ------------------------------------------------------------------ many accounts


async def wrong_lines(connection: AsyncConnection, lines: Sequence[Line], resellers: Resellers) -> list[LineError]:
    """What stands in the way of creating these, as the database is now."""
    accounts = [line.account for line in lines]
    names = [(new.realm, new.name) for new in accounts]
    same = select(account.c.realm, account.c.name).where(tuple_(account.c.realm, account.c.name).in_(names))
    taken = {(row.realm, row.name) for row in await connection.execute(same)}
    wanted = [number for new in accounts for number in new.numbers]
    used = select(account_number.c.number).where(account_number.c.number.in_(wanted))
    numbers = set((await connection.execute(used)).scalars()) if wanted else set()
    decks = await _deck_currencies(connection, {new.deck for new in accounts})
    parents = await parents_of(connection, accounts)
    errors: list[LineError] = []
    bad: set[int] = set()
    for line in lines:
        new = line.account
        wrong: tuple[str, str] | None = None
        if (new.realm, new.name) in taken:
            wrong = "name", f"there is an account {new.name} in {new.realm} already"
        elif number := next((number for number in new.numbers if number in numbers), ""):
            wrong = "numbers", f"number +{number} is another account's"
        elif (charged := decks.get(new.deck, new.currency)) != new.currency:
            wrong = "deck", f"deck {new.deck} charges in {charged}, the account pays in {new.currency}"
        elif new.parent and (text := _wrong_parent(line, parents, resellers, bad)):
            wrong = "parent", text
        if wrong is not None:
            errors.append(LineError(line.number, *wrong))
            bad.add(line.number)
    return errors


async def parents_of(connection: AsyncConnection, accounts: Sequence[NewAccount]) -> dict[str, Row[Any]]:
    """Accounts that these name as their resellers, by id and by name@realm."""
    refs = {_parent_ref(new) for new in accounts if new.parent}
    if not refs:
        return {}
    by_id = account.c.id.in_([ref.id for ref in refs if ref.id])
    by_name = tuple_(account.c.realm, account.c.name).in_([(ref.realm, ref.name) for ref in refs if not ref.id])
    rows = (await connection.execute(_RESELLER.where(or_(by_id, by_name)))).all()
    return {str(row.id): row for row in rows} | {f"{row.name}@{row.realm}": row for row in rows}


def parent_id_of(new: NewAccount, parents: Mapping[str, Row[Any]], resellers: Resellers) -> UUID | None:
    if not new.parent:
        return None
    ref = _parent_ref(new)
    found = parents.get(str(ref))
    parent_id: UUID = found.id if found is not None else resellers[ref.realm, ref.name].id
    return parent_id


def _parent_ref(new: NewAccount) -> AccountRef:
    ref = AccountRef.parse(new.parent, "parent")
    return ref if ref.id or ref.realm else replace(ref, realm=new.realm)


def _wrong_parent(line: Line, parents: Mapping[str, Row[Any]], resellers: Resellers, bad: Set[int]) -> str:
    new = line.account
    ref = _parent_ref(new)
    found = parents.get(str(ref))
    if found is not None:
        return _wrong_with(found, new.parent, new.realm, new.currency)
    made = resellers.get((ref.realm, ref.name)) if ref.realm == new.realm else None
    if made is None or made.line >= line.number or made.line in bad:
        return f"there is no reseller {new.parent} in {new.realm}, nor on a line before"
    if made.currency != new.currency:
        return f"reseller {new.parent} pays in {made.currency}, the account in {new.currency}"
    return ""
