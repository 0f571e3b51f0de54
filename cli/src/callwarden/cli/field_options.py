"""Command-line options made from a table of fields (callwarden.kernel.fields), and what was typed put into a message.

In: an option for each field that an operator sets, its type, its help; reading what was typed. Out: which fields there
are (callwarden.kernel.account, .trunk), and the commands.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from callwarden.cli import values
from callwarden.kernel.fields import ChangedBy, DataField, FieldKind

_NONE: Final = "none"  # What is typed to take a value away.
_SEVERAL: Final = (FieldKind.PHONES, FieldKind.NAMES)
_PANELS: Final = {"limits": "Limits", "profile": "Subscriber"}
# How a value is read; what isn't here is taken as it is typed.
_READ: Final[Mapping[FieldKind, Callable[..., Any]]] = {
    FieldKind.AMOUNT: values.amount,
    FieldKind.DURATION: values.seconds,
    FieldKind.PHONE: values.number,
}

Wrap = Callable[[Callable[..., None]], Callable[..., None]]


def to_create(fields: Iterable[DataField], *, without: Collection[str] = ()) -> Wrap:
    """Gives a command, in place of its `**fields`, an option for each of these fields but those `without`."""
    return _with(_creating(field) for field in fields if field.name not in without)


def to_change(fields: Iterable[DataField]) -> Wrap:
    """Likewise, for those that an operator can change: what isn't given is None."""
    return _with(each for field in fields if field.by is ChangedBy.OPERATOR for each in _changing(field))


def _with(options: Iterator[inspect.Parameter]) -> Wrap:
    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        named = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        # Typer reads a command's options off its signature.
        command.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return command

    return wrap


def _option(name: str, type_: Any, field: DataField, flags: str, text: str, default: object) -> inspect.Parameter:
    is_number = type_ in (int, int | None)
    bounds = (0, field.most) if is_number else (None, None)
    info = typer.Option(flags, help=text, rich_help_panel=_PANELS.get(field.group), min=bounds[0], max=bounds[1])
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type_, info])


def _creating(field: DataField) -> inspect.Parameter:
    name, flags, about = field.name, f"--{field.option}", field.about
    if field.kind in _SEVERAL:
        return _option(name, list[str] | None, field, flags, f"{about} May be repeated.", None)
    if field.kind is FieldKind.FLAG:
        return _option(name, bool | None, field, f"{flags}/--{field.off}", about, field.preset)
    if field.kind is FieldKind.COUNT and not field.is_optional:
        return _option(name, int, field, flags, about, 0)
    if field.kind is FieldKind.WORD:
        return _option(name, StrEnum(name, field.words), field, flags, about, field.preset)
    text = f"{about} Without it the policy's." if field.is_limit else about
    return _option(name, str | None, field, flags, text, field.preset)


def _changing(field: DataField) -> Iterator[inspect.Parameter]:
    name, flags, about = field.name, f"--{field.option}", field.about
    if field.kind in _SEVERAL:
        yield _option(f"add_{name}", list[str] | None, field, f"--{field.add_option}", f"Adds one. {about}", None)
        yield _option(f"remove_{name}", list[str] | None, field, f"--remove-{field.option}", "Takes one away.", None)
    elif field.kind is FieldKind.FLAG:
        yield _option(name, bool | None, field, f"{flags}/--{field.off}", about, None)
    elif field.kind is FieldKind.COUNT and not field.is_optional:
        yield _option(name, int | None, field, flags, about, None)
    else:
        text = f"{about} `none`: the policy's." if field.is_limit else about
        yield _option(name, str | None, field, flags, text, None)


def fill(message: Any, fields: Iterable[DataField], typed: Mapping[str, Any]) -> None:
    """Puts what was typed for `to_create`'s options into a message. Misuse for what can't be read."""
    for field in fields:
        value = typed.get(field.name)
        if value is None or value == ():
            continue
        if field.kind in _SEVERAL:
            getattr(message, field.wire).extend(_each(field, value))
        elif (read := _read(field, value)) is not None:
            _set(message, field, read)


def fill_change(message: Any, fields: Iterable[DataField], typed: Mapping[str, Any]) -> None:
    """Puts what was typed for `to_change`'s options into an update. Misuse for what can't be read."""
    for field in fields:
        for verb in ("add", "remove"):
            getattr(message, f"{verb}_{field.wire}", []).extend(_each(field, typed.get(f"{verb}_{field.name}") or ()))
        value = typed.get(field.name)
        if value is None:
            continue
        read = _read(field, value)
        if read is None:
            message.clear.append(field.name)
        else:
            _set(message, field, read)


def _set(message: Any, field: DataField, value: Any) -> None:
    setattr(getattr(message, field.group) if field.group else message, field.wire, value)


def _read(field: DataField, typed: Any) -> Any:
    """The value; None: to be taken away."""
    if typed == _NONE and field.is_clearable:
        return None
    name = f"--{field.option}"
    if field.kind is FieldKind.COUNT and isinstance(typed, str):
        return values.limit(typed, name=name)
    read = _READ.get(field.kind)
    if read is not None:
        return read(typed, name=name)
    return typed.value if isinstance(typed, StrEnum) else typed


def _each(field: DataField, typed: Sequence[str]) -> list[str]:
    return [values.number(text) for text in typed] if field.kind is FieldKind.PHONES else list(typed)
