"""Trunk and RateDeck resources: what each asks for, and which of two that are called alike counts.

In: what a schema can't check, names that are the system's and not a namespace's, the CSV in a ConfigMap. Out: asking
call-admission and rating (adapters/trunks, adapters/decks).
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from callwarden.policy.resources import RateDeckSpec
from callwarden.security_policy_operator.core.declared import Refusal, S, spec_of
from callwarden.security_policy_operator.core.plan import Source

CSV_BYTES_MAX: Final = 3 * 1024 * 1024
"""What one message to rating carries. A ConfigMap has at most 1 MiB."""
ERRORS_MAX: Final = 32  # as the schema has it
_ERROR_CHARS_MAX: Final = 512


def decide(sources: Iterable[Source], kind: type[S]) -> list[tuple[Source, S | Refusal]]:
    """What each resource of one kind that isn't being deleted asks for, or why it gets nothing; older ones first."""
    found: list[tuple[Source, S | Refusal]] = []
    taken: dict[str, Source] = {}
    for source in sorted((one for one in sources if not one.is_leaving), key=lambda one: one.age):
        key = source.key
        # Also a wrong one keeps its name: it may be a good one's bad edit.
        if (other := taken.setdefault(key.name, source)) is not source:
            message = f"metadata.name is taken by the older {key.kind} {other.key.namespace}/{key.name}."
            found.append((source, Refusal("Conflict", message)))
        else:
            found.append((source, spec_of(source, kind)))
    return found


def csv_of(config_map: Mapping[str, Any], key: str) -> bytes | Refusal:
    """A file of a ConfigMap."""
    where = f"spec.configMap.key: ConfigMap {config_map.get('metadata', {}).get('name', '')}"
    data, binary = config_map.get("data") or {}, config_map.get("binaryData") or {}
    if key in data:
        content = str(data[key]).encode()
    elif key in binary:
        try:
            content = base64.b64decode(str(binary[key]), validate=True)
        except binascii.Error:
            return Refusal("NoFile", f"{where}: {key} is no base64.")
    else:
        return Refusal("NoFile", f"{where} has no file {key}.")
    if len(content) > CSV_BYTES_MAX:
        return Refusal(
            "TooLarge", f"{where}: {key} has more than {CSV_BYTES_MAX} bytes: use `callwarden rates import`."
        )
    return content


def digest_of(name: str, spec: RateDeckSpec, content: bytes) -> str:
    """SHA-256 in hex of all that an import depends on. Where the CSV is kept is none of it."""
    head = spec.model_dump(mode="json", by_alias=True, exclude={"config_map"})
    found = hashlib.sha256(json.dumps([name, head], sort_keys=True).encode())
    found.update(b"\0" + content)
    return found.hexdigest()


def shown(errors: Iterable[tuple[int, str, str]]) -> list[str]:
    """Wrong lines (number, column, reason) as the status has them: the first few, each of bounded length."""
    texts = [f"line {line}: {field}: {reason}" for line, field, reason in errors]
    return [text[:_ERROR_CHARS_MAX] for text in texts[:ERRORS_MAX]]
