"""The picture of the layers shows every member, and falls behind as soon as an import changes it."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.architecture import import_graph, layers_graph


def shown(text: str) -> list[str]:
    return ["".join(one.itertext()) for one in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]


def test_every_member_and_every_layer_has_a_box() -> None:
    words = shown(layers_graph.draw())
    members = {name.removeprefix("callwarden.").replace("_", "-") for name in import_graph.roots()}
    assert members - set(words) == {"security-policy-operator"}  # in its box as security-policy
    assert {"security-policy", "ports", "core", "admission", "adapters > app > attempts > ports > core"} <= set(words)


def test_an_import_of_another_member_changes_the_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picture = tmp_path / "layers.svg"
    layers_graph.main([], picture)
    assert layers_graph.main(["--check"], picture) == 0
    before = layers_graph.imports()
    graph = import_graph.graph()
    with import_graph.planted(graph, "callwarden.rating.core", "callwarden.sip"):
        monkeypatch.setattr(import_graph, "graph", lambda: graph)
        assert layers_graph.imports()["callwarden.rating"] == sorted([*before["callwarden.rating"], "callwarden.sip"])
        assert layers_graph.main(["--check"], picture) == 1
