"""Builds what a node needs, once: `make cluster`. Kubernetes, containerd and a pause program from Go modules, the
product's images by buildah from the repository's own Dockerfile.

The cache is the user's, not the checkout's: what is in it is named by the digest of what it was made from, and the
programs alone take 20 to 50 minutes on two cores where Go's cache is empty.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = Path(__file__).resolve().parent / "programs"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "callwarden" / "cluster"
BUILD_TIMEOUT_S: Final = 5_400
# What isn't built but comes with the system, and the Debian package that has it.
PACKAGES: Final = {
    "runc": "runc",
    "etcd": "etcd-server",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
}
CNI: Final = Path("/usr/lib/cni")


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module of ours, and the programs that are built in it."""

    folder: str
    programs: tuple[tuple[str, str], ...]
    """Name and package of each."""
    tags: str = ""
    version_of: tuple[str, str] = ("", "")
    """A required module whose version the programs have to tell, and the variable that they tell it from."""

    def digest(self) -> str:
        """Of its sources and how it is built, 16 digits."""
        content = [file.read_bytes() for file in sorted((SOURCES / self.folder).iterdir()) if file.is_file()]
        return hashlib.sha256(b"\0".join([" ".join(self.options()).encode(), *content])).hexdigest()[:16]

    def options(self) -> list[str]:
        """Of `go build`."""
        required, variable = self.version_of
        told = ""
        if required:
            (version,) = re.findall(rf"^\t{re.escape(required)} (\S+)$", self.manifest, re.MULTILINE)
            told = f" -X {variable}={version}"
        tags = [f"-tags={self.tags}"] if self.tags else []
        return ["-trimpath", "-mod=readonly", f"-ldflags=-s -w{told}", *tags]

    @property
    def manifest(self) -> str:
        return (SOURCES / self.folder / "go.mod").read_text()

    @property
    def target(self) -> Path:
        """The folder in which the programs of the present sources are, or will be."""
        return CACHE / "programs" / f"{self.folder}-{self.digest()}"

    def is_built(self) -> bool:
        return all((self.target / name).exists() for name, _ in self.programs)


_CONTAINERD = "github.com/containerd/containerd/v2/cmd/"
MODULES: Final = (
    Module("pause", (("pause", "."),)),
    Module(
        "containerd",
        tuple((name, _CONTAINERD + name) for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        tags="no_btrfs,no_zfs",
    ),
    # helm and kubectl ask for it, and charts have conditions on it.
    Module(
        "kube",
        (("kube", "."),),
        version_of=("k8s.io/kubernetes", "k8s.io/component-base/version.gitVersion"),
    ),
)


def program(name: str) -> Path:
    """Where one of the built programs is. LookupError if no module has it."""
    for module in MODULES:
        if any(name == each for each, _ in module.programs):
            return module.target / name
    raise LookupError(name)


def lacking() -> str:
    """What this machine lacks to build or to start a node, for the line that says why there is none; empty: nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root"
    wanted = sorted(package for name, package in PACKAGES.items() if shutil.which(name, path=_PATH) is None)
    wanted += [] if (CNI / "bridge").exists() else ["containernetworking-plugins"]
    return f"needs apt-get install {' '.join(wanted)}" if wanted else ""


_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Alone on this machine with what is called so: whoever comes second waits for the first."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_programs() -> None:
    """All programs, unless they are there. CalledProcessError when Go fails."""
    with locked("programs"):
        for module in MODULES:
            if not module.is_built():
                module.target.mkdir(parents=True, exist_ok=True)
                for name, package in module.programs:
                    _go_build(module, package, module.target / name)


def _go_build(module: Module, package: str, made: Path) -> None:
    new = made.with_name(f"{made.name}.new")
    subprocess.run(
        ["go", "build", *module.options(), "-o", new, package],
        cwd=SOURCES / module.folder,
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
        timeout=BUILD_TIMEOUT_S,
    )
    new.rename(made)


def main() -> int:
    from tests.cluster import images

    if reason := lacking():
        sys.stderr.write(f"No cluster is built, and its tests are skipped: {reason}.\n")
        return 0
    if shutil.which("go") is None and not all(module.is_built() for module in MODULES):
        sys.stderr.write("No cluster is built, and its tests are skipped: needs Go 1.26.\n")
        return 0
    build_programs()
    for archive in images.build():
        sys.stdout.write(f"{archive}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
