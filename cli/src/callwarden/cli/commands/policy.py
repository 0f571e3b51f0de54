"""`callwarden policy`: what protection holds, changed live."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from callwarden.cli import output, state
from callwarden.cli.failure import Failure, Misuse
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.cli.policies import Change, PolicyStore, Running
    from callwarden.policy.bundle import BadPolicy, Document, Key, PolicySet

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True, help="Policies: applied live, refused whole when one field is wrong.")

STDIN: Final = "-"

ClusterOption = Annotated[bool, typer.Option("--cluster", help="A ClusterSecurityPolicy is meant.")]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="Its namespace, where it came from Kubernetes.")
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
    """Apply policies: every service runs them within a second, or nothing changes.

    Example: [bold]callwarden policy apply -f deploy/examples/policy-hardened.yaml[/bold]
    """
    documents = [document for file in files for document in read(file)]
    endpoints = state.find()

    async def work(store: "PolicyStore") -> "tuple[Change, list[Running]]":
        change = await store.apply(documents)
        return change, await store.await_acks(change.policies.revision)

    change, running = _speak(endpoints, work)
    names = [document.name for document in documents]
    if as_ is Output.JSON:
        output.as_json(
            {
                "revision": change.policies.revision,
                "changed": list(change.changed),
                "warnings": [str(warning) for warning in change.policies.warnings],
                **_status(change.policies.revision, running),
            }
        )
    else:
        for name in names:
            output.say(f"policy {name} {'applied' if name in change.changed else 'unchanged'}")
        warn(change.policies)
        _show_status(change.policies.revision, running)
    _fail_if_behind(change.policies.revision, running)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Name of the policy.")],
    cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
) -> None:
    """Delete a policy: what it said falls back to the others and the profile's values.

    Example: [bold]callwarden policy delete no-berlin[/bold]
    """
    endpoints = state.find()

    async def work(store: "PolicyStore") -> "tuple[Change, list[Running]]":
        change = await store.delete(_key(name, cluster, namespace))
        return change, await store.await_acks(change.policies.revision)

    change, running = _speak(endpoints, work)
    output.say(f"policy {name} deleted")
    _show_status(change.policies.revision, running)
    _fail_if_behind(change.policies.revision, running)


@app.command("list")
def list_(as_: OutputOption = Output.TABLE) -> None:
    """All policies that hold, in the order in which they are laid over each other.

    Example: [bold]callwarden policy list[/bold]
    """
    policies = load()
    if as_ is Output.JSON:
        output.as_json(
            {
                "revision": policies.revision,
                "policies": [json.loads(document.to_json()) for document in policies.documents],
            }
        )
        return
    if not policies.documents:
        output.say("no policy was applied: profile Default holds; apply one with `callwarden policy apply -f FILE`")
        return
    table = output.Rows("name", "realm", "priority", "profile", "says", right=("priority",))
    in_order = sorted(
        policies.documents, key=lambda one: (not one.is_cluster, one.realm != "", one.realm, one.priority, one.name)
    )
    for document in in_order:
        said = sorted(set(document.spec) - {"realm", "priority", "profile"})
        table.add(
            f"{document.namespace}/{document.name}" if document.namespace else document.name,
            "all (cluster)" if document.is_cluster else document.realm or "all",
            str(document.priority),
            str(document.spec.get("profile", "")),
            ", ".join(said) or "nothing",
        )
    output.show(table)
    output.say(f"\nrevision {policies.revision}")


@app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="One policy as applied; without it what holds in the end.", show_default=False)
    ] = None,
    realm: Annotated[str, typer.Option(help="What holds for this realm.")] = "",
    cluster: ClusterOption = False,
    namespace: NamespaceOption = "",
    as_: OutputOption = Output.TABLE,
) -> None:
    """A policy as it was applied, or every setting that holds, as YAML.

    Example: [bold]callwarden policy show --realm callwarden.local[/bold]
    """
    import yaml

    policies = load()
    if name is None:
        body: Any = policies.at(time.time()).for_realm(realm).model_dump(mode="json", by_alias=True)
    else:
        body = json.loads(_named(policies, _key(name, cluster, namespace)).to_json())
    if as_ is Output.JSON:
        output.as_json(body)
    else:
        output.say(yaml.safe_dump(body, sort_keys=False, allow_unicode=True).rstrip())


@app.command()
def status(as_: OutputOption = Output.TABLE) -> None:
    """Which revision each process runs; exit code 1 when one is behind.

    Example: [bold]callwarden policy status[/bold]
    """
    endpoints = state.find()

    async def work(store: "PolicyStore") -> "tuple[PolicySet, list[Running]]":
        return await store.load(), await store.running()

    policies, running = _speak(endpoints, work)
    if as_ is Output.JSON:
        output.as_json({"revision": policies.revision, **_status(policies.revision, running)})
    else:
        _show_status(policies.revision, running)
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
    """What holds although it may not be meant."""
    for warning in policies.warnings:
        output.say(f"warning: {warning}")


def refused(file: str, error: "BadPolicy") -> Failure:
    """That a file, or what is called so, is refused, with every field and reason."""
    where = "standard input" if file == STDIN else file
    named = f" policy {error.name}:" if error.name else ""
    lines = "".join(f"\n  {problem.field}: {problem.reason}" for problem in error.problems)
    return Failure(f"{where} is refused, nothing was changed:{named}{lines}")


def _key(name: str, cluster: bool, namespace: str) -> "Key":
    from callwarden.policy.bundle import Key
    from callwarden.policy.model import CLUSTER_KIND, KIND

    if cluster and namespace:
        raise Misuse("--cluster and --namespace: a ClusterSecurityPolicy is in no namespace")
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
        raise refused("together with what holds already, this", error) from error


def _status(revision: int, running: "list[Running]") -> dict[str, Any]:
    from callwarden.cli.policies import behind

    return {
        "running": [
            {
                "service": one.service,
                "instance": one.instance,
                "revision": one.revision,
                "applied_at_s": one.applied_at_s,
            }
            for one in running
        ],
        "behind": behind(revision, running),
    }


def _show_status(revision: int, running: "list[Running]") -> None:
    table = output.Rows("service", "instance", "runs revision", "since", right=("runs revision",))
    for one in running:
        table.add(
            one.service,
            one.instance,
            output.cell(str(one.revision), "yellow" if one.revision < revision else "green"),
            output.clock(one.applied_at_s),
        )
    output.say(f"revision {revision}")
    if len(table):
        output.show(table)


def _fail_if_behind(revision: int, running: "list[Running]") -> None:
    from callwarden.cli.policies import behind

    if late := behind(revision, running):
        raise Failure(
            f"revision {revision} doesn't run in {', '.join(late)} yet: look again with `callwarden policy status`"
        )
