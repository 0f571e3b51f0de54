"""`callwarden policy lint|diff|explain`: what a file with policies would change, before it is applied."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from callwarden.cli import output
from callwarden.cli.commands import policy
from callwarden.cli.failure import CliMisuse, Failure
from callwarden.cli.output import Output, OutputOption

if TYPE_CHECKING:
    from callwarden.policy.changes import Change
    from callwarden.policy.fields import FieldGroup
    from callwarden.policy.lint import Finding

_GUESSES: Final = 3

Files = Annotated[list[str], typer.Argument(metavar="file…", help="YAML files; [bold]-[/bold] reads standard input.")]


def lint(
    files: Files,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for a warning, too.")] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Check files for problems and warnings, each with its field. Needs no running system.

    The policies of all files are also merged and checked together. A problem is something that `apply` refuses; a
    warning is something that may not be intended, such as a field that no service enforces yet. Exit code 1 if there is
    a problem.

    Example: [bold]callwarden policy lint deploy/examples/policy-hardened.yaml[/bold]
    """
    from callwarden.policy.bundle import Document
    from callwarden.policy.lint import lint as lint_text
    from callwarden.policy.lint import lint_together

    found: list[tuple[str, Finding]] = []
    documents: list[Document] = []
    count = 0
    for file in files:
        right, findings = lint_text(policy.read_text(file))
        found += [(file, finding) for finding in findings]
        documents += [resource for resource in right if isinstance(resource, Document)]
        count += len(right)
    together = " ".join(files)
    found += [(together, finding) for finding in lint_together(documents)]
    problems = [finding for _, finding in found if finding.severity == "problem"]

    def view() -> None:
        for file, finding in found:
            named = f"{finding.resource}: " if finding.resource else ""
            output.echo(f"{file}: {named}{finding.severity}: {finding.field}: {finding.reason}")
        numbers = {"problem": len(problems), "warning": len(found) - len(problems)}
        counts = [_many(number, severity) for severity, number in numbers.items() if number]
        output.echo(", ".join([f"{_many(count, 'resource')} OK", *counts]))

    output.emit(
        as_,
        [{"file": file, **asdict(finding)} for file, finding in found],
        view,
        columns=["file", "severity", "resource", "field", "reason"],
    )
    if problems or (strict and found):
        raise Failure(f"{_many(len(problems) or len(found), 'problem' if problems else 'warning')} in {together}")


def diff(
    files: Files,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit code 1 if something would change, like `diff`.")
    ] = False,
    as_: OutputOption = Output.TABLE,
) -> None:
    """Show what files would change in the settings in force, realm by realm.

    Example: [bold]callwarden policy diff deploy/examples/policy-realm.yaml[/bold]
    """
    from callwarden.policy.bundle import BadPolicy
    from callwarden.policy.changes import changes

    documents = [document for file in files for document in policy.read(file)]
    now = policy.load()
    try:
        then = now.with_applied(documents)
    except BadPolicy as error:
        raise policy.refused("together with the policies in force, this", error) from error
    found = changes(now, then)

    def view() -> None:
        _show_changes(found)
        policy.warn(then)

    output.emit(
        as_,
        [{**asdict(change), "by": list(_by(change))} for change in found],
        view,
        columns=["realm", "path", "before", "after", "by"],
    )
    if found and exit_code:
        raise Failure(f"{_many(len(found), 'setting')} would change")


def explain(
    what: Annotated[
        str,
        typer.Argument(metavar="file|field", help="A YAML file, [bold]-[/bold], or a field such as spec.lines.max."),
    ],
    as_: OutputOption = Output.TABLE,
) -> None:
    """Explain each field that a file sets, or one field: what it does, which service enforces it, its default.

    Example: [bold]callwarden policy explain spec.spend.dynamicDaily[/bold]
    """
    explained = list(_of_file(what)) if _is_file(what) else list(_of_field(what))

    def view() -> None:
        for number, one in enumerate(explained):
            if number:
                output.echo("")
            _show_field(one)

    output.emit(as_, explained, view)


def _is_file(what: str) -> bool:
    return what == policy.STDIN or what.endswith((".yaml", ".yml", ".json")) or Path(what).is_file()


def _of_file(file: str) -> "Iterator[dict[str, Any]]":
    from callwarden.policy.bundle import Document
    from callwarden.policy.fields import leaves
    from callwarden.policy.lint import lint as lint_text
    from callwarden.policy.model import PolicySpec
    from callwarden.policy.resources import SPECS

    text = policy.read_text(file)
    right, findings = lint_text(text)
    if any(finding.severity == "problem" for finding in findings):
        raise Failure(f"{file} has problems: `callwarden policy lint {file}` shows them")
    for resource in right:
        model = PolicySpec if isinstance(resource, Document) else SPECS[resource.kind]
        written = (
            resource.spec
            if isinstance(resource, Document)
            else resource.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        )
        known = {one["field"]: one for one in _fields(model)}
        for path, value in leaves(written):
            if path in known:
                yield {"resource": f"{resource.kind}/{resource.name}", **known[path], "value": value}


def _of_field(name: str) -> "Iterator[dict[str, Any]]":
    import difflib

    from callwarden.policy.model import PolicySpec

    path = name.removeprefix("spec.")
    fields = list(_fields(PolicySpec))
    # A group means everything in it; the brackets of lists are optional.
    plain = {one["field"]: one["field"].replace("[]", "") for one in fields}
    found = [
        one
        for one in fields
        if plain[one["field"]] == path or plain[one["field"]].startswith(f"{path}.") or path == "spec"
    ]
    if not found:
        near = difflib.get_close_matches(path, plain.values(), _GUESSES, cutoff=0.5)
        near += [one for one in plain.values() if one.split(".")[-1] == path.split(".")[-1] and one not in near]
        meant = f": did you mean {' or '.join(near[:_GUESSES])}?" if near else ""
        raise CliMisuse(f"{name} is neither a file nor a field of a policy{meant}")
    yield from found


def _fields(model: "type[FieldGroup]") -> "Iterator[dict[str, Any]]":
    """Each field that has a value, with all that is known of it."""
    from callwarden.policy import crd, reference
    from callwarden.policy.fields import walk
    from callwarden.policy.model import PolicySpec

    is_policy = model is PolicySpec
    (kind,) = [kind for kind in crd.KINDS if kind.spec is model and not kind.without]
    schema = crd.spec_schema(kind)
    defaults, hardened = crd.defaults(), crd.hardened()
    for fact in walk(model):
        if not fact.is_leaf:
            continue
        at = reference.schema_at(schema, fact.path)
        one: dict[str, Any] = {"field": fact.path, "does": fact.description if is_policy else fact.info.description}
        one["type"] = reference.type_of(at, fact.unit)
        one["default"] = defaults.get(fact.path) if is_policy else at.get("default")
        if is_policy:
            one["hardened"] = hardened.get(fact.path, one["default"])
            one["catalogue"] = list(fact.catalogue)
            one["by"] = list(fact.by)
        yield one


def _show_field(one: dict[str, Any]) -> None:
    from callwarden.policy.crd import shown

    value = f" = {_short(one['value'])}" if "value" in one else ""
    of = f"{one['resource']}  " if "resource" in one else ""
    output.echo(f"{of}spec.{one['field']}{value}")
    facts = [one["type"], f"default {shown(one['default'])}"]
    if "hardened" in one and one["hardened"] != one["default"]:
        facts.append(f"Hardened {shown(one['hardened'])}")
    if one.get("catalogue"):
        facts.append(f"row {', '.join(one['catalogue'])}")
    if "by" in one:
        facts.append(f"enforced by {', '.join(one['by'])}" if one["by"] else "not enforced yet")
    output.show(output.Aligned([[one["does"]], [" · ".join(facts)]], indent=2))


def _short(value: Any) -> str:
    from callwarden.policy.crd import shown

    holds_groups = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    return json.dumps(value) if holds_groups or isinstance(value, dict) else shown(value)


def _by(change: "Change") -> tuple[str, ...]:
    from callwarden.policy.bundle import facts

    return facts()[change.path].by


def _show_changes(found: "list[Change]") -> None:
    if not found:
        output.echo("nothing would change")
        return
    table = output.Rows(
        "realm", "setting", "now", "then", "enforced by", prose=("now", "then"), optional=("enforced by",)
    )
    for change in found:
        table.add(
            change.realm or "all",
            change.path,
            _short(change.before),
            output.cell(_short(change.after), "bold"),
            ", ".join(_by(change)) or output.cell("nothing yet", "yellow"),
        )
    output.show(table)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
