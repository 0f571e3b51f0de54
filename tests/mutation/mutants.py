"""Mutants of a module: each is one small fault in its syntax tree. In: which faults, and how each is named. Out:
whether a test notices (`server`).

A mutant is named by its function, its kind and the code before and after, as `ast.unparse` writes them: the name stays
the same when the file is reformatted or other functions change. Where a function holds the same code several times, a
number tells them apart.

Not mutated, because a test for it would only repeat the code: docstrings, annotations, decorators, `assert`, f-strings
and other prose (texts of raised errors, arguments called `text`), names for `__slots__`, and the number behind a
module's named constant (`NAMES_MAX: Final = 32` is a decision; how the code compares with it is mutated).
"""

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

DELETED: Final = "(deleted)"
_CONTEXT_CHARS_MAX: Final = 160  # A constant in a longer table is named by itself.

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[tuple[str, type[ast.cmpop]], ...]]] = {
    ast.Lt: (("boundary", ast.LtE), ("comparison", ast.GtE)),
    ast.LtE: (("boundary", ast.Lt), ("comparison", ast.Gt)),
    ast.Gt: (("boundary", ast.GtE), ("comparison", ast.LtE)),
    ast.GtE: (("boundary", ast.Gt), ("comparison", ast.Lt)),
    ast.Eq: (("comparison", ast.NotEq),),
    ast.NotEq: (("comparison", ast.Eq),),
    ast.Is: (("comparison", ast.IsNot),),
    ast.IsNot: (("comparison", ast.Is),),
    ast.In: (("comparison", ast.NotIn),),
    ast.NotIn: (("comparison", ast.In),),
}
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_TWINS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
# Fields of a node in which nothing is mutated.
_SKIPPED_FIELDS: Final = frozenset({"decorator_list", "annotation", "returns", "bases", "type_comment", "pattern"})
_PROSE_ARGUMENTS: Final = frozenset({"text", "message", "repr", "compare", "hash", "slots", "frozen"})
_COMPOUND: Final = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.With,
    ast.AsyncWith, ast.Try, ast.TryStar, ast.Match,
)  # fmt: skip
_TYPE_CALLS: Final = frozenset({"TypeVar", "NewType", "cast", "ParamSpec", "assert_never"})


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault. `first_line` to `last_line` hold the code that it changes."""

    module: str
    function: str
    """Qualified name in the module; empty outside of all functions and classes."""
    kind: str
    before: str
    after: str
    number: int
    """1 for the first of this name in the module."""
    first_line: int
    last_line: int
    _parent: ast.AST = field(repr=False, compare=False)
    _field: str = field(repr=False, compare=False)
    _index: int | None = field(repr=False, compare=False)
    _replacement: ast.AST = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The mutant's name in its module, one line."""
        number = f" #{self.number}" if self.number > 1 else ""
        return f"{self.function or 'module'}: {self.kind}: {self.before} → {self.after}{number}"

    def plant(self) -> ast.AST:
        """Puts the fault into the tree; returns what was there, for `take_out`."""
        return _replace(self._parent, self._field, self._index, self._replacement)

    def take_out(self, original: ast.AST) -> None:
        """Restores the tree."""
        _replace(self._parent, self._field, self._index, original)


def mutants_of(module: str, tree: ast.Module) -> list[Mutant]:
    """All mutants of a parsed module, in the order of its code. They refer to the tree."""
    found = _Finder(module)
    found.module(tree)
    return found.mutants


def sample(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """At most `count` of them, the same each time: by a hash of the name, so that code added elsewhere changes few."""

    def rank(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{seed} {mutant.module} {mutant.name}".encode()).digest()

    chosen = set(sorted(map(rank, mutants))[:count])
    return [mutant for mutant in mutants if rank(mutant) in chosen]


class _Finder:
    """Walks a module and collects its mutants."""

    def __init__(self, module: str) -> None:
        self.mutants: list[Mutant] = []
        self._module = module
        self._scopes: list[str] = []
        self._statement: ast.stmt | None = None
        self._names: Counter[tuple[str, str, str, str]] = Counter()
        self._assigned: list[Counter[str]] = []  # Of each function that we are in: how often a name is assigned.

    def module(self, tree: ast.Module) -> None:
        self._body(tree, "body")

    # Statements.

    def _body(self, parent: ast.AST, name: str) -> None:
        body: list[ast.stmt] = getattr(parent, name)
        for index, statement in enumerate(body):
            if index == 0 and _is_text(statement):
                continue  # a docstring
            self._visit_statement(parent, name, index, statement)

    def _visit_statement(self, parent: ast.AST, name: str, index: int, statement: ast.stmt) -> None:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(statement)
                return
            case ast.ClassDef():
                if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in statement.bases):
                    self._scopes.append(statement.name)
                    self._body(statement, "body")
                    self._scopes.pop()
                return
            case ast.Assert() | ast.Import() | ast.ImportFrom() | ast.Global() | ast.Nonlocal() | ast.Pass():
                return
            case ast.Expr(value=ast.Constant()):
                return  # a text under a field
            case ast.Assign() | ast.AnnAssign() if self._is_declaration(statement):
                return
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return
            case _:
                pass
        outer, self._statement = self._statement, statement
        if self._is_deletable(statement):
            self._add("statement", statement, parent, name, index, ast.Pass(), after=DELETED)
        if isinstance(statement, ast.AugAssign):
            other = ast.AugAssign(statement.target, _ARITHMETIC[type(statement.op)](), statement.value)
            self._add("arithmetic", statement, parent, name, index, other)
        for field_name, value in ast.iter_fields(statement):
            if field_name in _SKIPPED_FIELDS:
                continue
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._body(statement, field_name)
            else:
                self._visit_field(statement, field_name, value)
        self._statement = outer

    def _function(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._scopes.append(function.name)
        outer, self._statement = self._statement, function
        for field_name in ("defaults", "kw_defaults"):
            self._visit_field(function.args, field_name, getattr(function.args, field_name))
        self._assigned.append(
            Counter(
                node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            )
            + Counter(argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg))
        )
        self._body(function, "body")
        self._assigned.pop()
        self._statement = outer
        self._scopes.pop()

    def _is_declaration(self, statement: ast.Assign | ast.AnnAssign) -> bool:
        """A type alias, `__slots__`, or a named number outside of functions."""
        if self._assigned:
            return False
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        name = targets[0].id if isinstance(targets[0], ast.Name) else ""
        if name.startswith("__") or statement.value is None:
            return True
        if _is_numeric(statement.value):
            return name.isupper()
        return isinstance(statement, ast.Assign) and _is_type(statement.value)

    def _is_deletable(self, statement: ast.stmt) -> bool:
        """Whether the function still makes sense without it; a name that is nowhere else assigned would be missing."""
        if not self._assigned:
            return False
        match statement:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
                return name not in _TYPE_CALLS
            case ast.Expr() | ast.AugAssign() | ast.Delete() | ast.Raise() | ast.Break() | ast.Continue():
                return True
            case ast.Return():
                return statement.value is None
            case ast.Assign(targets=targets):
                return all(self._is_assigned_elsewhere(target) for target in targets)
            case ast.AnnAssign(target=target, value=value):
                return value is not None and self._is_assigned_elsewhere(target)
            case _:
                return False

    def _is_assigned_elsewhere(self, target: ast.expr) -> bool:
        match target:
            case ast.Name(id=name):
                return self._assigned[-1][name] > 1
            case ast.Tuple(elts=elements):
                return all(map(self._is_assigned_elsewhere, elements))
            case _:
                return True  # an attribute or item

    # Expressions.

    def _visit_field(self, parent: ast.AST, name: str, value: object) -> None:
        if isinstance(value, ast.AST):
            self._visit(parent, name, None, value)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    self._visit(parent, name, index, item)

    def _visit(self, parent: ast.AST, name: str, index: int | None, node: ast.AST) -> None:
        match node:
            case ast.JoinedStr():
                return
            case ast.keyword(arg=argument) if argument in _PROSE_ARGUMENTS:
                return
            case ast.Call(func=ast.Name(id=function)) if function in _TYPE_CALLS:
                return
            case ast.match_case():
                if node.guard is not None:
                    self._visit(node, "guard", None, node.guard)
                self._body(node, "body")
                return
            case ast.ExceptHandler():
                self._body(node, "body")
                return
            case _:
                pass
        for kind, replacement in self._replacements(parent, name, node):
            self._add(kind, node, parent, name, index, replacement)
        for field_name, value in ast.iter_fields(node):
            if field_name not in _SKIPPED_FIELDS:
                self._visit_field(node, field_name, value)

    def _replacements(self, parent: ast.AST, name: str, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
        match node:
            case ast.Compare(ops=operators):
                for position, operator in enumerate(operators):
                    for kind, other in _COMPARISONS[type(operator)]:
                        changed = copy.deepcopy(node)
                        changed.ops[position] = other()
                        yield kind, changed
            case ast.BinOp(op=operator):
                yield "arithmetic", ast.BinOp(node.left, _ARITHMETIC[type(operator)](), node.right)
            case ast.BoolOp(op=operator, values=values):
                yield "boolean", ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
                for position in range(len(values)):
                    rest = values[:position] + values[position + 1 :]
                    yield "operand left out", rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                yield "boolean" if isinstance(node.op, ast.Not) else "arithmetic", operand
            case ast.Constant():
                yield from self._constants(node.value)
            case ast.Call(func=ast.Name(id=function)) if function in _TWINS:
                yield "call", ast.Call(ast.Name(_TWINS[function], ast.Load()), node.args, node.keywords)
            case _:
                pass
        if isinstance(node, ast.expr):
            is_condition = (isinstance(parent, ast.If | ast.While | ast.IfExp) and name == "test") or (
                isinstance(parent, ast.comprehension) and name == "ifs"
            )
            if is_condition and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
                yield "condition", ast.UnaryOp(ast.Not(), node)
            if isinstance(parent, ast.Return) and not isinstance(node, ast.Constant):
                yield "return", ast.Constant(None)

    def _constants(self, value: object) -> Iterator[tuple[str, ast.AST]]:
        match value:
            case bool():
                yield "constant", ast.Constant(not value)
            case int() | float():
                yield "constant", ast.Constant(value + 1)
            case str() if not isinstance(self._statement, ast.Raise):
                yield "constant", ast.Constant("" if value else "mutant")
            case bytes():
                yield "constant", ast.Constant(b"" if value else b"mutant")
            case _:
                pass

    def _add(
        self,
        kind: str,
        node: ast.AST,
        parent: ast.AST,
        name: str,
        index: int | None,
        replacement: ast.AST,
        after: str = "",
    ) -> None:
        if hasattr(replacement, "lineno"):  # a part of the tree, whose place must stay as it is
            replacement = copy.deepcopy(replacement)
        ast.copy_location(replacement, node)
        ast.fix_missing_locations(replacement)
        before, described = _described(node, parent, name, index, replacement)
        function = ".".join(self._scopes)
        key = function, kind, before, after or described
        self._names[key] += 1
        statement = self._statement
        assert isinstance(node, ast.expr | ast.stmt)
        assert statement is not None
        first, last = node.lineno, node.end_lineno or node.lineno
        if not isinstance(statement, _COMPOUND):  # its tests are those that run any of it
            first, last = statement.lineno, statement.end_lineno or statement.lineno
        self.mutants.append(
            Mutant(
                self._module, function, kind, before, after or described, self._names[key], first, last,
                parent, name, index, replacement,
            )
        )  # fmt: skip


def _described(node: ast.AST, parent: ast.AST, name: str, index: int | None, replacement: ast.AST) -> tuple[str, str]:
    """The code before and after: of the node, or of the expression around it where the node is a mere constant."""
    is_short = isinstance(node, ast.Constant | ast.UnaryOp)
    if is_short and isinstance(parent, ast.expr | ast.stmt | ast.keyword) and not isinstance(parent, _COMPOUND):
        before = ast.unparse(parent)
        if len(before) <= _CONTEXT_CHARS_MAX and "\n" not in before:
            original = _replace(parent, name, index, replacement)
            after = ast.unparse(parent)
            _replace(parent, name, index, original)
            return before, after
    return ast.unparse(node), ast.unparse(replacement)


def _replace(parent: ast.AST, name: str, index: int | None, node: ast.AST) -> ast.AST:
    if index is None:
        original: ast.AST = getattr(parent, name)
        setattr(parent, name, node)
        return original
    values: list[ast.AST] = getattr(parent, name)
    original, values[index] = values[index], node
    return original


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_numeric(value: ast.expr) -> bool:
    """A number, or a calculation with nothing but numbers and names."""
    match value:
        case ast.Constant(value=int() | float()):
            return not isinstance(value.value, bool)
        case ast.BinOp(left=left, right=right):
            return all(isinstance(side, ast.Name) or _is_numeric(side) for side in (left, right))
        case ast.UnaryOp(operand=operand):
            return _is_numeric(operand)
        case _:
            return False


def _is_type(value: ast.expr) -> bool:
    """What an alias of a type looks like."""
    match value:
        case ast.Subscript():
            return True
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return all(isinstance(side, ast.Name | ast.Attribute) or _is_type(side) for side in (left, right))
        case ast.Call(func=ast.Name(id=name)):
            return name in _TYPE_CALLS
        case _:
            return False
