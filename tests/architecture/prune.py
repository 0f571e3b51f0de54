"""Drops from remaining.yaml what keeps its rule by now: `python -m tests.architecture.prune`."""

import yaml

from tests.architecture import test_clocks, test_words
from tests.architecture.remaining import LISTS, listed


def prune() -> None:
    text = LISTS.read_text()
    heading = text[: text.index("\n\n") + 2]
    rules = test_clocks.RULES | test_words.RULES
    kept = {rule: sorted(listed(rule) & found()) for rule, found in rules.items()}
    LISTS.write_text(heading + yaml.safe_dump(kept, sort_keys=True, allow_unicode=True, width=120))


if __name__ == "__main__":
    prune()
