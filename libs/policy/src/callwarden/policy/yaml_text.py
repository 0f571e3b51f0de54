"""YAML that people or strangers wrote, read within bounds: depth, aliases, long numbers, and keys that are there twice.

In: text to values, or to nodes that know their lines. Out: what the values mean (bundle, resources, the CLI's audit).
"""

from collections.abc import Iterator
from typing import Any, Final

import yaml

DEPTH_MAX: Final = 64  # A CRD of Kubernetes is some 30 deep, a policy 5. Reading is quadratic in it, and recursive.
_NUMBER_CHARS_MAX: Final = 64  # 64-bit numbers have 20; "1:1:1:…" (YAML 1.1, base 60) is quadratic to read.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where the wheel has it: ten times as fast
_OPENS: Final = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class NotYaml(Exception):
    """The text can't be read. `line` counts from 1; 0 where it isn't known."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def documents(text: str) -> Iterator[tuple[yaml.Node, Any]]:
    """The node and the value of each document that isn't empty. Raises NotYaml, in a time that grows with the text."""
    try:
        _check_tokens(text)
        loader = _LOADER(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if node is not None:
                    _check_node(node)
                    value = loader.construct_document(node)
                    if value is not None:
                        yield node, value
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise NotYaml("is not YAML", 0 if mark is None else mark.line + 1) from error


def _check_tokens(text: str) -> None:
    """Before anything is built: the scanner hands out tokens one by one."""
    depth = 0
    for token in yaml.scan(text, Loader=_LOADER):
        if isinstance(token, yaml.AliasToken):
            # Anchors can make a small text expand without bound, and no policy or renderer needs them.
            raise NotYaml("YAML aliases are not supported", token.start_mark.line + 1)
        if isinstance(token, _OPENS):
            depth += 1
            if depth > DEPTH_MAX:
                raise NotYaml(f"is nested more than {DEPTH_MAX} deep", token.start_mark.line + 1)
        elif isinstance(token, _CLOSES):
            depth -= 1


def _check_node(node: yaml.Node) -> None:
    """A key that is there twice: the later value would win without a word. Bounded: the depth was checked."""
    match node:
        case yaml.ScalarNode() if node.tag in _NUMBERS and len(node.value) > _NUMBER_CHARS_MAX:
            raise NotYaml(f"a number has more than {_NUMBER_CHARS_MAX} characters", node.start_mark.line + 1)
        case yaml.MappingNode():
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        raise NotYaml(f"the key {key.value[:64]!r} is there twice", key.start_mark.line + 1)
                    seen.add(key.value)
                _check_node(key)
                _check_node(value)
        case yaml.SequenceNode():
            for item in node.value:
                _check_node(item)
