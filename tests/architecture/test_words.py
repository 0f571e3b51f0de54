"""One name per thing: a class name means one class, no module is long, words are those of docs/glossary.md."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final

from tests.architecture.remaining import EVERYTHING, ROOT, SOURCES, area, assert_only_listed, files, tree

LINES_MAX: Final = 500

# Names that were used for what has a standard term in docs/glossary.md, and the term.
CLASSES: Final = {
    **dict.fromkeys(["Book", "Books", "SqlBooks"], "AdmissionTransaction, AdmissionStore, SqlAdmissionStore"),
    **dict.fromkeys(["Standing", "Held"], "AccountState, AppliedBundle, AppliedState"),
    **dict.fromkeys(
        ["Facts", "Counted", "Tally", "Use", "Counts"], "TransitionContext, CounterView, LimitUsage, Stats"
    ),
    **dict.fromkeys(["Desk", "AccountDesk", "LimitDesk"], "AccountService, limit_queries"),
    **dict.fromkeys(["Wish", "ImportWish"], "SimulatedCall, ImportRequest"),
    **dict.fromkeys(["News", "Announcer", "Notices"], "EventPublisher, Notifier"),
    **dict.fromkeys(["Others", "Declared"], "ResourceReconciler, ManagedResource"),
    **dict.fromkeys(["Talk", "Setup", "Screen", "Passage"], "ActiveCall, CallSetup, SourceFilter, InDialogRequest"),
    **dict.fromkeys(["Way", "Wanted"], "RoleConnection, Expected"),
    "Seen": "ReferencedAccount",
    "Undecided": "NeedsCounters",
    "Note": "DecisionRecord",
    "Owner": "LimitScope",
    "Site": "ProxyIdentity",  # of the edge; elsewhere it is the place where something runs
    "Part": "FieldGroup, CteClause, Slice",
}
FUNCTIONS: Final = {
    **dict.fromkeys(["tell", "told", "to_tell", "say"], "notify, notified, pending, publish"),
    **dict.fromkeys(["take_back", "let_go"], "retract, release"),
    "looked": "referenced",
    "lacks": "missing_counters",
    "doubtful": "must_revalidate",
    "pardon": "unban",
    "furnish": "seed",
    "chance": "random_bytes",
}
MODULES: Final = {
    **dict.fromkeys(["desk", "account_desk", "limit_desk"], "account_service, limit_queries"),
    **dict.fromkeys(["book", "books_sql"], "transaction, store_sql"),
    **dict.fromkeys(["news", "others", "standing", "talk", "screen", "passage"], "as the classes"),
    **dict.fromkeys(["sql_errands", "errands"], "statement_coverage"),
    **dict.fromkeys(["test_pardon", "test_admission_told", "test_edge_doors", "test_edge_talk"], "what is tested"),
}


def classes(path: Path) -> list[str]:
    return [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]


def ambiguous() -> set[str]:
    """Names of more than one class, each with the areas that have one."""
    where: dict[str, list[Path]] = defaultdict(list)
    for path in files(*SOURCES):
        for name in classes(path):
            where[name].append(path)
    return {f"{name} in {area(path)}" for name, paths in where.items() if len(paths) > 1 for path in paths}


def long() -> set[str]:
    return {
        str(path.relative_to(ROOT)) for path in files(*EVERYTHING) if len(path.read_text().splitlines()) > LINES_MAX
    }


def private_dialect() -> set[str]:
    """Classes, functions and modules by a word that docs/glossary.md replaces."""
    found = set()
    for path in files(*EVERYTHING):
        where = area(path)
        if path.stem in MODULES or path.stem.endswith(("_doors", "_habits", "_places", "_told")):
            found.add(f"module {path.stem} in {where}")
        for node in ast.walk(tree(path)):
            elsewhere = isinstance(node, ast.ClassDef) and node.name == "Site" and where != "services/edge-proxy"
            if isinstance(node, ast.ClassDef) and node.name in CLASSES and not elsewhere:
                found.add(f"class {node.name} in {where}")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.lstrip("_") in FUNCTIONS:
                found.add(f"def {node.name} in {where}")
    return found


RULES: Final = {"one_class": ambiguous, "lines": long, "words": private_dialect}


def test_a_class_name_means_one_class() -> None:
    assert_only_listed("one_class", ambiguous())


def test_no_module_is_longer_than_500_lines() -> None:
    assert_only_listed("lines", long())


def test_things_are_named_by_the_words_of_the_glossary() -> None:
    assert_only_listed("words", private_dialect())
