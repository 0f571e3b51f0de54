"""Writes what is generated from the policy model: the CustomResourceDefinitions and the reference of all fields.
`--check` compares instead. `make crds` runs it.
"""

import argparse
from pathlib import Path

import yaml

from callwarden.policy import crd, reference

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "deploy" / "helm" / "callwarden" / "crds"
REFERENCE = ROOT / "docs" / "reference/policy-reference.md"
NOTE = "# Generated from libs/policy by `make crds`; edit the model, not this file.\n"


def generate() -> dict[Path, str]:
    """Each file's text."""
    files = {
        CRDS / kind.file: NOTE + yaml.safe_dump(crd.definition(kind), sort_keys=False, width=120, allow_unicode=True)
        for kind in crd.KINDS
    }
    files[REFERENCE] = reference.markdown()
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where a committed file differs")
    options = parser.parse_args()
    wanted = generate()
    extra = set(CRDS.glob("*.yaml")) - wanted.keys()
    if options.check:
        differing = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
        if stale := sorted(str(path.relative_to(ROOT)) for path in (*differing, *extra)):
            raise SystemExit(f"out of date, run `make crds`: {', '.join(stale)}")
        return
    CRDS.mkdir(parents=True, exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, "utf-8")
    for path in extra:
        path.unlink()


if __name__ == "__main__":
    main()
