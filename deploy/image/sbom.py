"""Writes a CycloneDX 1.6 file for each image: sbom.py OUT MEMBER…, run from the root by `make sbom`.

What is listed is what the image's own install step has put into a fresh environment, by name, version and licence. A
licence that isn't known to go with ours, or none at all, ends it with code 1. Out: the base image's own packages.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# May be shipped with Apache-2.0, as they are: what there is. A change that brings another one adds it here.
ALLOWED: Final = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "PSF-2.0", "Python-2.0"}
# In the words of PyPI's classifiers, which CycloneDX doesn't know.
CLASSIFIERS: Final = {"License :: OSI Approved :: Apache Software License": "Apache-2.0"}
# Whose metadata says it in words that nothing understands; as its LICENSE file says.
UNDECLARED: Final = {"protobuf": "BSD-3-Clause"}


class Unlicensed(Exception):
    """A component that mustn't be shipped so. The text names it."""


def describe(member: str, app: Path, *options: str) -> dict[str, Any]:
    """The BOM of the environment in `app`, in which `member` was installed."""
    program = Path(sys.prefix) / "bin" / "cyclonedx-py"
    command: list[str | Path] = [
        program,
        "environment",
        "--output-reproducible",
        f"--pyproject={member}/pyproject.toml",
    ]
    made = subprocess.run([*command, *options, app / "bin" / "python"], check=True, stdout=subprocess.PIPE)  # noqa: S603
    bom: dict[str, Any] = json.loads(made.stdout)
    mend(bom)
    return bom


def mend(bom: dict[str, Any]) -> None:
    """Licences as SPDX names them, and no folder of the machine that made it. Unlicensed if one isn't ALLOWED."""
    for component in bom["components"]:
        licences = [{"license": {"id": UNDECLARED[component["name"]]}}] if component["name"] in UNDECLARED else []
        for each in component.get("licenses", ()):
            known = CLASSIFIERS.get(each.get("license", {}).get("name", ""))
            licences.append({"license": {"id": known}} if known else each)
        names = {name for each in licences for name in identifiers(each)}
        if not names or names - ALLOWED:
            raise Unlicensed(f"{component['name']} {component['version']}: {sorted(names) or 'no licence'}")
        component["licenses"] = licences
        links = component.pop("externalReferences", [])
        if kept := [link for link in links if not link["url"].startswith("file:")]:
            component["externalReferences"] = kept


def identifiers(licence: Mapping[str, Any]) -> set[str]:
    """The SPDX names in one entry of `licenses`; of an expression all, whatever stands between them."""
    if "expression" in licence:
        return set(re.findall(r"[\w.+-]+", licence["expression"])) - {"AND", "OR", "WITH"}
    return {str(licence["license"].get("id") or licence["license"].get("name"))}


def main(out: Path, members: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for member in members:
        with tempfile.TemporaryDirectory() as folder:
            app = Path(folder) / "app"
            subprocess.run(["/bin/sh", "deploy/image/install.sh", member, app], check=True)  # noqa: S603
            try:
                bom = describe(member, app)
            except Unlicensed as error:
                sys.exit(f"{member}: {error}")
        file = out / f"{Path(member).name}.cdx.json"
        file.write_text(json.dumps(bom, indent=2) + "\n")
        sys.stdout.write(f"{file}: {len(bom['components'])} components\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
