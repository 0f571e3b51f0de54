"""What is mutated, and by which tests it is judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


# Fixtures of callwarden.testing that start a server: a fork for each mutant would start another one.
SERVERS: Final = ("callwarden_servers", "nats_server", "local_system")


@dataclass(frozen=True, slots=True)
class Core:
    """Modules of one service that decide something, and the tests that must notice a fault in them."""

    name: str
    package: str
    """Folder of the service's package, from the root of the repository."""
    parts: tuple[str, ...]
    """Folders and modules in the package that are mutated, as patterns."""
    tests: str
    """Folder of its tests; those that start processes or servers are left out."""

    def modules(self) -> dict[str, Path]:
        """Import name and file of each module, in order."""
        package = ROOT / self.package
        files = sorted({file for part in self.parts for file in package.glob(part)})
        prefix = "callwarden." + package.name
        return {
            ".".join((prefix, *file.relative_to(package).with_suffix("").parts)).removesuffix(".__init__"): file
            for file in files
        }


_CORES: Final = (
    Core("rating", "services/rating/src/callwarden/rating", ("core/*.py",), "services/rating/tests"),
    Core("rate-guard", "services/rate-guard/src/callwarden/rate_guard", ("core/*.py",), "services/rate-guard/tests"),
    Core("edge-proxy", "services/edge-proxy/src/callwarden/edge_proxy", ("core/*.py",), "services/edge-proxy/tests"),
    Core(
        "call-admission",
        "services/call-admission/src/callwarden/call_admission",
        ("model/**/*.py", "*/core/**/*.py"),
        "services/call-admission/tests",
    ),
)
CORES: Final[Mapping[str, Core]] = {core.name: core for core in _CORES}
