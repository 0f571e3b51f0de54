"""`callwarden audit`: what is open between what runs and the security checklist."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from callwarden.cli import output
from callwarden.cli.audit.finding import Severity
from callwarden.cli.failure import Failure, Misuse

if TYPE_CHECKING:
    from callwarden.cli.audit.finding import Finding
    from callwarden.cli.audit.report import Evidence

_STDIN: Final = "-"
_FILE_WIDTH: Final = 120


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


def audit(
    context: typer.Context,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", help="YAML of policies or of a rendered chart; [bold]-[/bold] reads it in."),
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="The cluster that kubectl speaks to.")] = False,
    kube_context: Annotated[str, typer.Option("--context", help="That of this context in KUBECONFIG.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only pods and networks of this one.")] = "",
    selector: Annotated[
        str | None, typer.Option(help="Labels of what belongs to Callwarden.", show_default=False)
    ] = None,
    fail_on: Annotated[
        Severity, typer.Option(help="Exit code 1 if anything at least so bad is open.", show_default=True)
    ] = Severity.MEDIUM,
    format_: Annotated[
        Format, typer.Option("--format", help="For people, programs or code scanning.", show_default=True)
    ] = Format.TEXT,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; without it standard output.")
    ] = None,
) -> None:
    """Compare policies and deployment with the security checklist; each finding has the YAML line that closes it.

    Without an option it looks at the system that `callwarden up` started, as a kubectl plugin at the cluster. Exit code
    0: nothing at or above --fail-on is open; 1: something is; 2: it couldn't be looked at.

    Example: [bold]callwarden audit --file deploy/examples/policy.yaml --format sarif -o audit.sarif[/bold]
    """
    from callwarden.cli.audit import report

    is_plugin = (context.find_root().info_name or "").startswith("kubectl")
    of_cluster = cluster or bool(kube_context or namespace or selector)
    if file and of_cluster:
        raise Misuse("--file goes without --cluster, --context, --namespace and --selector")
    if file:
        evidence = _of_files(file)
    elif of_cluster or is_plugin:
        evidence = _of_cluster(kube_context, namespace, selector)
    else:
        evidence = _of_system()
    found = report.findings(evidence)
    _write(found, evidence, format_, out)
    if bad := report.at_or_above(found, fail_on):
        raise Failure(f"{len(bad)} of {len(found)} findings are at or above {fail_on}")


def _of_files(files: list[str]) -> "Evidence":
    from callwarden.cli.audit.sources import files as source

    texts = []
    for file in files:
        try:
            text = (
                sys.stdin.read(source.FILE_BYTES_MAX + 1) if file == _STDIN else _head(file, source.FILE_BYTES_MAX + 1)
            )
        except OSError as error:
            raise Misuse(f"{file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise Misuse(f"{file}: is not UTF-8 text") from error
        texts.append(("standard input" if file == _STDIN else file, text))
    try:
        return source.evidence(texts)
    except source.NotAuditable as error:
        raise Misuse(str(error)) from error


def _head(file: str, chars_max: int) -> str:
    with Path(file).open(encoding="utf-8") as opened:
        return opened.read(chars_max)


def _of_cluster(context: str, namespace: str, selector: str | None) -> "Evidence":
    from callwarden.cli.audit.sources import cluster as source

    try:
        return source.evidence(source.Kubectl(context), namespace=namespace, selector=selector or source.SELECTOR)
    except source.Unreachable as error:
        raise Failure(str(error), exit_code=2) from error


def _of_system() -> "Evidence":
    from callwarden.cli.audit.sources import running

    try:
        return running.evidence()
    except Failure as error:
        raise Failure(error.message, exit_code=2) from error


def _write(found: "list[Finding]", evidence: "Evidence", format_: Format, out: Path | None) -> None:
    from callwarden.cli.audit import report, sarif, text

    match format_:
        case Format.TEXT if out is None:
            output.show_lines(text.rendered(found, evidence.source, evidence.notes, output.width()))
            return
        case Format.TEXT:
            written = f"{text.rendered(found, evidence.source, evidence.notes, _FILE_WIDTH)}\n"
        case Format.JSON:
            written = output.json_text(_plain(found, evidence)) + "\n"
        case Format.SARIF:
            written = output.json_text(sarif.log(found, report.RULES)) + "\n"
    if out is None:
        typer.echo(written, nl=False)
        return
    try:
        out.write_text(written, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{out}: {error.strerror}", exit_code=2) from error


def _plain(found: "list[Finding]", evidence: "Evidence") -> dict[str, Any]:
    return {
        "source": evidence.source,
        "findings": [
            {
                "rule": one.rule.id,
                "severity": one.severity.value,
                "settings": list(one.rule.rows),
                "title": one.rule.title,
                "why": one.rule.why,
                "place": one.place.name,
                "file": one.place.file,
                "line": one.place.line,
                "what": one.what,
                "fix": one.fix,
                "how": one.how,
            }
            for one in found
        ],
        "notes": list(evidence.notes),
    }
