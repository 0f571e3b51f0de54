"""docs/howto/operations.md against what it speaks of: commands, figures, metrics, alerts, values, files."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from callwarden.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "howto/operations.md").read_text()
CHART = ROOT / "deploy" / "helm" / "callwarden"


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


# ------------------------------------------------------------------ commands


def commands() -> Iterator[list[str]]:
    """Every `callwarden …` that the page tells somebody to type, as words; `kubectl callwarden` is the same."""
    joined = TEXT.replace("\\\n", " ")
    for code in [
        *re.findall(r"`([^`\n]+)`", joined),
        *re.findall(r"^```sh\n(.*?)^```", joined, re.DOTALL | re.MULTILINE),
    ]:
        for part in re.split(r"[\n|&;]+", code):
            words = shlex.split(part, comments=True)
            if words[:2] == ["kubectl", "callwarden"]:
                words = words[1:]
            if words[:1] == ["callwarden"] and len(words) > 1 and words[1] != "…":
                yield words[1:]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_and_option_exists(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and getattr(command, "commands", None):
        assert rest[0] in command.commands, f"callwarden {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"} <= known


# ------------------------------------------------------------------ figures


def test_the_figures_of_sizing_are_those_of_the_benchmarks() -> None:
    tables = {
        table["title"]: table for table in json.loads((ROOT / "docs/benchmarks.json").read_text())["calls"]["tables"]
    }
    measured = tables["CPU per call and peak memory of each process"]
    at_250, memory = (
        next(index for index, name in enumerate(measured["columns"]) if text in name) for text in ("250/s", "MiB")
    )
    by_process = {row[0].removesuffix("-0"): row for row in measured["rows"]}
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in section("Sizing").splitlines()
        if line.startswith("| ")
    ]
    told = [row for row in rows if row[0] in by_process]
    assert len(told) == 7
    for process, cost_us, calls_per_s, memory_mib, _ in told:
        row = by_process[process]
        assert float(cost_us.replace(",", "")) == pytest.approx(float(str(row[at_250]).replace(",", "")), abs=0.5), (
            process
        )
        assert float(memory_mib.replace(",", "")) == pytest.approx(
            float(str(row[memory]).replace(",", "")), rel=0.01
        ), process
        assert float(calls_per_s.replace(",", "")) == pytest.approx(
            600_000 / float(cost_us.replace(",", "")), rel=0.02
        ), process


def test_every_metric_exists() -> None:
    sources = "".join(path.read_text() for path in ROOT.glob("*/*/src/**/*.py"))
    named = set(re.findall(r"`(callwarden_[a-z_]+)`", TEXT))
    assert named
    assert [name for name in named if f'"{name}"' not in sources] == []


# ------------------------------------------------------------------ files and values


needs_chart = pytest.mark.skipif(not (CHART / "values.yaml").exists(), reason="needs the chart: deploy/helm/callwarden")


@needs_chart
def test_every_file_that_the_page_names_is_there() -> None:
    paths = set(re.findall(r"\b(?:deploy|docs)/[A-Za-z0-9_./-]+[A-Za-z0-9]", TEXT))
    assert [path for path in paths if not (ROOT / path).exists()] == []


@needs_chart
def test_every_value_of_the_chart_that_the_page_names_is_one() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in re.findall(r"`((?:services|nats|edge|tls|backup)\.[A-Za-z.-]+)`", TEXT):
        service = re.fullmatch(r"services\.([a-z-]+)\.(.+)", path)
        below: Any = values["defaults"] if service else values
        assert service is None or service[1] in values["services"], path
        for key in (service[2] if service else path).split("."):
            assert key in below, path
            below = below[key]


@needs_chart
def test_every_alert_has_its_heading_and_no_heading_is_without_one() -> None:
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert re.findall(r"^### ([A-Za-z]+)$", section("What each alert means"), re.MULTILINE) == alerts


@needs_chart
def test_every_alert_is_called_as_bad_as_it_is() -> None:
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    severities = {rule["alert"]: rule["labels"]["severity"] for group in rules["groups"] for rule in group["rules"]}
    told = re.findall(r"^### ([A-Za-z]+)\n\n([A-Za-z]+)\.", section("What each alert means"), re.MULTILINE)
    assert {alert: severity.lower() for alert, severity in told} == severities
