"""Price lists: the CSV in a ConfigMap, what an import depends on, how wrong lines are shown."""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from callwarden.policy.resources import RateDeckSpec
from callwarden.security_policy_operator.core.resource import Refusal

CSV_BYTES_MAX: Final = 3 * 1024 * 1024
"""What one message to rating carries. A ConfigMap has at most 1 MiB."""
ERRORS_MAX: Final = 32  # as the schema has it
_ERROR_CHARS_MAX: Final = 512


class DeckLineError(NamedTuple):
    """A line of a CSV that rating refuses."""

    line: int
    field: str
    reason: str


class DeckImport(NamedTuple):
    """A price list that rating has taken over."""

    version: int
    rates: int


@dataclass(frozen=True, slots=True)
class DeckOutcome:
    """What became of one file on one resource's terms."""

    form: tuple[RateDeckSpec, str]
    """The terms, and the resourceVersion of the ConfigMap."""
    digest: str = ""
    """Of file and terms; empty: there is no file."""
    refusal: Refusal | None = None
    errors: tuple[str, ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)
    """Where it was imported: what the status says of the list in force."""


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
            return Refusal("NoFile", f"{where}: {key} is not valid base64.")
    else:
        return Refusal("NoFile", f"{where} has no file {key}.")
    if len(content) > CSV_BYTES_MAX:
        return Refusal(
            "TooLarge", f"{where}: {key} has more than {CSV_BYTES_MAX} bytes: use `callwarden rates import`."
        )
    return content


def digest_of(name: str, spec: RateDeckSpec, content: bytes) -> str:
    """SHA-256 in hex of all that an import depends on, which where the CSV is kept does not."""
    head = spec.model_dump(mode="json", by_alias=True, exclude={"config_map"})
    found = hashlib.sha256(json.dumps([name, head], sort_keys=True).encode())
    found.update(b"\0" + content)
    return found.hexdigest()


def shown(errors: Iterable[DeckLineError]) -> list[str]:
    """Wrong lines as the status has them: the first few, each of bounded length."""
    texts = [f"line {error.line}: {error.field}: {error.reason}" for error in errors]
    return [text[:_ERROR_CHARS_MAX] for text in texts[:ERRORS_MAX]]
