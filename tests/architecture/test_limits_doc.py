"""docs/reference/limits.md speaks of the rules that there are, in their order, with the answers that callers get."""

import re
from pathlib import Path

from callwarden.call_admission.admission.core.rules import RULES
from callwarden.edge_proxy.core.statuses import ANSWERS
from callwarden.kernel.verdict import Reason

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "reference/limits.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \|.*\| `([\w-]+)` \| (\d{3}) \|$", re.MULTILINE)


def test_every_rule_has_its_row_in_the_order_in_which_calls_meet_them() -> None:
    assert [row[0] for row in ROW.findall(TEXT)] == [rule.name for rule in RULES]


def test_each_rows_status_is_what_a_caller_is_answered() -> None:
    for rule, reason, status in ROW.findall(TEXT):
        assert ANSWERS[Reason(reason)].status == int(status), rule


def test_what_is_counted_says_so_of_every_rule_that_counts() -> None:
    counted = TEXT[TEXT.index("## What is counted") : TEXT.index("## What the levels")]
    own = {rule.name for rule in RULES if type(rule).uses is not _default_uses()}
    assert own - set(re.findall(r"`(\w+)`", counted)) == set()


def _default_uses() -> object:
    return next(type(rule).uses for rule in RULES if rule.name == "account")
