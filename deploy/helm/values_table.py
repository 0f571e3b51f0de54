"""Writes the table of values in the chart's README, from values.yaml and the comments in it (make chart-docs)."""

import json
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "callwarden"
BEGIN, END = "<!-- values: made by make chart-docs -->\n", "<!-- end of values -->\n"


def rows(text: str) -> list[tuple[str, str, str]]:
    """(path, default, comment) of every value with a comment above it."""
    found, path, comment = [], [], []  # type: ignore[var-annotated]
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            comment.append(bare.lstrip("# "))
            continue
        key, colon, _ = bare.partition(":")
        if not colon or bare.startswith("-"):
            comment = []
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        path = [*path[:depth], key]
        if comment:
            value = yaml.safe_load(text)
            for part in path:
                value = value[part]
            default = json.dumps(value, ensure_ascii=False)
            found.append((".".join(path), default if len(default) <= 60 else "see values.yaml", " ".join(comment)))
        comment = []
    return found


def readme(text: str, values: str) -> str:
    """The README with its table as it must be."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    lines = ["| value | default | what |", "| --- | --- | --- |"]
    escaped = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows(values)]
    lines += [f"| `{path}` | `{default}` | {what} |" for path, default, what in escaped]
    return head + BEGIN + "\n".join(lines) + "\n" + END + tail


if __name__ == "__main__":
    file = CHART / "README.md"
    file.write_text(readme(file.read_text(), (CHART / "values.yaml").read_text()))
    sys.exit(0)
