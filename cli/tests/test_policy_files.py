"""What a file with policies would do is said before it does it."""

import json
from pathlib import Path
from typing import Any

import pytest

from callwarden.cli.commands.policy_files import _show_changes
from callwarden.cli.main import run
from callwarden.policy.bundle import PolicySet, parse_yaml
from callwarden.policy.changes import changes


def resource(kind: str = "SecurityPolicy", name: str = "p", spec: str = "") -> str:
    return f"---\napiVersion: callwarden.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


class Shell:
    """Runs the command line on files of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def file(self, text: str, name: str = "policy.yaml") -> str:
        path = self._folder / name
        path.write_text(text)
        return str(path)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        code = run(["policy", *arguments])
        shown = self._capsys.readouterr()
        return code, shown.out, shown.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json")[1])


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_lint_finds_nothing_in_what_is_right(shell: Shell) -> None:
    code, out, _ = shell.run("lint", shell.file(resource(spec="lines: {max: 3}")))
    assert (code, out) == (0, "1 resource OK\n")


def test_lint_names_every_problem_of_every_resource_with_its_field(shell: Shell) -> None:
    file = shell.file(
        resource(spec="lines: {max: -1}, colour: red")
        + resource("ClusterSecurityPolicy", "base", "realm: a.example")
        + resource("Ban", "b", "address: 192.0.2.300")
        + resource("Trunk", "t", "onlyLocal: true, address: '192.0.2.1:5060'")
    )
    found = shell.json("lint", file)
    assert [(one["severity"], one["resource"], one["field"]) for one in found] == [
        ("problem", "p", "spec.lines.max"),
        ("problem", "p", "spec.colour"),
        ("problem", "base", "spec.realm"),
        ("problem", "b", "spec.address"),
        ("problem", "t", "spec.onlyLocal"),
    ]
    assert shell.run("lint", file)[0] == 1


def test_lint_warns_of_a_field_that_nobody_enforces_and_fails_for_it_only_where_asked_to(shell: Shell) -> None:
    file = shell.file(resource(spec="network: {maxKbps: 5000}"))
    code, out, _ = shell.run("lint", file)
    assert code == 0
    assert "p: warning: spec.network.maxKbps: is not enforced by any service yet" in out
    assert shell.run("lint", "--strict", file)[0] == 1


def test_lint_lays_the_policies_of_all_files_over_each_other(shell: Shell) -> None:
    base = shell.file(resource("ClusterSecurityPolicy", "base", "spend: {slice: {first: 10s}}"), "base.yaml")
    realm = shell.file(resource(spec="realm: a.example, spend: {slice: {minimum: 20s}}"), "realm.yaml")
    assert shell.run("lint", base)[0] == 0
    assert shell.run("lint", realm)[0] == 0
    (found,) = shell.json("lint", base, realm)
    assert (found["severity"], found["resource"], found["field"]) == ("problem", "p", "spec.spend.slice.minimum")


def test_lint_finds_two_policies_of_one_kind_and_name_and_lets_two_kinds_share_it(shell: Shell) -> None:
    twice = shell.file(resource() + resource(spec="lines: {max: 3}"))
    assert [one["field"] for one in shell.json("lint", twice)] == ["metadata.name"]
    assert shell.json("lint", shell.file(resource() + resource("ClusterSecurityPolicy"))) == []


def test_explain_says_of_each_field_that_is_set_what_it_does_and_who_enforces_it(shell: Shell) -> None:
    file = shell.file(resource(spec="lines: {max: 3}, api: {login: 3}"))
    lines, login = shell.json("explain", file)
    assert (lines["field"], lines["value"], lines["default"], lines["by"]) == ("lines.max", 3, 5, ["call-admission"])
    assert (login["hardened"], login["catalogue"], login["by"]) == (3, ["apidefneedlogin"], [])
    assert "Not enforced yet" in login["does"]


def test_explain_knows_a_field_a_group_and_what_was_nearly_meant(shell: Shell) -> None:
    assert [one["field"] for one in shell.json("explain", "spec.lines.max")] == ["lines.max"]
    assert {one["field"] for one in shell.json("explain", "spend.dynamicDaily")} == {
        f"spend.dynamicDaily.{name}" for name in ("mode", "floorEndUser", "floorTrafficSender", "multiplier")
    }
    code, _, err = shell.run("explain", "spec.lines.maximum")
    assert code == 2
    assert "lines.max" in err


def test_changes_are_effective_values_of_each_realm(capsys: pytest.CaptureFixture[str]) -> None:
    before = PolicySet.build(1, parse_yaml(resource(spec="lines: {max: 9}")))
    more = resource("ClusterSecurityPolicy", "base", "lines: {max: 8}, session: {ringTimeout: 30s}") + resource(
        name="q", spec="realm: a.example, network: {maxKbps: 99}"
    )
    found = changes(before, before.with_applied(parse_yaml(more)))
    # The base lies below what is said already, so it changes ringTimeout alone; the realm is new.
    assert [(one.realm, one.path, one.before, one.after) for one in found] == [
        ("", "session.ringTimeout", "2m", "30s"),
        ("a.example", "network.maxKbps", 800_000, 99),
        ("a.example", "session.ringTimeout", "2m", "30s"),
    ]
    _show_changes(found)
    shown = capsys.readouterr().out
    assert "nothing yet" in shown
    assert "edge-proxy" in shown
