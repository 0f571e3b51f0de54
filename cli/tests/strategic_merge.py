"""What `kubectl patch --type strategic` does to the objects that an audit names, as far as its lines use it; the real
kubectl is held against it (test_audit_cluster)."""

from typing import Any

# Lists whose items are told apart by a key; all others are replaced.
_KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}


def merge(value: Any, patch: Any, name: str = "") -> Any:
    if isinstance(value, dict) and isinstance(patch, dict):
        changed = {key: merge(value.get(key), below, key) for key, below in patch.items() if below is not None}
        return {key: below for key, below in value.items() if key not in patch} | changed
    if isinstance(value, list) and isinstance(patch, list) and name in _KEYS:
        key = _KEYS[name]
        changes = {item[key]: item for item in patch}
        kept = [merge(item, changes.pop(item[key])) if item[key] in changes else item for item in value]
        return [*kept, *changes.values()]
    if isinstance(patch, dict):
        return {key: merge(None, below, key) for key, below in patch.items() if below is not None}
    return patch
