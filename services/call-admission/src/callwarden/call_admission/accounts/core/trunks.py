"""Trunks as an operator describes them: made and changed by the fields of callwarden.kernel.trunk, each checked.

Out: what one value may be (checks), how trunks are kept (adapters.trunks_sql).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from callwarden.call_admission.accounts.core import checks
from callwarden.call_admission.accounts.core.accounts import AccountRef
from callwarden.call_admission.accounts.core.checks import Check, check_of
from callwarden.kernel.account import AccountType
from callwarden.kernel.errors import Invalid
from callwarden.kernel.fields import ChangedBy, DataField, FieldKind
from callwarden.kernel.trunk import PREFIXES_MAX, TRUNK_FIELDS, Trunk

SEVERAL: Final = tuple(each for each in TRUNK_FIELDS if each.kind is FieldKind.NAMES)
"""Fields of several values, which a change adds to or takes from."""


@dataclass(frozen=True, slots=True)
class TrunkUpdate:
    """What is to be different, by the names of fields; a field that is nowhere stays."""

    values: Mapping[str, Any] = field(default_factory=dict)
    add: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """To each of SEVERAL that is named."""
    remove: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, trunk: Trunk) -> Trunk:
        """The trunk as it is then. Raises Invalid for too many prefixes, and for one to be removed that isn't there."""
        several: dict[str, Any] = {
            each.name: _changed(
                getattr(trunk, each.name), self.add.get(each.name, ()), self.remove.get(each.name, ()), each.wire
            )
            for each in SEVERAL
        }
        return replace(trunk, **self.values, **several)


def _changed(before: Sequence[str], add: Sequence[str], remove: Sequence[str], wire: str) -> tuple[str, ...]:
    if missing := [prefix for prefix in remove if prefix not in before]:
        raise Invalid(f"prefix +{missing[0]} isn't there", field=f"remove_{wire}")
    after = sorted({*before, *add} - {*remove})
    if len(after) > PREFIXES_MAX:
        raise Invalid(f"a trunk has at most {PREFIXES_MAX:,} prefixes of each kind", field=f"add_{wire}")
    return tuple(after)


def _account(text: str) -> str:
    AccountRef.parse(text)
    return text


# Values that a field's kind alone doesn't check.
_SPECIAL: Final[Mapping[str, Check]] = {
    "name": checks.check_name,
    "address": checks.check_host_port,
    "direction": checks.check_direction,
    "account": _account,
    "tech_prefix": checks.check_tech_prefix,
    "add_prefix": checks.check_add_prefix,
    "allow_prefixes": lambda texts: tuple(sorted(checks.check_prefixes(texts, "allow_prefixes"))),
    "block_prefixes": lambda texts: tuple(sorted(checks.check_prefixes(texts, "block_prefixes"))),
}
_CHECKS: Final[tuple[tuple[DataField, Check], ...]] = tuple(
    (each, check_of(each, _SPECIAL)) for each in TRUNK_FIELDS if each.name != "realm"
)


def check_trunk(given: Mapping[str, Any]) -> Trunk:
    """The trunk of these values, by `wire` names, all but those with a default; or Invalid with the first field that is
    wrong."""
    trunk = Trunk(**{each.name: check(given[each.wire]) for each, check in _CHECKS if each.wire in given})
    if trunk.only_local and trunk.direction is not AccountType.TRAFFIC_SENDER:
        raise Invalid("only_local is for traffic senders: calls don't come in from a carrier", field="only_local")
    return trunk


def check_trunk_change(
    given: Mapping[str, Any],
    *,
    add: Mapping[str, Iterable[str]] | None = None,
    remove: Mapping[str, Iterable[str]] | None = None,
) -> TrunkUpdate:
    """The change, or Invalid with the first field that is wrong. `given` by `wire` names; None: unchanged. `add` and
    `remove` by the names of SEVERAL."""
    values = {
        each.name: check(value)
        for each, check in _CHECKS
        if each.by is ChangedBy.OPERATOR and (value := given.get(each.wire)) is not None
    }
    return TrunkUpdate(values, _prefixes("add", add or {}), _prefixes("remove", remove or {}))


def _prefixes(verb: str, given: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {
        each.name: found
        for each in SEVERAL
        if (found := checks.check_prefixes(given.get(each.name, ()), f"{verb}_{each.wire}"))
    }
