"""Log lines as events with fields: JSON on stderr, or coloured text for a terminal. The standard library underneath.

    log = get_logger(__name__)
    log.warning("ban.added", address=address, rule=rule)

Every line written while a call is served carries `trace_id` and `call_id`. Secrets are kept out by the type of the
field: pydantic secrets and byte strings never show their content, a value with a `masked` text shows that one (a
phone number hides its last digits), and fields whose name is that of a secret are hidden whatever their type.
"""

import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from types import TracebackType
from typing import Any, Final, Literal, TextIO, TypeAlias

from pydantic import SecretBytes, SecretStr

from callwarden.common import trace

FIELD_CHARS_MAX: Final = 2_048  # A line is read by people and billed by the byte; a SIP message has no place in it.
ITEMS_MAX: Final = 50  # of a list or mapping in a field
TRACEBACK_CHARS_MAX: Final = 16_384
HIDDEN: Final = "**********"
# Names whose value is never shown, even if the type was forgotten.
SECRET_NAMES: Final = frozenset(
    {"password", "passwd", "secret", "token", "authorization", "api_key", "private_key", "pin", "credential", "ha1"}
)

_Json: TypeAlias = "bool | int | float | str | list[_Json] | dict[str, _Json] | None"
_ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"


def loggable(name: str, value: object, depth: int = 3) -> _Json:
    """What of `value` may be written, as JSON: bounded in size and depth, without secrets."""
    if name.lower() in SECRET_NAMES:
        return HIDDEN
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)  # JSON has no infinity
        case str():
            return value if len(value) <= FIELD_CHARS_MAX else value[:FIELD_CHARS_MAX] + "…"
        case SecretStr() | SecretBytes():
            return HIDDEN
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping() if depth > 0:
            items = list(value.items())[:ITEMS_MAX]
            return {str(key): loggable(str(key), item, depth - 1) for key, item in items}
        case _ if depth > 0 and is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "masked"):
            # By its fields, not by its repr: they may be secrets or bytes.
            return {f.name: loggable(f.name, getattr(value, f.name), depth - 1) for f in fields_of(value)}
        case list() | tuple() | set() | frozenset() if depth > 0:
            return [loggable("", item, depth - 1) for item in list(value)[:ITEMS_MAX]]
        case _:
            masked = getattr(value, "masked", None)
            return loggable("", masked if isinstance(masked, str) else _text(value))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a line about trouble must not become trouble
        return f"<{type(value).__name__} without text>"


class Logger:
    """The one way to log: an event name (`noun.verb`) and fields. Positional text is not accepted on purpose."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    @property
    def verbose(self) -> bool:
        """Whether debug lines are written: a hot path asks once and makes none otherwise."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, event: str, /, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._write(logging.DEBUG, event, fields, None)

    def info(self, event: str, /, **fields: object) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._write(logging.INFO, event, fields, None)

    def warning(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """`error` adds its type and text, without the traceback."""
        if error is not None:
            fields |= {"error": str(error) or repr(error), "error_type": type(error).__name__}
        self._write(logging.WARNING, event, fields, None)

    def error(
        self, event: str, /, *, error: BaseException | None = None, with_traceback: bool = True, **fields: object
    ) -> None:
        """`error` adds its type, text and traceback; without the latter for what is foreseen."""
        if error is not None:
            fields |= {"error": str(error) or repr(error), "error_type": type(error).__name__}
        self._write(logging.ERROR, event, fields, error if with_traceback else None)

    def _write(self, level: int, event: str, fields: Mapping[str, object], error: BaseException | None) -> None:
        exc_info: _ExcInfo | None = None if error is None else (type(error), error, error.__traceback__)
        self._logger.log(level, event, exc_info=exc_info, extra={"callwarden_fields": fields})


def get_logger(name: str) -> Logger:
    """The logger of a module: `log = get_logger(__name__)`."""
    return Logger(logging.getLogger(name))


def _fields_of(record: logging.LogRecord) -> dict[str, _Json]:
    fields: Mapping[str, object] = getattr(record, "callwarden_fields", {})
    return {name: loggable(name, value) for name, value in fields.items()}


def _context_fields() -> dict[str, str]:
    """trace_id and call_id of the call being served; a traceparent that is not one is left out."""
    scope = trace.current_scope()
    found: dict[str, str] = {}
    if scope.traceparent and (context := trace.TraceContext.parse(scope.traceparent)) is not None:
        found["trace_id"] = context.trace_id
    if scope.call_id:
        found["call_id"] = scope.call_id[: trace.CALL_ID_BYTES_MAX]
    return found


def _timestamp(created_s: float) -> str:
    whole_s, micros = divmod(int(created_s * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole_s))}.{micros:06d}Z"


def _traceback_of(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1]))[-TRACEBACK_CHARS_MAX:]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, logger, service, instance, trace_id, call_id, then the fields."""

    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._who = {"service": service, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "event": loggable("", record.getMessage()),
            "logger": record.name,
            **self._who,
            **_context_fields(),
        }
        # A field never hides what every line has: `level=3` of a caller becomes `field_level`.
        line.update({(f"field_{name}" if name in line else name): value for name, value in _fields_of(record).items()})
        if text := _traceback_of(record):
            line["traceback"] = text
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


class ConsoleFormatter(logging.Formatter):
    """For a developer's terminal: time, level, event, fields; traceback below."""

    _COLOURS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}

    def __init__(self, service: str, *, colour: bool) -> None:
        super().__init__()
        self._service = service
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, _Json] = {**_context_fields(), **_fields_of(record)}
        # repr() of text: an attacker's newline or escape sequence must not write lines or colours of its own.
        shown = " ".join(
            f"{name if name.isidentifier() else repr(name)}={value if isinstance(value, int | float) else repr(value)}"
            for name, value in fields.items()
        )
        clock = _timestamp(record.created)[11:23]
        event = record.getMessage()
        event = event if event.isprintable() else repr(event)
        line = f"{clock} {record.levelname:<7} {self._service} {event}" + (f"  {shown}" if shown else "")
        if self._colour and record.levelname in self._COLOURS:
            line = f"{self._COLOURS[record.levelname]}{line}\x1b[0m"
        text = _traceback_of(record)
        return f"{line}\n{text}" if text else line


def configure(
    service: str, instance: str, *, level: str, style: Literal["json", "console"], stream: TextIO | None = None
) -> None:
    """Send everything that is logged in this process to `stream` (stderr) in one form. Replaces what was there."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter(service, instance) if style == "json" else ConsoleFormatter(service, colour=stream.isatty())
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries that log each reconnect or request at INFO: their trouble is ours to report, once.
    for noisy in ("nats", "grpc", "asyncio", "sqlalchemy", "opentelemetry"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
