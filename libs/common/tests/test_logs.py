"""Log lines: fields, what follows a call, and what never gets out."""

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretBytes, SecretStr

from callwarden.common import logs, trace
from callwarden.kernel.phone import E164


class Lines:
    """What was logged."""

    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def last(self) -> dict[str, Any]:
        return self.all()[-1]


@pytest.fixture
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.fixture
def lines(_restore_logging: None) -> Lines:
    stream = io.StringIO()
    logs.configure("auth", "auth-0", level="debug", style="json", stream=stream)
    return Lines(stream)


log = logs.get_logger("callwarden.test")


def test_a_line_says_when_who_what(lines: Lines) -> None:
    log.info("ban.added", address="192.0.2.1", seconds=60, reasons=["rate"])
    line = lines.last()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "event": "ban.added",
        "logger": "callwarden.test",
        "service": "auth",
        "instance": "auth-0",
        "address": "192.0.2.1",
        "seconds": 60,
        "reasons": ["rate"],
    }


def test_every_line_of_a_call_carries_trace_and_call_id(lines: Lines) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with trace.scope(traceparent=traceparent, call_id="a84b4c76e66710"):
        log.info("one")
        logging.getLogger("some.library").warning("two %s", "words")
    log.info("three")
    one, two, three = lines.all()
    for line in (one, two):
        assert (line["trace_id"], line["call_id"]) == (traceparent[3:35], "a84b4c76e66710")
    assert two["event"] == "two words"
    assert "trace_id" not in three
    assert "call_id" not in three


def test_a_forged_traceparent_is_not_written(lines: Lines) -> None:
    with trace.scope(traceparent='00-"}\n{"level":"error'):
        log.info("one")
    assert "trace_id" not in lines.last()


@dataclass(frozen=True)
class Account:
    name: str
    password: str
    number: E164
    body: bytes


def test_secrets_do_not_get_out(lines: Lines) -> None:
    log.info(
        "all",
        password="hunter2",
        nested={"Token": "hunter2", "list": [SecretStr("hunter2"), SecretBytes(b"hunter2")]},
        secret_text=SecretStr("hunter2"),
        payload=b"hunter2",
        account=Account("alice", "hunter2", E164("4930123456"), b"hunter2"),
        number=E164("4930123456"),
    )
    line = lines.last()
    text = lines.stream.getvalue()
    assert "hunter2" not in text
    assert "3456" not in text
    assert line["account"]["name"] == "alice"
    assert line["number"] == "+493012****"
    assert line["payload"] == "<7 bytes>"


def test_a_field_never_hides_what_every_line_has(lines: Lines) -> None:
    log.info("one", level="forged", time="forged")
    assert (lines.last()["level"], lines.last()["field_level"]) == ("info", "forged")


@given(st.dictionaries(st.text(min_size=1), st.recursive(st.text() | st.integers() | st.binary(), st.lists)))
def test_any_fields_make_one_line(fields: dict[str, Any]) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "event", (), None)
    record.callwarden_fields = fields
    text = logs.JsonFormatter("s", "i").format(record)
    assert "\n" not in text
    json.loads(text)
    assert all(part.isprintable() for part in logs.ConsoleFormatter("s", colour=False).format(record).split("\n")[:1])


def test_size_is_bounded() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "event", (), None)
    record.callwarden_fields = {"text": "x" * 1_000_000, "many": ["y" * 100] * 100_000, "deep": [[[[["z"] * 1000]]]]}
    assert len(logs.JsonFormatter("s", "i").format(record)) < 30_000


def test_what_knows_no_text_does_not_break_a_line(lines: Lines) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    log.info("one", broken=Broken(), infinite=float("inf"), nothing=float("nan"))
    json.loads(lines.stream.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert lines.last()["broken"] == "<Broken without text>"


def test_an_error_has_its_traceback_and_a_warning_has_not(lines: Lines) -> None:
    try:
        raise ValueError("wrong")
    except ValueError as error:
        log.error("failed", error=error)
        log.error("foreseen", error=error, with_traceback=False)
        log.warning("tried", error=error)
    failed, foreseen, tried = lines.all()
    assert "raise ValueError" in failed["traceback"]
    for line in (failed, foreseen, tried):
        assert (line["error"], line["error_type"]) == ("wrong", "ValueError")
    assert "traceback" not in foreseen
    assert "traceback" not in tried


@pytest.mark.usefixtures("_restore_logging")
def test_the_level_decides() -> None:
    stream = io.StringIO()
    logs.configure("auth", "auth-0", level="warning", style="json", stream=stream)
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in Lines(stream).all()] == ["loud"]


@pytest.mark.usefixtures("_restore_logging")
def test_a_terminal_gets_text_that_an_attacker_cannot_forge() -> None:
    stream = io.StringIO()
    logs.configure("auth", "auth-0", level="info", style="console", stream=stream)
    log.info("register.refused", user="bob\n12:00:00 ERROR auth forged\x1b[2J", count=3)
    logging.getLogger("library").warning("text\nwith a line")
    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b" not in stream.getvalue()
    assert "count=3" in stream.getvalue()
