"""The command in a shell: completion by a real bash, and the manual page as groff reads it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from callwarden.cli import manual
from callwarden.cli.main import app, run

FOLDER = Path(sys.executable).parent  # where `callwarden` is


def completed(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    script = (
        'source <(callwarden completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
        " $(complete -p callwarden | sed 's/.*-F \\([^ ]*\\) .*/\\1/') callwarden;"
        " printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {"PATH": f"{FOLDER}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", script, "bash", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("callwarden", "acc"), ["account"]),
        (("callwarden", "account", "s"), ["show", "set"]),
        (("callwarden", "call", "list", "--ru"), ["--running"]),
        (("callwarden", "call", "list", "--output", ""), ["table", "json", "csv"]),
        (("callwarden", "completion", ""), ["bash", "zsh", "fish"]),
        (("callwarden", "nonsense"), []),
    ],
    ids=lambda words: " ".join(words[1:]),
)
def test_bash_completes_commands_options_and_values(words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_for_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "callwarden" in script
    assert f"_CALLWARDEN_COMPLETE=complete_{shell}" in script
    if program := shutil.which(shell):
        checked = subprocess.run([program, "-n"], input=script, text=True, capture_output=True, timeout=30, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def page() -> str:
    return manual.page(typer.main.get_command(app), "0.0.0", "2026-11-28")


def test_the_manual_has_every_command_and_option() -> None:
    text = page().replace("\\-", "-")
    for names, command in manual.commands(typer.main.get_command(app)):
        assert f'.SS "callwarden {" ".join(names)}' in text
        for parameter in command.params:
            assert all(option in text for option in parameter.opts if option.startswith("--"))


def test_the_manual_is_plain_ascii_that_no_text_of_help_can_break() -> None:
    assert page().isascii()
    assert manual._text('a\\b-"c"\'é`~^') == "a\\eb\\-\\(dqc\\(dq\\(aq\\[u00E9]\\`\\(ti\\(ha"
    assert manual._line(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert manual._line("[bold]x-y[/bold]: [z]") == "\\fBx\\-y\\fP: [z]"


@pytest.mark.skipif(shutil.which("groff") is None, reason="apt-get install groff-base")
def test_groff_has_nothing_to_warn_of() -> None:
    command = ["groff", "-man", "-ww", "-z", "-Tutf8", "-rLL=80n"]
    done = subprocess.run(command, input=page(), text=True, capture_output=True, timeout=60, check=True)
    assert done.stderr == ""
