"""Reasons for survivors, and the page that shows them."""

from pathlib import Path

import pytest

from tests.mutation import reasons
from tests.mutation.report import CoreResult, page


def test_a_reason_belongs_to_a_mutant_or_to_all_that_begin_alike(tmp_path: Path) -> None:
    file = tmp_path / "reasons.toml"
    file.write_text('["a.b"]\n"f: constant: 1 → 2" = "Makes no difference."\n"Gate.__repr__: *" = "Read by people."\n')
    found = reasons.read(file)
    assert found.of("a.b", "f: constant: 1 → 2") == "Makes no difference."
    assert found.of("a.b", "Gate.__repr__: return: x → None") == "Read by people."
    assert found.of("a.b", "f: constant: 1 → 2 #2") is None
    assert found.of("a.c", "f: constant: 1 → 2") is None


def test_a_reason_that_no_survivor_needs_is_named(tmp_path: Path) -> None:
    file = tmp_path / "reasons.toml"
    file.write_text('["a.b"]\n"f: x" = "Makes no difference."\n"g: y" = "Makes no difference."\n')
    found = reasons.read(file)
    found.of("a.b", "f: x")
    assert found.unused(["a.b", "a.c"]) == ["a.b: g: y"]


def test_an_empty_reason_is_none(tmp_path: Path) -> None:
    file = tmp_path / "reasons.toml"
    file.write_text('["a.b"]\n"f: x" = " "\n')
    with pytest.raises(ValueError, match="give a reason"):
        reasons.read(file)


def test_the_page_counts_survivors_with_and_without_a_reason() -> None:
    told = reasons.Reasons({"callwarden.a.core.b": {"f: x": "Makes no difference."}})
    result = CoreResult()
    for name, outcome in (("f: x", "survived"), ("f: y", "survived"), ("f: z", "killed"), ("f: n", "not run")):
        result.add("callwarden.a.core.b", name, outcome, told)
    result.add("callwarden.a.core.c", "g: x", "timed out", told)
    text = page({"a": result})
    assert "| a | 5 | 1 | 1 | 1 | 2 | 40.0% |" in text
    assert "- `f: x`: Makes no difference." in text
    assert "- `f: y`\n" in text
    assert "- `f: n`\n" in text


def test_the_page_says_when_a_run_was_a_sample() -> None:
    result = CoreResult(found=2_000)
    result.add("callwarden.a.core.b", "f: x", "killed", reasons.Reasons({}))
    assert "| a | 1 of 2,000 | 1 |" in page({"a": result})


def test_the_reasons_of_this_repository_can_be_read() -> None:
    reasons.read()
