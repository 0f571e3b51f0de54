"""`callwarden policy`: which protection is in force, changed while calls run."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from callwarden.cli import output, records, state
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.cli.policies import AppliedChange, PolicyStore, RunningRevision
    from callwarden.policy.bundle import BadPolicy, Document, Key, PolicySet

Result = TypeVar("Result")

app = typer.Typer(
    no_args_is_help=True, help="Policies: applied while calls run; one wrong field refuses the whole file."
)

STDIN: Final = "-"

ClusterOption = Annotated[bool, typer.Option("--cluster", help="The name is that of a ClusterSecurityPolicy.")]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace of a policy that came from Kubernetes.")
]


@app.command()
def apply(
    files: Annotated[
        list[str],
        typer.Option(
            "--file",
            "-f",
            help="YAML with SecurityPolicy or ClusterSecurityPolicy resources; [bold]-[/bold] reads it in.",
        ),
    ],
    as_: OutputOption = Output.TABLE,
) -> None:
    """Apply policies: every service enforces them within a second, or nothing changes.

    Example: [bold]callwarden policy apply -f deploy/examples/policy-hardened.yaml[/bold]
    """
    documents = [document for file in files for document in read(file)]
    endpoints = state.find()

    async def work(store: "PolicyStore") -> "tuple[AppliedChange, list[RunningRevision]]":
        change = await store.apply(documents)
        return change, await store.await_acks(change.policies.revision)

    change, running = _speak(endpoints, work)

    def view() -> None:
        for document in documents:
            output.echo(f"policy {document.name} {'applied' if document.name in change.changed else 'unchanged'}")
        warn(change.policies)
        _show_status(change.policies.revision, running)

    _emit_status(
        as_,
        change.policies.revision,
        running,
        view,
        {
            "changed": list(change.changed),
            "warnings": [str(warning) for warning in change.policies.warnings],
        },
    )
    _fail_if_behind(change.policies.revision, running)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name of the policy.")],
    cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """Delete a policy: its settings fall back to those of other policies and of the profile.

    Example: [bold]callwarden policy delete no-berlin[/bold]
    """
    endpoints = state.find()

    async def work(store: "PolicyStore") -> "tuple[AppliedChange, list[RunningRevision]]":
        change = await store.delete(_key(name, cluster, namespace))
        return change, await store.await_acks(change.policies.revision)

    change, running = _speak(endpoints, work)

    def view() -> None:
        output.echo(f"policy {name} deleted")
        _show_status(change.policies.revision, running)

    _emit_status(as_, change.policies.revision, running, view, {"changed": list(change.changed)})
    _fail_if_behind(change.policies.revision, running)


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """List the policies in force, in the order in which they are merged.

    Example: [bold]callwarden policy list[/bold]
    """
    policies = load()
    in_order = sorted(
        policies.documents, key=lambda one: (not one.is_cluster, one.realm != "", one.realm, one.priority, one.name)
    )
    output.emit(
        as_,
        {
            "revision": policies.revision,
            "policies": [json.loads(document.to_json()) for document in policies.documents],
        },
        lambda: _show_policies(policies.revision, in_order),
        rows=[_row(document) for document in in_order],
        columns=["kind", "namespace", "name", "realm", "priority", "profile", "sets"],
    )


def _row(document: "Document") -> dict[str, Any]:
    return {
        "kind": document.kind,
        "namespace": document.namespace,
        "name": document.name,
        "realm": document.realm,
        "priority": document.priority,
        "profile": str(document.spec.get("profile", "")),
        "sets": sorted(set(document.spec) - {"realm", "priority", "profile"}),
    }


def _show_policies(revision: int, documents: "list[Document]") -> None:
    if not documents:
        output.echo(
            "no policy is applied, so profile Default is in force: `callwarden policy apply -f FILE` applies one"
        )
        return
    table = output.Rows(
        "name",
        "realm",
        "priority",
        "profile",
        "sets",
        right=("priority",),
        prose=("sets",),
        optional=("sets", "profile", "priority"),
    )
    for document in documents:
        row = _row(document)
        table.add(
            f"{document.namespace}/{document.name}" if document.namespace else document.name,
            "all (cluster)" if document.is_cluster else document.realm or "all",
            str(document.priority),
            row["profile"],
            ", ".join(row["sets"]) or "nothing",
        )
    output.show(table)
    output.echo(f"\nrevision {revision}")


@app.command()
def show(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this policy as it was applied. Default: all settings in force.", show_default=False),
    ] = None,
    realm: Annotated[str, typer.Option(help="Show the settings in force for this realm.")] = "",
    cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """Show a policy as it was applied, or every setting in force, as YAML.

    Example: [bold]callwarden policy show --realm callwarden.local[/bold]
    """
    import yaml

    from callwarden.kernel.clock import UnixS
    from callwarden.policy.fields import leaves

    policies = load()
    if name is None:
        body: Any = policies.at(UnixS(time.time())).for_realm(realm).model_dump(mode="json", by_alias=True)
    else:
        body = json.loads(_named(policies, _key(name, cluster, namespace)).to_json())
    output.emit(
        as_,
        body,
        lambda: output.echo(yaml.safe_dump(body, sort_keys=False, allow_unicode=True).rstrip()),
        rows=[{"field": path, "value": value} for path, value in leaves(body)],
        columns=["field", "value"],
    )


@app.command()
def status(as_: OutputOption = Output.TABLE) -> None:
    """Show which revision each process runs. Exit code 1 if one is behind.

    Example: [bold]callwarden policy status[/bold]
    """
    endpoints = state.find()

    async def work(store: "PolicyStore") -> "tuple[PolicySet, list[RunningRevision]]":
        return await store.load(), await store.running()

    policies, running = _speak(endpoints, work)
    _emit_status(as_, policies.revision, running, lambda: _show_status(policies.revision, running))
    _fail_if_behind(policies.revision, running)


def read(file: str) -> "list[Document]":
    """The policies of a file. Failure that names file, field and reason."""
    from callwarden.policy.bundle import BadPolicy, parse_yaml

    text = read_text(file)
    try:
        return parse_yaml(text)
    except BadPolicy as error:
        raise refused(file, error) from error


def read_text(file: str) -> str:
    """What is in a file, or on standard input."""
    try:
        return sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{file}: is not UTF-8 text") from error


def warn(policies: "PolicySet") -> None:
    """Settings that are in force but may not be intended."""
    for warning in policies.warnings:
        output.echo(f"warning: {warning}")


def refused(file: str, error: "BadPolicy") -> Failure:
    """The refusal of a file, or of what is called so, with every field and reason."""
    where = "standard input" if file == STDIN else file
    named = f" policy {error.name}:" if error.name else ""
    lines = "".join(f"\n  {problem.field}: {problem.reason}" for problem in error.problems)
    return Failure(f"{where} is refused, nothing was changed:{named}{lines}")


def _key(name: str, cluster: bool, namespace: str) -> "Key":
    from callwarden.policy.bundle import Key
    from callwarden.policy.model import CLUSTER_KIND, KIND

    if cluster and namespace:
        raise CliMisuse("--cluster and --namespace: a ClusterSecurityPolicy is in no namespace")
    return Key(CLUSTER_KIND if cluster else KIND, namespace, name)


def _named(policies: "PolicySet", key: "Key") -> "Document":
    for document in policies.documents:
        if document.key == key:
            return document
    raise Failure(f"no {key.kind} is called {key.name}: `callwarden policy list` shows them")


def load() -> "PolicySet":
    async def work(store: "PolicyStore") -> "PolicySet":
        return await store.load()

    return _speak(state.find(), work)


def _speak(endpoints: state.Endpoints, work: "Callable[[PolicyStore], Awaitable[Result]]") -> Result:
    from callwarden.cli.policies import connect
    from callwarden.policy.bundle import BadPolicy

    async def session() -> Result:
        async with connect(endpoints.nats(), endpoints.instances) as store:
            return await work(store)

    try:
        return asyncio.run(session())
    except BadPolicy as error:
        raise refused("together with the policies in force, this", error) from error


def _emit_status(
    as_: Output, revision: int, running: "list[RunningRevision]", view: output.View, more: dict[str, Any] | None = None
) -> None:
    """Which process runs which revision; `more` is what JSON says in addition."""
    from callwarden.cli.policies import behind

    rows = [
        {
            "service": one.service,
            "instance": one.instance,
            "revision": one.revision,
            "applied_at": records.moment(one.applied_at_s),
        }
        for one in running
    ]
    document = {"revision": revision, **(more or {}), "running": rows, "behind": behind(revision, running)}
    output.emit(as_, document, view, rows=rows, columns=["service", "instance", "revision", "applied_at"])


def _show_status(revision: int, running: "list[RunningRevision]") -> None:
    table = output.Rows(
        "service", "instance", "runs revision", "since", right=("runs revision",), optional=("service",)
    )
    for one in running:
        table.add(
            one.service,
            one.instance,
            output.cell(str(one.revision), "yellow" if one.revision < revision else "green"),
            output.clock(one.applied_at_s),
        )
    output.echo(f"revision {revision}")
    if len(table):
        output.show(table)


def _fail_if_behind(revision: int, running: "list[RunningRevision]") -> None:
    from callwarden.cli.policies import behind

    if late := behind(revision, running):
        raise Failure(
            f"revision {revision} doesn't run in {', '.join(late)} yet: look again with `callwarden policy status`"
        )
