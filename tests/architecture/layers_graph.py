"""The picture of the layers in docs/images/layers.svg, drawn from .importlinter and the import graph.

Rows and their order are those of the contracts, which `make layers` enforces; what a member imports is what its modules
import. `python -m tests.architecture.layers_graph` writes the picture, `--check` says whether it is up to date.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.architecture import import_graph
from tests.architecture.import_graph import ROOT

PICTURE: Final = ROOT / "docs" / "images" / "layers.svg"
WIDTH: Final = 960
MARGIN: Final = 20
GAP: Final = 8
LINE: Final = 15  # px from one line of text to the next
COMMAND: Final = "make layers-graph"
CAPTION: Final = "Each box imports only from rows below it. The small print lists what it imports."

STYLE: Final = """
    .box { fill: #ffffff; stroke: #52606d; stroke-width: 1.5 }
    .service { fill: #dbeafe; stroke: #1d4ed8; stroke-width: 1.5 }
    .name { font-weight: 600 }
    .small { font-size: 11px; fill: #52606d }
    .head { font-size: 13px; fill: #52606d; text-anchor: start }
    text { text-anchor: middle }
"""


def layers(contract: str) -> list[list[str]]:
    """The rows of a contract of layers, from the top down, each by name."""
    rows: Any = import_graph.contracts()[contract].layers  # type: ignore[attr-defined]
    return [sorted(tail.name for tail in row.module_tails) for row in rows]


def imports() -> dict[str, list[str]]:
    """What the modules of each member import of other members."""
    graph = import_graph.graph()
    found: dict[str, set[str]] = {root: set() for root in import_graph.roots()}
    for module in import_graph.modules():
        for imported in graph.find_modules_directly_imported_by(module):
            if imported.startswith(f"{import_graph.ROOT_PACKAGE}."):
                found[_member(module)].add(_member(imported))
    return {member: sorted(others - {member}) for member, others in found.items()}


def _member(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _label(name: str) -> str:
    """The name of a member as in its folder's, where a box has room for it."""
    return name.removeprefix(f"{import_graph.ROOT_PACKAGE}.").removesuffix("_operator").replace("_", "-")


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    """The words in lines of so many characters."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _box(x: float, y: float, width: float, height: float, kind: str, name: str, text: Sequence[str]) -> Iterator[str]:
    yield f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{kind}"/>'
    middle = x + width / 2
    first = y + (height - LINE * len(text)) / 2 + 4
    yield f'<text x="{middle:g}" y="{first:g}" class="name">{name}</text>'
    for number, line in enumerate(text, start=1):
        yield f'<text x="{middle:g}" y="{first + LINE * number:g}" class="small">{line}</text>'


def _row(boxes: Sequence[tuple[str, Sequence[str]]], top: float, left: float, width: float, kind: str) -> list[str]:
    """Boxes side by side, as high as the fullest."""
    each = (width - GAP * (len(boxes) - 1)) / len(boxes)
    height = _height(boxes)
    return [
        line
        for number, (name, text) in enumerate(boxes)
        for line in _box(left + number * (each + GAP), top, each, height, kind, name, text)
    ]


def _height(boxes: Sequence[tuple[str, Sequence[str]]]) -> float:
    return 28 + LINE * max(len(text) for _, text in boxes)


def draw() -> str:
    parts: list[str] = []
    top = 46.0
    inner = WIDTH - 2 * MARGIN
    imported = imports()
    for row in layers("stack"):
        characters = int((inner / len(row) - GAP) / 6.2)
        boxes = [(_label(name), _wrapped([_label(one) for one in imported[name]], characters)) for name in row]
        boxes = [(name, [] if text == [""] else text) for name, text in boxes]
        parts += _row(boxes, top, MARGIN, inner, "service" if len(row) > 3 else "box")
        top += _height(boxes) + GAP
    top += 30
    half = (inner - 3 * GAP) / 2
    right = MARGIN + half + 3 * GAP
    parts.append(f'<text x="{MARGIN}" y="{top - 10:g}" class="head">Inside a service</text>')
    parts.append(f'<text x="{right:g}" y="{top - 10:g}" class="head">Inside call-admission</text>')
    bottom = top
    for row in layers("service"):
        parts += _row([(name, []) for name in row], bottom, MARGIN, half, "box")
        bottom += _height([("", [])]) + GAP
    capability = [name for row in layers("capability") for name in row]
    layered = set().union(*layers("capabilities")) & {
        str(one).rpartition(".")[2]
        for one in import_graph.contracts()["capability"].containers  # type: ignore[attr-defined]
    }
    height = top
    for row in layers("capabilities"):
        boxes = [(name, capability if len(row) > 1 else [" &gt; ".join(capability)]) for name in row]
        boxes = [(name, text if name in layered else []) for name, text in boxes]
        parts += _row(boxes, height, right, half, "service" if layered & set(row) else "box")
        height += _height(boxes) + GAP
    body = "\n  ".join(parts)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {max(bottom, height) + GAP:g}" role="img"
     aria-labelledby="title description" font-size="13" fill="#1f2933"
     font-family="system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif">
  <!-- Generated by `{COMMAND}` from .importlinter and the imports; do not edit. -->
  <title id="title">The layers of Callwarden</title>
  <desc id="description">Members of the repository in rows; each imports only members of rows below, listed in its box.
    Below, the layers inside a service and inside call-admission, by the same rule.</desc>
  <style>{STYLE}  </style>
  <rect width="{WIDTH}" height="{max(bottom, height) + GAP:g}" rx="10" fill="#ffffff"/>
  <text x="{MARGIN}" y="28" class="head">{CAPTION}</text>
  {body}
</svg>
"""


def main(arguments: Sequence[str], picture: Path = PICTURE) -> int:
    drawn = draw()
    if "--check" in arguments:
        if not picture.exists() or picture.read_text() != drawn:
            sys.stderr.write(f"{picture.name} is out of date: run {COMMAND}\n")
            return 1
        return 0
    picture.write_text(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
