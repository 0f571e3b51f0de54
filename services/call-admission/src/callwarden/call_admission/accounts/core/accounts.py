"""Accounts as an operator describes them: made and changed by the fields of callwarden.kernel.account, each checked.

In: which values go together. Out: what one value may be (checks), what depends on other rows (adapters.account_rows),
what limits do (admission.core.rules).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from callwarden.call_admission.accounts.core import checks
from callwarden.call_admission.accounts.core.checks import Check, check_of
from callwarden.kernel import ids
from callwarden.kernel.account import BY_NAME, CLEARABLE, FIELDS, AccountType, NewAccount
from callwarden.kernel.errors import Invalid
from callwarden.kernel.fields import DataField, FieldKind

SEVERAL: Final = tuple(each for each in FIELDS if each.kind in (FieldKind.PHONES, FieldKind.NAMES))
"""Fields of several values, which a change adds to or takes from."""

_VERIFIABLE: Final = tuple(each.name for each in FIELDS if f"{each.name}_verified" in BY_NAME)


@dataclass(frozen=True, slots=True)
class AccountRef:
    """How an operator names an account: by id, by name, or by name and realm (`name@realm`)."""

    id: UUID | None
    name: str
    realm: str

    @classmethod
    def parse(cls, text: str, field: str = "account") -> "AccountRef":
        """Raises Invalid."""
        account_id = ids.parse(text)
        if account_id is not None:
            return cls(account_id, "", "")
        name, _, realm = text.partition("@")
        if checks.NAME.fullmatch(name) is None or (realm and checks.REALM.fullmatch(realm.lower()) is None):
            raise Invalid(f"{field} must be an account's id, its name, or name@realm", field=field)
        return cls(None, name, realm.lower())

    def __str__(self) -> str:
        return str(self.id) if self.id else f"{self.name}@{self.realm}" if self.realm else self.name


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is to be different, by the names of fields; a field that is nowhere stays."""

    values: Mapping[str, Any] = field(default_factory=dict)
    clear: frozenset[str] = frozenset()
    """Fields whose value is taken away."""
    add: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """To each of SEVERAL that is named."""
    remove: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """Which accounts are meant; empty: all."""

    type: AccountType | None = None
    realm: str = ""
    parent: AccountRef | None = None


def check_parent(parent: str) -> str:
    if parent:
        AccountRef.parse(parent, "parent")
    return parent


# Values that a field's kind alone doesn't check.
_SPECIAL: Final[Mapping[str, Check]] = {
    "name": checks.check_name,
    "realm": checks.check_realm,
    "currency": checks.check_currency,
    "time_zone": checks.check_zone,
    "deck": checks.check_deck,
    "parent": check_parent,
    "country": checks.check_country,
    "email": checks.check_email,
    "shards": checks.check_shards,
}
_CHECKS: Final[tuple[tuple[DataField, Check], ...]] = tuple((each, check_of(each, _SPECIAL)) for each in FIELDS)


def check_account(given: Mapping[str, Any]) -> NewAccount:
    """The account of these values, by `wire` names; or Invalid with the first field that is wrong. What is None or
    empty isn't set."""
    values: dict[str, Any] = {}
    for each, check in _CHECKS:
        value = given.get(each.wire)
        if value is None or value == "":
            if not each.is_required and not isinstance(each.preset, str):
                continue
            value = "" if each.is_required else each.preset
        values[each.name] = check(value)
    account = NewAccount(deck=values.pop("deck", ""), **values)
    check_together(account.limits)
    if account.type is AccountType.RESELLER and account.parent:
        raise Invalid("a reseller can't belong to another reseller", field="parent")
    check_verified(values)
    return account


def check_change(
    given: Mapping[str, Any],
    *,
    clear: Iterable[str] = (),
    add: Mapping[str, Iterable[str]] | None = None,
    remove: Mapping[str, Iterable[str]] | None = None,
) -> AccountChange:
    """The change, or Invalid with the first field that is wrong. `given` by `wire` names; None: unchanged. `add` and
    `remove` by the names of SEVERAL."""
    cleared = frozenset(clear)
    if not cleared <= CLEARABLE:
        raise Invalid(f"clear takes {', '.join(sorted(CLEARABLE))}", field="clear")
    values: dict[str, Any] = {}
    for each, check in _CHECKS:
        value = given.get(each.wire)
        if value is None:
            continue
        if each.name in cleared:
            raise Invalid(f"{each.name} is set and cleared at once", field=each.name)
        if value == "" and each.is_clearable:
            raise Invalid(f"{each.name} is empty: clear it instead", field=each.name)
        values[each.name] = check(value)
    # A new address isn't the one that was verified.
    for name in _VERIFIABLE:
        if f"{name}_verified" not in values and (name in values or name in cleared):
            values[f"{name}_verified"] = False
    return AccountChange(values, cleared, _checked("add", add or {}), _checked("remove", remove or {}))


def _checked(verb: str, given: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in SEVERAL:
        check = checks.check_numbers if each.kind is FieldKind.PHONES else checks.check_lists
        if several := check(given.get(each.name, ()), f"{verb}_{each.wire}"):
            found[each.name] = several
    return found


def check_filter(type_: str, realm: str, parent: str) -> AccountFilter:
    return AccountFilter(
        checks.check_type(type_) if type_ else None,
        checks.check_realm(realm) if realm else "",
        AccountRef.parse(parent, "parent") if parent else None,
    )


def check_verified(values: Mapping[str, Any]) -> None:
    """Raises Invalid where there is nothing that could have been verified."""
    for name in _VERIFIABLE:
        if values.get(f"{name}_verified") and not values.get(name):
            raise Invalid(f"there is no {name} that could be verified", field=f"{name}_verified")


def check_together(limits: Mapping[str, int | None]) -> None:
    """Raises Invalid for limits that contradict each other."""
    monthly, ceiling = limits.get("monthly_micros"), limits.get("monthly_ceiling_micros")
    if monthly is None:
        for name in ("monthly_increment_micros", "monthly_ceiling_micros"):
            if limits.get(name) is not None:
                raise Invalid(f"{name} needs monthly_micros, from which it grows", field=name)
    elif ceiling is not None and ceiling < monthly:
        raise Invalid("monthly_ceiling_micros is below monthly_micros", field="monthly_ceiling_micros")
