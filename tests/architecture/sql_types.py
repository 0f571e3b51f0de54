"""Types in a statement that CockroachDB doesn't mix, or can't guess: part of portable_sql."""

from functools import lru_cache
from typing import Final

from sqlalchemy.dialects import postgresql
from sqlglot import exp

from callwarden.schema.tables import metadata

POSTGRESQL: Final = postgresql.dialect()  # type: ignore[no-untyped-call]


def sums_without_a_cast(tree: exp.Expr) -> bool:
    """Both databases make the sum of integers a decimal; only a cast makes it what it is taken for."""
    for node in tree.find_all(exp.Sum, exp.Avg):
        around = node.parent
        while isinstance(around, exp.Paren | exp.Filter):
            around = around.parent
        if not isinstance(around, exp.Cast):
            return True
    return False


_FAMILIES: Final = {
    "integer": {"INT", "INTEGER", "BIGINT", "SMALLINT"},
    "decimal": {"DECIMAL", "NUMERIC"},
    "float": {"DOUBLE", "FLOAT"},
    "text": {"TEXT", "VARCHAR", "CHAR"},
    "bytes": {"VARBINARY", "BINARY", "BYTEA"},
    "time": {"TIMESTAMPTZ", "TIMESTAMP"},
}


def _family_of_type(name: str) -> str:
    return next((family for family, names in _FAMILIES.items() if name in names), name.lower())


@lru_cache(1)
def _columns() -> dict[str, str]:
    """The family of each column's type in our schema, where all columns of that name have the same."""
    found: dict[str, set[str]] = {}
    for table in metadata.tables.values():
        for column in table.columns:
            family = _family_of_type(column.type.compile(dialect=POSTGRESQL).split()[0])
            found.setdefault(column.name, set()).add(family)
    return {name: families.pop() for name, families in found.items() if len(families) == 1}


def _family(node: exp.Expr) -> str:
    """Of an operand's type, as far as it tells; "" for what fits itself in: a parameter, NULL, a whole number."""
    node = node.unnest()
    if isinstance(node, exp.Cast):
        return _family_of_type(node.to.this.name)
    if isinstance(node, exp.Column):
        return _columns().get(node.name, "")
    if isinstance(node, exp.Literal):
        # A whole number stands for a decimal, too; text in quotes for nearly all.
        return "" if node.is_string or node.is_int else "decimal"
    if isinstance(node, exp.Count):
        return "integer"
    if isinstance(node, exp.Sum | exp.Avg):
        return "decimal"
    if isinstance(node, exp.Add | exp.Sub | exp.Mul):
        families = {_family(node.this), _family(node.expression)} - {""}
        return families.pop() if len(families) == 1 else ""
    return ""


def mixes_types(tree: exp.Expr) -> bool:
    for node in tree.find_all(exp.Coalesce, exp.Greatest, exp.Least, exp.Case):
        if isinstance(node, exp.Case):
            branches = [branch.args["true"] for branch in node.args["ifs"]]
            operands = [*branches, *filter(None, [node.args.get("default")])]
        else:
            operands = [node.this, *node.expressions]
        if len({_family(operand) for operand in operands} - {""}) > 1:
            return True
    return False


def leaves_an_array_without_a_type(tree: exp.Expr) -> bool:
    """A parameter in ANY, ALL or unnest."""
    for node in tree.find_all(exp.Any, exp.Unnest, exp.Anonymous):
        if isinstance(node, exp.Anonymous) and node.name.upper() not in ("ALL", "SOME"):
            continue
        operands = [node.this] if isinstance(node, exp.Any) else node.expressions
        if any(isinstance(operand.unnest(), exp.Parameter | exp.Placeholder) for operand in operands):
            return True
    return False
