"""The manual page, made of the commands' own help: callwarden(1) in the man macros of roff (groff_man(7)).

In: commands, arguments and options as roff. Out: writing the file (cli/man.py, `make man`).
"""

import re
from collections.abc import Iterator
from typing import Any, Final

_BOLD: Final = re.compile(r"\[bold\](.*?)\[/bold\]")
_EXAMPLE: Final = re.compile(r"Example: \[bold\](.*)\[/bold\]", re.DOTALL)

_DESCRIPTION: Final = """\
Callwarden is a SIP edge that authenticates, limits and charges calls before they are placed.
This command runs it on one machine, configures it, and explains each of its decisions.
Every command has a short help of its own: \\fBcallwarden policy apply --help\\fP."""

# Sections that no command's help says. Each line is roff.
_TAIL: Final = r"""
.SH OUTPUT
Commands that print data take \fB--output table\fP, \fBjson\fP or \fBcsv\fP.
In JSON and CSV, moments are RFC 3339 in UTC, and amounts are decimal numbers of the currency's unit; JSON has in
addition exact integers of 10^-6 units in the fields that end with \fB_micros\fP.
Tables never fold ids, amounts or times; \fB| less -S\fP shows every column.
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Not done; one line on standard error names the cause and what to do.
.TP
.B 2
The command line was not understood. \fBcallwarden audit\fP: what it had to check couldn't be read.
.TP
.B 130
Interrupted.
.SH ENVIRONMENT
.TP
.B CALLWARDEN_STATE
The folder of the system that \fBcallwarden up\fP started. Default: .callwarden in the current folder.
.TP
.BR CALLWARDEN_ADMINISTRATION_TARGETS ", " CALLWARDEN_AUTH_TARGETS ", " CALLWARDEN_RATING_TARGETS ", " \
CALLWARDEN_RATE_GUARD_TARGETS ", " CALLWARDEN_PAYMENT_TARGETS
host:port of each service, instead of those in the state folder; several are separated by commas.
.TP
.B CALLWARDEN_NATS_URL
The bus that carries policies.
.TP
.BR CALLWARDEN_TLS_CERT ", " CALLWARDEN_TLS_KEY ", " CALLWARDEN_TLS_CA
Files for mutual TLS with the services. The certificate must name \(lqadmin\(rq.
.TP
.B CALLWARDEN_TOKEN_FILE
The administrator's token, where the services use tokens. Default: that of the system in the state folder.
.TP
.B CALLWARDEN_DEBUG
Set to 1, an unforeseen error shows where it comes from.
.TP
.B COLUMNS
The width of tables that aren't printed to a terminal. Default: as wide as they are.
.TP
.B NO_COLOR
No colours.
.SH FILES
.TP
.I .callwarden/
Data, secrets and logs of \fBcallwarden up\fP.
.TP
.I .callwarden/run.json
Addresses of the running system.
.SH SEE ALSO
.BR kubectl (1)
"""


def page(root: Any, version: str, date: str) -> str:
    """The page of a whole command line. `root` is its command as the library has it, `date` is YYYY-MM-DD."""
    lines = [
        '.\\" Generated from the commands by "make man"; do not edit.',
        f'.TH CALLWARDEN 1 "{date}" "Callwarden {_text(version)}" "User Commands"',
        ".SH NAME",
        "callwarden \\- run, configure and query Callwarden, VoIP security and account limiting",
        ".SH SYNOPSIS",
        ".B callwarden",
        ".RI [ options ]",
        ".I command",
        ".RI [ arguments ]",
        ".SH DESCRIPTION",
        *_DESCRIPTION.splitlines(),
        ".SH OPTIONS",
        *_parameters(root, ("callwarden",)),
        ".SH COMMANDS",
    ]
    for names, command in commands(root):
        lines += _command(names, command)
    return "\n".join(lines) + _TAIL


def commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words it is typed with, in the order of the help."""
    below = getattr(command, "commands", None)
    if not below:
        yield names, command
        return
    for name, child in below.items():
        yield from commands(child, (*names, name))


def _command(names: tuple[str, ...], command: Any) -> list[str]:
    context = command.make_context(names[-1], [], resilient_parsing=True)
    usage = " ".join(one for one in command.collect_usage_pieces(context) if one not in ("[OPTIONS]", "[options]"))
    lines = [f'.SS "callwarden {_text(" ".join(names))}{" " if usage else ""}{_text(usage)}"']
    examples = []
    for number, paragraph in enumerate((command.help or "").split("\n\n")):
        if example := _EXAMPLE.fullmatch(paragraph):
            examples.append(example[1])
            continue
        lines += [".PP"] if number else []
        lines.append(_line(paragraph))
    lines += _parameters(command, names)
    for line in examples:
        lines += [".PP", "Example:", ".PP", ".RS", ".nf", _line(line), ".fi", ".RE"]
    return lines


def _parameters(command: Any, names: tuple[str, ...]) -> list[str]:
    context = command.make_context(names[-1], [], resilient_parsing=True)
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and not (record[0].endswith("--help") and len(names) > 1):
            # Two spaces before the default are the help's.
            lines += [".TP", f"\\fB{_text(record[0])}\\fP", _line(" ".join(record[1].split()) or "See above.")]
    return lines


def _line(text: str) -> str:
    """A paragraph as one line of roff; bold where the help is."""
    parts = []
    at = 0
    for found in _BOLD.finditer(text):
        parts += [_text(text[at : found.start()]), f"\\fB{_text(found[1])}\\fP"]
        at = found.end()
    line = "".join([*parts, _text(text[at:])])
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _text(text: str) -> str:
    """Text without anything that roff would obey."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\`").replace("~", "\\(ti").replace("^", "\\(ha")
    text = text.replace('"', "\\(dq").replace("'", "\\(aq")
    return "".join(sign if sign.isascii() else f"\\[u{ord(sign):04X}]" for sign in text)
