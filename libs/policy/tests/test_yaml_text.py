"""YAML is read within bounds, and says in which line it breaks one."""

import pytest

from callwarden.policy import yaml_text
from callwarden.policy.bundle import BadPolicy, PolicySet, load_yaml, parse_yaml
from callwarden.policy.yaml_text import DEPTH_MAX, NotYaml, documents

HEAD = "apiVersion: callwarden.io/v1\nkind: SecurityPolicy\nmetadata: {name: p}\n"


def values(text: str) -> list[object]:
    return [value for _, value in documents(text)]


def test_documents_are_read_with_the_line_that_each_begins_in() -> None:
    found = list(documents("a: 1\n---\n# nothing\n---\nb: [2, {c: 3}]\n"))
    assert [value for _, value in found] == [{"a": 1}, {"b": [2, {"c": 3}]}]
    assert [node.start_mark.line for node, _ in found] == [0, 4]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_depth_is_bounded(opening: str) -> None:
    with pytest.raises(NotYaml, match=f"nested more than {DEPTH_MAX} deep"):
        values(opening * 25_000)


def test_a_document_of_the_greatest_depth_is_read() -> None:
    value = values("[" * DEPTH_MAX + "]" * DEPTH_MAX)
    for _ in range(DEPTH_MAX):
        (value,) = value  # type: ignore[assignment]
    assert value == []


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (f"{HEAD}spec: {{lines: {{max: 1}}, lines: {{max: 2}}}}", 4, "lines"),
        (f"{HEAD}spec:\n  lines:\n    max: 1\n    max: 1\n", 7, "max"),
        ("- {a: 1}\n- {a: 1, 'a': 2}\n", 2, "a"),
        ("1: a\n1: b\n", 2, "1"),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_its_line(text: str, line: int, key: str) -> None:
    with pytest.raises(NotYaml, match=f"the key '{key}' is there twice") as caught:
        values(text)
    assert caught.value.line == line


def test_the_same_key_in_two_mappings_is_no_fault() -> None:
    assert values("a: {x: 1}\nb: {x: 1}\n") == [{"a": {"x": 1}, "b": {"x": 1}}]


@pytest.mark.parametrize("number", ["9" * 5_000, "1" + ":1" * 100_000, "0x" + "f" * 5_000, "1." + "0" * 5_000])
def test_a_number_is_bounded(number: str) -> None:
    with pytest.raises(NotYaml, match="characters"):
        values(f"a: {number}")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [("a: {", 1, "is not YAML"), ("a: 1\nb: &x 1\nc: *x\n", 3, "aliases"), ("a: \x00", 0, "is not YAML")],
)
def test_what_is_no_yaml_says_where(text: str, line: int, reason: str) -> None:
    with pytest.raises(NotYaml, match=reason) as caught:
        values(text)
    assert caught.value.line in (line, line + 1)


def test_a_policy_file_says_the_same() -> None:
    with pytest.raises(BadPolicy) as caught:
        load_yaml(f"{HEAD}spec: {{lines: {{max: 1}}, lines: {{max: 2}}}}")
    (problem,) = caught.value.problems
    assert str(problem) == "line 4: the key 'lines' is there twice"


@pytest.mark.parametrize(
    ("deny", "versions"),
    [
        ("[0.0.0.0/0]", [4]),
        ("['::/0']", [6]),
        ("[0.0.0.0/0, '::/0']", [4, 6]),
        ("[0.0.0.0/1, 128.0.0.0/2, 192.0.0.0/2]", [4]),
        ("[0.0.0.0/1]", []),
        ("[192.0.2.0/24, '2001:db8::/32']", []),
    ],
)
def test_denying_every_address_is_warned_of(deny: str, versions: list[int]) -> None:
    policies = PolicySet.build(1, parse_yaml(f"{HEAD}spec: {{firewall: {{deny: {deny}}}}}"))
    warned = [warning for warning in policies.warnings if warning.field == "spec.firewall.deny"]
    assert [
        f"every IPv{version} address" in str(warning) for version, warning in zip(versions, warned, strict=True)
    ] == ([True] * len(versions))


def test_libyaml_and_the_python_reader_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = f"{HEAD}spec: {{lines: {{max: 5, peakHours: 'Mon-Fri 08:00-20:00'}}, realm: Zoë}}\n---\n- yes\n- 1e3\n- ~\n"
    fast = values(text)
    monkeypatch.setattr(yaml_text, "_LOADER", yaml.SafeLoader)
    assert values(text) == fast
    with pytest.raises(NotYaml, match="nested"):
        values("[" * 50_000)
