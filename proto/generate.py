"""Generates the committed code in libs/api from the .proto files beside this script; `--check` compares instead.

The .proto paths are the Python packages (callwarden/api/<service>/v1), so that generated imports need no repair.
"""

import argparse
import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Writes *_pb2.py, *_pb2.pyi, *_pb2_grpc.py and *_pb2_grpc.pyi for every .proto into out."""
    protos = sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.proto"))
    well_known = files("grpc_tools") / "_proto"
    bin_dir = Path(sys.executable).parent
    arguments = [
        "protoc",
        f"-I{HERE}",
        f"-I{well_known}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out={out}",
        f"--mypy_grpc_out={out}",
        *protos,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    for folder in {(out / proto).parent for proto in protos}:
        (folder / "__init__.py").write_text("")
        if not (folder.parent / "__init__.py").exists():
            (folder.parent / "__init__.py").write_text("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where the committed code differs")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    if not options.check:
        generate(options.out)
        return
    with tempfile.TemporaryDirectory() as temporary:
        generate(Path(temporary))
        fresh = {path.relative_to(temporary) for path in Path(temporary).rglob("*_pb2*")}
        committed = {
            path.relative_to(options.out) for path in options.out.rglob("*_pb2*") if path.suffix in (".py", ".pyi")
        }
        differing = fresh ^ committed
        differing |= {
            p for p in fresh & committed if not filecmp.cmp(Path(temporary, p), options.out / p, shallow=False)
        }
        if differing:
            names = ", ".join(str(path) for path in sorted(differing))
            raise SystemExit(f"generated code is out of date, run `make proto`: {names}")


if __name__ == "__main__":
    main()
