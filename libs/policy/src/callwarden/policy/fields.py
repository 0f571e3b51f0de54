"""What every group of policy fields has in common: how a field names its catalogue row and the services that
enforce it, the rules across fields, and a walk over all fields to document them or generate from them.

In: the words that the model is written in. Out: the fields themselves (traffic, access, limits, fraud, operation), what
is made of them (bundle, crd, reference).
"""

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

Service = Literal["edge-proxy", "auth", "rate-guard", "call-admission", "rating", "payment", "console"]

EDGE: Final = "edge-proxy"
AUTH: Final = "auth"
GUARD: Final = "rate-guard"
ADMISSION: Final = "call-admission"
RATING: Final = "rating"

DOCUMENT: Final = "document"
"""Validation context {DOCUMENT: True}: the value is one document of several, so what it leaves out isn't known."""

_NOTHING: Final = object()
Item = TypeVar("Item")

Many = Annotated[tuple[Item, ...], Field(strict=False)]
"""A list in YAML, which strict validation wouldn't take for a tuple."""


def _integer(value: Any) -> Any:
    # A Literal compares, and true == 1 == 1.0.
    if type(value) is not int:
        raise ValueError("write a number")
    return value


Level = Annotated[Item, BeforeValidator(_integer)]
"""One of a few numbers: Level[Literal[0, 1]]."""


def camel(name: str) -> str:
    """How a field is written outside: max_off_peak → maxOffPeak."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold between fields of one group. `cel` and `holds` say the same, one to the Kubernetes API server
    about one document, one to us; tests hold them against each other.

    A document says only a part of what will hold, so the rule is silent there until all of `fields` are written; over
    the effective settings it speaks in any case. CEL sees documents only and asks has() itself.
    """

    fields: tuple[str, ...]
    """Names of those that are compared; the first is the one that a refusal names."""
    cel: str
    reason: str
    holds: Callable[[Any], bool]
    """Of the group, as Python has it."""

    def broken(self, part: "FieldGroup", *, document: bool) -> bool:
        if document and not part.model_fields_set.issuperset(self.fields):
            return False
        return not self.holds(part)


def seconds(duration: str) -> str:
    """CEL for the seconds of a duration, which may be an integer or such as "2d" or "1h30m". CEL's own duration() knows
    no days and no empty text."""
    days = f"({duration}.contains('d') ? int({duration}.split('d')[0]) * 86400 : 0)"
    rest = f"duration(({duration}.contains('d') ? {duration}.split('d')[1] : {duration}) + '0s').getSeconds()"
    return f"(type({duration}) == int ? int({duration}) : {days} + {rest})"


def given(path: str) -> str:
    """CEL for "is written, and isn't null", of a path of fields such as "self.warning.total"."""
    parts = path.split(".")
    written = " && ".join(f"has({'.'.join(parts[:count])})" for count in range(2, len(parts) + 1))
    return f"{written} && dyn({path}) != null"


def at_most(low: str, high: str, *, reason: str, money: bool = False) -> Rule:
    """That one number (or null: no limit) isn't above another; names as in Python, `money` where both are amounts."""
    one, other = f"self.{camel(low)}", f"self.{camel(high)}"
    compared = f"double({one}) <= double({other})" if money else f"{one} <= {other}"

    def holds(part: Any) -> bool:
        below, above = getattr(part, low), getattr(part, high)
        return below is None or above is None or bool(below <= above)

    return Rule((low, high), f"!({given(one)} && {given(other)}) || {compared}", reason, holds)


class FieldGroup(BaseModel):
    """A group of fields: frozen, camelCase outside, unknown ones refused (a slip must not switch off a limit). Strict,
    so that a value means here what it means to the Kubernetes API server: "5" is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=camel, populate_by_name=True, strict=True)

    RULES: ClassVar[tuple[Rule, ...]] = ()
    FIXED: ClassVar[tuple[str, ...]] = ()
    """Fields that can't change while the resource lives; only the Kubernetes API server sees a change."""

    @model_validator(mode="after")
    def _follows_rules(self, info: ValidationInfo) -> Self:
        document = bool(info.context and info.context.get(DOCUMENT))
        broken = [rule for rule in self.RULES if rule.broken(self, document=document)]
        if broken:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError("rule", "{reason}", {"reason": rule.reason}),
                        loc=(camel(rule.fields[0]),),
                        input=None,
                    )
                    for rule in broken
                ],
            )
        return self


def row(
    *ids: str, by: tuple[Service, ...] | None = None, enforced: bool = True, always: Any = _NOTHING, unit: str = ""
) -> dict[str, Any]:
    """Links a field to its rows of the settings catalogue (`ids`) and to the services that enforce it.

    `by` holds for the fields of a group as well, unless they say otherwise. `enforced=False`: no service reads the
    field yet, which its description, `policy lint` and the resource's status say. `always`: what services do meanwhile,
    whatever is written, where that is one of the field's values; writing that value is no reason for a warning.
    """
    extra: dict[str, Any] = {"catalogue": list(ids)}
    if not enforced:
        extra["by"] = []
    elif by is not None:
        extra["by"] = list(by)
    if always is not _NOTHING:
        extra["always"] = always
    if unit:
        extra["unit"] = unit
    return extra


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """One field of the model, found by walking it."""

    path: str
    """As a user writes it below spec, such as "lines.max"; "fraud.velocity[].name" within a list."""
    info: FieldInfo
    group: type[FieldGroup] | None
    """The group that it is, or that its items are."""
    by: tuple[str, ...]
    """Services that enforce it; empty: none yet."""
    has_always: bool
    always: Any
    unit: str
    catalogue: tuple[str, ...]

    @property
    def is_leaf(self) -> bool:
        """Whether it has a value of its own: all but groups. A list of groups has."""
        return self.group is None or _is_list(self.info)

    @property
    def enforced(self) -> bool:
        return bool(self.by)

    @property
    def description(self) -> str:
        """What it does, and that it does nothing yet where that is so."""
        text = self.info.description or ""
        if self.enforced or not self.is_leaf:
            return text
        if self.has_always:
            return f"{text} Not enforced yet: services behave as for {written(self.always)}, whatever is set."
        return f"{text} Not enforced yet."


def written(value: Any) -> str:
    """A value as YAML has it on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return "[" + ", ".join(map(written, value)) + "]"
        case _:
            return str(value)


def walk(model: type[FieldGroup], prefix: str = "", by: tuple[str, ...] = ()) -> Iterator[FieldFacts]:
    """Every field below the model, groups before what is in them, in the order of the model."""
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        mine = tuple(map(str, extra["by"])) if "by" in extra else by  # type: ignore[arg-type]
        group = group_of(info.annotation)
        path = f"{prefix}{info.alias or name}"
        yield FieldFacts(
            path,
            info,
            group,
            mine,
            "always" in extra,
            extra.get("always"),
            str(extra.get("unit", "")),
            tuple(map(str, extra.get("catalogue", ()))),  # type: ignore[arg-type]
        )
        if group is not None:
            yield from walk(group, f"{path}{'[]' if _is_list(info) else ''}.", mine)


def _is_list(info: FieldInfo) -> bool:
    return get_origin(bare(info.annotation)) is tuple


def bare(annotation: Any) -> Any:
    """The type without Annotated and "or null" around it."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif is_union(annotation) and len(rest := [one for one in get_args(annotation) if one is not type(None)]) == 1:
            annotation = rest[0]
        else:
            return annotation


def is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def group_of(annotation: Any) -> type[FieldGroup] | None:
    """The group that a field is, or that the items of a list are."""
    annotation = bare(annotation)
    if get_origin(annotation) is tuple:
        annotation = bare(get_args(annotation)[0])
    return annotation if isinstance(annotation, type) and issubclass(annotation, FieldGroup) else None


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values of what is written in a mapping of groups; a list is one value."""
    for key, below in value.items():
        if isinstance(below, Mapping) and below:
            yield from leaves(below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", below
