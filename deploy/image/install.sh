#!/bin/sh
# Installs one member with what it needs into a fresh virtual environment: install.sh MEMBER FOLDER, run from the root of
# the sources. The Dockerfile calls it; `make sbom` and a test do, too. What comes from outside is what requirements/ has
# the hash of, whatever an index serves, and wheels only, which run nothing when they are installed; our own members are
# built by uv itself, without any index.
set -eu
member=$1
app=$2
test -f "$member/pyproject.toml" || { echo "install.sh: $member is no member" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
python3 -m venv --without-pip "$app"
export VIRTUAL_ENV="$app"
uv="$work/tools/bin/uv"

# The member and those of our own that it stands on; then of the lock only what these ask for.
python3 deploy/image/members.py "$member" > "$work/members"
ours=$(sed -n 's/^name //p' "$work/members")
# shellcheck disable=SC2086,SC2046
"$uv" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
  --constraint requirements/dev.txt $(printf -- '--no-emit-package %s ' $ours) "$member/pyproject.toml" > "$work/needed"
python3 deploy/image/locked.py requirements/dev.txt < "$work/needed" > "$work/needs.txt"
# Compiled now, since the root is read-only later: else every start would compile a thousand modules. An image's files may
# get other times, but never another content, so neither is looked at again.
export PYC_INVALIDATION_MODE=UNCHECKED_HASH
"$uv" pip install --quiet --require-hashes --no-deps --no-build --compile-bytecode -r "$work/needs.txt"
# shellcheck disable=SC2046
PATH="$work/tools/bin:$PATH" "$uv" pip install --quiet --no-index --no-deps --compile-bytecode $(sed -n 's/^path //p' "$work/members")
