"""How the command line speaks: help with examples, errors as one line, exit codes that mean something."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from callwarden.cli import state
from callwarden.cli.main import app, run, say_unexpected
from callwarden.kernel.errors import Invalid, NotFound


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No system in the current folder, none in the environment, wide lines."""
    for name in (*state.TARGETS_VARIABLE.values(), state.NATS_VARIABLE, state.STATE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    yield
    state.choose(None)


def commands() -> list[tuple[str, ...]]:
    """Every command that does something, as it is typed."""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        below = getattr(command, "commands", None)
        if not below:
            yield path
            return
        for name, child in below.items():
            yield from walk(child, (*path, name))

    return list(walk(typer.main.get_command(app), ()))


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: callwarden {' '.join(command)}" in " ".join(shown.replace("│", " ").split())


# What prints no data: it runs until it is stopped, or confirms what it did in a sentence.
SENTENCES = {
    ("demo",),
    ("completion",),
    ("up",),
    ("account", "passwd"),
    ("route", "set"),
    ("route", "remove"),
    ("sip", "call"),
    ("sip", "answer"),
    ("trunk", "remove"),
    ("list", "delete"),
}
# What writes records as a file, in formats of its own.
FILES = {("account", "export"): {"csv"}, ("call", "export"): {"csv", "jsonl"}}


@pytest.mark.parametrize("command", [one for one in commands() if one not in SENTENCES | FILES.keys()], ids=" ".join)
def test_every_command_that_prints_data_has_it_as_table_json_and_csv(command: tuple[str, ...]) -> None:
    found: Any = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]
    (option,) = [one for one in found.params if "--output" in one.opts]
    assert "-o" in option.opts
    assert {"table", "json", "csv"} <= set(option.type_descriptor.annotation)


def test_what_needs_no_format_is_still_a_command() -> None:
    assert SENTENCES | FILES.keys() <= set(commands())


@pytest.mark.parametrize("output", [("--output", "table"), ("--output", "json"), ("--output", "csv")])
@pytest.mark.parametrize(
    "command",
    [
        ("account", "list"),
        ("account", "show", "alice"),
        ("trunk", "list"),
        ("rates", "list"),
        ("route", "list"),
        ("policy", "list"),
        ("policy", "show"),
        ("policy", "status"),
        ("ban", "list"),
        ("list", "list"),
        ("list", "show", "irsf"),
        ("list", "check", "+442079460101"),
        ("list", "listed"),
        ("call", "list"),
        ("explain", "x@y"),
        ("ledger", "check"),
        ("ledger", "list", "alice"),
    ],
    ids=" ".join,
)
def test_without_a_system_one_line_says_what_to_do(
    command: tuple[str, ...], output: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, *output]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("callwarden: ")
    assert "`callwarden up`" in shown.err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ban add 10.0.0.300", "192.0.2.7"),
        ("ban add 192.0.2.7 --for soon", "--for"),
        ("ban remove", "--all"),
        ("ban remove 192.0.2.7 --all", "--all"),
        ("list import irsf", "--url"),
        ("list import irsf numbers.csv --url https://lists.example/n.csv", "name a file, or"),
        ("list import irsf --url http://lists.example/n.csv", "--insecure"),
        ("list import irsf --url ftp://lists.example/n.csv", "https://"),
        ("list import irsf --url https://me:secret@lists.example/n.csv", "credentials"),
        ("list check alice", "+442079460101"),
        ("list lift", "--all"),
        ("topup alice ten", "not an amount"),
        ("topup alice -- -5", "above zero"),
        ("account set alice", "--lines"),
        ("account set alice --lines few", "--lines"),
        ("account create a --no-password --number 0123", "+442079460101"),
        ("account create a --no-password --generate", "--no-password"),
        ("account passwd a --generate --password b", "--generate"),
        ("account create a", "--generate"),
        ("rates simulate retail +4930 soon", "duration"),
        ("rates simulate retail +4930 60s --at noon", "--at"),
        ("route set 49x berlin", "digits"),
        ("route remove + berlin", "digits"),
        ("trunk add b --address x:5060 --direction sideways", "'--direction': 'sideways' is not one of 'carrier'"),
        ("call list --limit 0", "'--limit': must be greater than or equal to 1 (see callwarden call list --help)"),
        ("call list --limit few", "'--limit': not a whole number (see"),
        ("account show", "missing argument 'account' (see callwarden account show --help)"),
        ("account list --realms x", "--realm"),
        ("up --sip 5060", "--sip"),
        ("up --log-level loud", "--log-level"),
        ("polcy", "policy"),
        ("account list --output xml", "xml"),
    ],
)
def test_a_slip_is_named_and_ends_with_2(line: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("callwarden: ")
    assert hint in shown.err
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.err


def test_an_empty_prefix_is_not_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["route", "set", "", "berlin"]) == 2
    assert "`all`" in capsys.readouterr().err


def test_the_release_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert re.fullmatch(r"callwarden \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_dead_address_says_that_nobody_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLWARDEN_ADMINISTRATION_TARGETS", "127.0.0.1:1")
    assert run(["account", "list"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("callwarden: administration (127.0.0.1:1) doesn't answer")
    assert said.count("\n") == 1


def test_half_of_mutual_tls_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLWARDEN_ADMINISTRATION_TARGETS", "127.0.0.1:1")
    monkeypatch.setenv("CALLWARDEN_TLS_CERT", "cert.pem")
    assert run(["account", "list"]) == 1
    assert "set all or none" in capsys.readouterr().err
    monkeypatch.setenv("CALLWARDEN_TLS_KEY", "key.pem")
    monkeypatch.setenv("CALLWARDEN_TLS_CA", "ca.pem")
    assert run(["account", "list"]) == 1
    assert "cert.pem: can't be read" in capsys.readouterr().err


def test_an_unknown_service_is_named_with_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLWARDEN_ADMINISTRATION_TARGETS", "127.0.0.1:1")
    assert run(["ban", "list"]) == 1
    assert "CALLWARDEN_RATE_GUARD_TARGETS" in capsys.readouterr().err


def test_what_nobody_foresaw_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CALLWARDEN_DEBUG", raising=False)
    assert say_unexpected(RuntimeError("surprise")) == 1
    assert capsys.readouterr().err == "callwarden: unexpected RuntimeError: surprise (CALLWARDEN_DEBUG=1 shows where)\n"


def test_an_error_of_our_own_is_told_in_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert say_unexpected(NotFound("no account is called bob", field="account")) == 1
    assert capsys.readouterr().err == "callwarden: no account is called bob\n"
    assert say_unexpected(Invalid("must be a zone", field="time_zone")) == 1
    assert capsys.readouterr().err == "callwarden: time_zone: must be a zone\n"


def test_help_needs_neither_grpc_nor_nats() -> None:
    """What makes the command quick to start: nothing heavy is imported before a command runs."""
    script = (
        "import sys, callwarden.cli.main as m; code = m.run(['--help']);"
        "print([name for name in ('grpc', 'nats', 'pydantic', 'google.protobuf', 'sqlalchemy', 'baresip')"
        " if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert "policy" in done.stdout


def test_a_reader_that_has_enough_is_no_error() -> None:
    script = (
        f"set -o pipefail; {sys.executable} -c 'import sys; from callwarden.cli.main import run;"
        ' sys.exit(run(["policy", "apply", "--help"]))\' | head -c 1 >/dev/null'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["spec: {lines: {max: -1}}", "not: [yaml", "", "a: &x 1\nb: *x"])
def test_a_bad_policy_file_is_refused_before_anything_is_asked(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    assert run(["policy", "apply", "-f", str(file)]) == 1
    shown = capsys.readouterr().err
    assert "bad.yaml is refused, nothing was changed" in shown


def test_the_refusal_names_every_field_and_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {name: p}\nspec: {lines: {max: -1}, colour: red}"
    )
    assert run(["policy", "apply", "-f", str(file)]) == 1
    shown = capsys.readouterr().err
    assert "policy p" in shown
    assert "spec.lines.max: " in shown
    assert "spec.colour: is not a known field" in shown


def examples() -> list[Path]:
    return sorted((Path(__file__).parents[2] / "deploy" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", examples(), ids=lambda file: file.name)
def test_every_example_policy_is_right(file: Path) -> None:
    assert run(["policy", "lint", str(file)]) == 0


INVITE = (
    b"INVITE sip:bob@example.com SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds\r\n"
    b"Max-Forwards: 70\r\n"
    b"To: Bob <sip:bob@example.com>\r\n"
    b"From: Alice <sip:alice@example.com>;tag=1928301774\r\n"
    b"Call-ID: a84b4c76e66710@192.0.2.1\r\n"
    b"CSeq: 314159 INVITE\r\n"
    b"Contact: <sip:alice@192.0.2.1>\r\n"
    b"Content-Length: 0\r\n\r\n"
)


def test_sip_check_prints_the_message_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "invite.txt"
    file.write_bytes(INVITE)
    assert run(["sip", "check", str(file)]) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert parsed["method"] == "INVITE"
    assert "a84b4c76e66710@192.0.2.1" in json.dumps(parsed)


def test_sip_check_gives_the_reason_of_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "invite.txt"
    file.write_bytes(INVITE.replace(b"CSeq: 314159 INVITE\r\n", b"CSeq: 314159 INVITE\r\nCSeq: 1 BYE\r\n"))
    assert run(["sip", "check", str(file)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "callwarden: refused: Repeated Header\n"


def test_sip_check_says_when_there_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sip", "check", "missing.txt"]) == 1
    assert "missing.txt: No such file" in capsys.readouterr().err


def test_sip_check_tells_a_text_file_from_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "invite.txt"
    file.write_bytes(INVITE.replace(b"\r\n", b"\n"))
    assert run(["sip", "check", str(file)]) == 1
    assert "CR LF" in capsys.readouterr().err
