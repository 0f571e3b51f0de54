"""`callwarden audit`: where policies and deployment fall short of the security checklist."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from callwarden.cli import output, records
from callwarden.cli.audit.finding import AuditSeverity
from callwarden.cli.failure import CliMisuse, Failure

if TYPE_CHECKING:
    from callwarden.cli.audit.finding import AuditFinding
    from callwarden.cli.audit.report import Evidence

_STDIN: Final = "-"
_FILE_WIDTH: Final = 120
_COLUMNS: Final = ("severity", "rule", "settings", "place", "file", "line", "title", "what", "why", "fix", "how")


class AuditFormat(StrEnum):
    """What every command has, and SARIF for code scanning."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    SARIF = "sarif"


def audit(
    context: typer.Context,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", help="YAML of policies or of a rendered chart; [bold]-[/bold] reads standard input."
        ),
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="The cluster that kubectl uses.")] = False,
    kube_context: Annotated[str, typer.Option("--context", help="The cluster of this context in KUBECONFIG.")] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Only pods and network policies of this namespace.")
    ] = "",
    selector: Annotated[
        str | None, typer.Option(help="Labels of the objects that belong to Callwarden.", show_default=False)
    ] = None,
    fail_on: Annotated[
        AuditSeverity, typer.Option(help="Exit code 1 for a finding at least this severe.", show_default=True)
    ] = AuditSeverity.MEDIUM,
    as_: Annotated[
        AuditFormat,
        typer.Option(
            "--output",
            "-o",
            help="Table for people, JSON or CSV for programs, SARIF for code scanning.",
            show_default=True,
        ),
    ] = AuditFormat.TABLE,
    out: Annotated[Path | None, typer.Option("--to", help="File to write. Default: standard output.")] = None,
) -> None:
    """Check policies and deployment against the security checklist. Each finding has the YAML line that closes it.

    Without an option it checks the system that `callwarden up` started; as a kubectl plugin, the cluster. Exit code 0:
    no finding at or above --fail-on; 1: at least one; 2: the audit couldn't read what it had to check.

    Example: [bold]callwarden audit --file deploy/examples/policy.yaml --output sarif --to audit.sarif[/bold]
    """
    from callwarden.cli.audit import report

    is_plugin = (context.find_root().info_name or "").startswith("kubectl")
    of_cluster = cluster or bool(kube_context or namespace or selector)
    if file and of_cluster:
        raise CliMisuse("--file goes without --cluster, --context, --namespace and --selector")
    if file:
        evidence = _of_files(file)
    elif of_cluster or is_plugin:
        evidence = _of_cluster(kube_context, namespace, selector)
    else:
        evidence = _of_system()
    found = report.findings(evidence)
    _write(found, evidence, as_, out)
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
            raise CliMisuse(f"{file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CliMisuse(f"{file}: is not UTF-8 text") from error
        texts.append(("standard input" if file == _STDIN else file, text))
    try:
        return source.evidence(texts)
    except source.NotAuditable as error:
        raise CliMisuse(str(error)) from error


def _head(file: str, chars_max: int) -> str:
    with Path(file).open(encoding="utf-8") as opened:
        return opened.read(chars_max)


def _of_cluster(context: str, namespace: str, selector: str | None) -> "Evidence":
    from callwarden.cli.audit.sources import cluster as source

    try:
        return source.evidence(source.Kubectl(context), namespace=namespace, selector=selector or source.SELECTOR)
    except source.ClusterUnreachable as error:
        raise Failure(str(error), exit_code=2) from error


def _of_system() -> "Evidence":
    from callwarden.cli.audit.sources import running

    try:
        return running.evidence()
    except Failure as error:
        raise Failure(error.message, exit_code=2) from error


def _write(found: "list[AuditFinding]", evidence: "Evidence", as_: AuditFormat, out: Path | None) -> None:
    from callwarden.cli.audit import report, sarif, text

    document = _plain(found, evidence)
    match as_:
        case AuditFormat.TABLE if out is None:
            output.show_lines(text.rendered(found, evidence.source, evidence.notes, output.width()))
            return
        case AuditFormat.TABLE:
            written = f"{text.rendered(found, evidence.source, evidence.notes, _FILE_WIDTH)}\n"
        case AuditFormat.JSON:
            written = output.json_text(document) + "\n"
        case AuditFormat.CSV:
            written = records.csv_text(document["findings"], _COLUMNS)
        case AuditFormat.SARIF:
            written = output.json_text(sarif.log(found, report.RULES)) + "\n"
    if out is None:
        typer.echo(written, nl=False)
        return
    try:
        out.write_text(written, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{out}: {error.strerror}", exit_code=2) from error


def _plain(found: "list[AuditFinding]", evidence: "Evidence") -> dict[str, Any]:
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
