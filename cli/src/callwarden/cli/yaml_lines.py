"""YAML on one line, and the mappings that are made of paths."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml


def line_of_yaml(value: object) -> str:
    """Anything as one line of YAML that can be copied."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, below),) = value.items()
        return f"{line_of_yaml(key)}: {flow(below)}"
    return flow(value)


def flow(value: object) -> str:
    """The same, for within another: a mapping in braces."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")  # A scalar alone is followed by the end of its document.


def nested(path: str, value: Any) -> dict[str, Any]:
    """ "a.b", 1 → {"a": {"b": 1}}"""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Mappings laid over each other, the later one's values winning."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = result.get(key)
            result[key] = merged([below, value]) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return result
