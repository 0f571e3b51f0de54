"""What mutants there are of a piece of code, and how they are named."""

import ast
from textwrap import dedent

import pytest

from tests.mutation.mutants import mutants_of, sample


def names(code: str) -> list[str]:
    return [mutant.name for mutant in mutants_of("planted", ast.parse(dedent(code)))]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("return a < b", ["boundary: a < b → a <= b", "comparison: a < b → a >= b"]),
        ("return a is None", ["comparison: a is None → a is not None"]),
        ("return a and b", ["boolean: a and b → a or b", "operand left out: a and b → b"]),
        ("return not a", ["boolean: return not a → return a"]),
        ("return a + 2", ["arithmetic: a + 2 → a - 2", "constant: a + 2 → a + 3"]),
        ("return True", ["constant: return True → return False"]),
        ("return call(a)", ["return: call(a) → None"]),
        ("if call(a):\n    return b", ["condition: call(a) → not call(a)"]),
        ("a.append(b)", ["statement: a.append(b) → (deleted)"]),
        ("a.b = 1", ["statement: a.b = 1 → (deleted)", "constant: a.b = 1 → a.b = 2"]),
        ("a -= b", ["statement: a -= b → (deleted)", "arithmetic: a -= b → a += b"]),
        ("raise Error('text')", ["statement: raise Error('text') → (deleted)"]),
        ("return max(a, b)", ["call: max(a, b) → min(a, b)"]),
        ("return [x for x in a if x]", ["condition: x → not x"]),
    ],
)
def test_each_kind_of_fault_is_planted(code: str, expected: list[str]) -> None:
    found = names("def f(a, b):\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    assert {f"f: {each}" for each in expected} <= set(found)


@pytest.mark.parametrize(
    "code",
    [
        "NAMES_MAX: Final = 32 * 2",
        "By = Literal['counter', 'operator']",
        "class A:\n    __slots__ = ('a', 'b')",
        "class A:\n    '''Text.'''\n    b: int\n    '''Text.'''",
        "@lru_cache(maxsize=5)\ndef f(a: Literal['a']) -> None:\n    '''Text.'''",
        "def f(a):\n    assert a < 3",
        "class Port(Protocol):\n    def f(self) -> int:\n        return 1",
    ],
)
def test_what_a_test_could_only_repeat_is_left_alone(code: str) -> None:
    assert names(code) == []


def test_prose_is_left_alone_and_the_decision_beside_it_is_not() -> None:
    found = names("def f(a):\n    return Refuse('rate', text='too many', retry=f'{a} or 1')")
    assert [name for name in found if "constant" in name] == [
        "f: constant: Refuse('rate', text='too many', retry=f'{a} or 1')"
        " → Refuse('', text='too many', retry=f'{a} or 1')"
    ]


CODE = """
class Gate:
    def passes(self, count):
        if count < 3:
            return True
        self.log(count)
        return count < 3
"""


def test_a_name_stays_when_the_file_is_reformatted_and_grows_elsewhere() -> None:
    other = """
    def added(x):
        return x + 1

    class Gate:

        def passes(
            self,
            count,
        ):
            # A comment.
            if (
                count
                < 3
            ):
                return (True)
            self.log(count)
            return (count) < 3
    """
    assert [name for name in names(other) if "Gate" in name] == names(CODE)


def test_the_same_code_twice_in_a_function_has_two_names() -> None:
    found = names(CODE)
    assert "Gate.passes: boundary: count < 3 → count <= 3" in found
    assert "Gate.passes: boundary: count < 3 → count <= 3 #2" in found
    assert len(found) == len(set(found))


def test_a_mutant_changes_the_tree_and_takes_its_fault_out_again() -> None:
    tree = ast.parse(CODE)
    before = ast.dump(tree, include_attributes=True)
    mutants = mutants_of("planted", tree)
    assert ast.dump(tree, include_attributes=True) == before
    texts = {ast.unparse(tree)}
    for mutant in mutants:
        original = mutant.plant()
        compile(tree, "planted", "exec")
        texts.add(ast.unparse(tree))
        mutant.take_out(original)
        assert ast.dump(tree, include_attributes=True) == before
    assert len(texts) == len(mutants) + 1


def test_a_sample_is_the_same_each_time_and_keeps_its_members_when_code_is_added() -> None:
    mutants = mutants_of("planted", ast.parse(CODE))
    chosen = sample(mutants, 4, seed=1)
    assert len(chosen) == 4
    assert chosen == sample(mutants, 4, seed=1)
    assert any(chosen != sample(mutants, 4, seed=seed) for seed in range(2, 6))
    grown = mutants_of("planted", ast.parse(CODE + "\ndef added(x):\n    return x + 1\n"))
    kept = {mutant.name for mutant in sample(grown, 4, seed=1)} & {mutant.name for mutant in chosen}
    assert len(kept) >= 4 - (len(grown) - len(mutants))
