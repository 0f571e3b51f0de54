# Two commands matter: `make demo` and `make test`. Both set everything up by themselves.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
UV := $(BIN)/uv
MEMBERS := $(sort $(dir $(wildcard libs/*/pyproject.toml services/*/pyproject.toml operators/*/pyproject.toml))) cli/
NAMES := $(shell sed -n 's/^name = "\(callwarden.*\)"/\1/p' pyproject.toml $(addsuffix pyproject.toml,$(MEMBERS)))
# One worker a core: the integration tests start real servers.
XDIST ?= auto

# Several targets are named like folders.
.PHONY: help setup man demo recording up clean
.PHONY: test test-long test-soak test-waiting test-cockroachdb outages test-cluster test-node test-unit apiserver cluster
.PHONY: check lint types layers layers-graph layers-graph-check proto proto-check crds crds-check fields fields-check
.PHONY: format lock checkov pjsua chart-audit chart-docs sbom sbom-tools docs release bench mutants fuzz

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

setup: $(VENV)/.ready ## Virtual environment with everything, locked by hash

# The system's certificates, as git and curl use them: behind a proxy that inspects TLS, uv's own list fails.
export UV_SYSTEM_CERTS ?= 1

# Each step of the set-up is a line: what, and how long it took.
comma := ,
step = SECONDS=0; printf 'setup: %s …' '$(1)'
took = printf ' %s s\n' $$SECONDS

# The stamp is renewed when a lock file or any member's pyproject.toml changes.
$(VENV)/.ready: requirements/uv.txt requirements/dev.txt pyproject.toml $(addsuffix pyproject.toml,$(MEMBERS))
	@test -x $(BIN)/python || { $(call step,environment in $(VENV) by $(PYTHON)); $(PYTHON) -m venv $(VENV); $(took); }
	@test -x $(UV) || { $(call step,uv$(comma) which installs the rest); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt; $(took); }
	@$(call step,$(shell grep -c == requirements/dev.txt) packages$(comma) locked by hash); \
	  VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --require-hashes -r requirements/uv.txt -r requirements/dev.txt; $(took)
	@$(call step,$(words $(MEMBERS)) packages of this repository); \
	  VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS)); $(took)
	@touch $@

demo: setup ## The main job on real SIP, live in the terminal
	@$(BIN)/callwarden demo

recording: setup ## Runs the demo and renews its picture in the README
	@$(BIN)/callwarden demo --plain --record docs/images/demo.svg

man: setup ## The manual page, build/man/callwarden.1, checked by groff where there is one
	$(BIN)/python cli/man.py build/man/callwarden.1
	@if command -v groff >/dev/null; then test -z "$$(groff -man -ww -z -Tutf8 build/man/callwarden.1 2>&1 | tee /dev/stderr)"; fi

up: setup ## The whole system in the foreground
	@$(BIN)/callwarden up

test: setup ## All tests but the long ones: under 15 minutes on two cores
	$(BIN)/pytest -n $(XDIST) -m "not long"

test-long: test-soak test-waiting test-cockroachdb test-cluster ## The long tests, which make test leaves out

CLUSTER_TESTS := tests/kubernetes tests/chart
NODE_TESTS := tests/cluster
# They wait for most of the time, for an outage to end or a hold to expire: more of them at a time than there are cores.
WAITING_TESTS := $(addprefix tests/integration/,test_outages.py test_clocks.py test_hostile.py)
test-soak: setup ## Long tests: kills, soaks, attacks, mutants, fuzzing
	$(BIN)/pytest -n $(XDIST) -m long $(addprefix --ignore=,$(CLUSTER_TESTS) $(NODE_TESTS) $(WAITING_TESTS))

test-waiting: setup ## Long tests that wait: outages, wrong clocks, hostile far sides (about 12 minutes)
	$(BIN)/pytest -n 5 -m long $(WAITING_TESTS)

# Another server: CALLWARDEN_TEST_DATABASE=cockroachdb+asyncpg://root:…@host:26257/defaultdb make test-cockroachdb
test-cockroachdb: export CALLWARDEN_TEST_DATABASE ?= stand-in
test-cockroachdb: setup ## The tests with a database again, as a client of CockroachDB (about 2 minutes)
	$(BIN)/pytest -n $(XDIST) -m "not long" --with-database libs services

outages: setup ## The table of outages: kills each part under calls, and writes docs/outages.md (about 10 minutes)
	@rm -rf build/outages
	CALLWARDEN_OUTAGES=$(abspath build/outages) $(BIN)/pytest -n 5 -m long tests/integration/test_outages.py
	$(BIN)/python -m tests.integration.outages_report build/outages docs/outages.md

test-cluster: setup apiserver ## Long tests: the operator and the chart on a real API server
	$(BIN)/pytest -n $(XDIST) -m long $(CLUSTER_TESTS)

apiserver: setup ## The API server that the tests with a cluster need; minutes where Go's cache is empty
	$(BIN)/python -m tests.kubernetes.build

test-node: setup cluster ## Long tests: the chart's installation on a real Kubernetes of one node; root
	$(BIN)/pytest -m node $(NODE_TESTS)

cluster: setup ## That node's programs and images, kept in the user's cache; up to an hour the first time
	$(BIN)/python -m tests.cluster.build

test-unit: setup ## Without the tests that start processes
	$(BIN)/pytest -n $(XDIST) -m "not integration and not long"

check: lint types layers layers-graph-check proto-check crds-check fields-check ## Everything that can be said without running it

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy $(addsuffix src,$(MEMBERS)) $(wildcard $(addsuffix tests,$(MEMBERS))) tests benchmarks

layers: setup
	$(BIN)/lint-imports --no-logo

layers-graph: setup ## Renew docs/images/layers.svg from .importlinter and the imports
	$(BIN)/python -m tests.architecture.layers_graph

layers-graph-check: setup
	$(BIN)/python -m tests.architecture.layers_graph --check

format: setup ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Generated code is committed; regenerating must change nothing.
PROTOS := $(shell find proto -name '*.proto' | sort)
proto: setup ## Regenerate libs/api and docs/reference/access.md from proto/
	$(BIN)/python proto/generate.py libs/api/src
	$(BIN)/python libs/common/generate.py

proto-check: setup
	$(BIN)/python proto/generate.py --check libs/api/src
	$(BIN)/python libs/common/generate.py --check

crds: setup ## Regenerate the CRDs and docs/reference/policy-reference.md from libs/policy
	$(BIN)/python libs/policy/generate.py

crds-check: setup
	$(BIN)/python libs/policy/generate.py --check

fields: setup ## Regenerate docs/reference/account-fields.md from libs/kernel
	$(BIN)/python libs/kernel/generate.py

fields-check: setup
	$(BIN)/python libs/kernel/generate.py --check

lock: setup ## Lock dependencies with hashes and without addresses
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/uv.in -o requirements/uv.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" $(addprefix --no-emit-package ,$(NAMES)) \
	  pyproject.toml --group dev -o requirements/dev.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/pjsua.in -o requirements/pjsua.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/checkov.in -o requirements/checkov.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/sbom.in -o requirements/sbom.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/docs.in -o requirements/docs.txt

# Checkov brings two hundred packages of its own: an environment of its own, made when first asked for.
CHECKOV := $(VENV)-checkov
checkov: setup ## The environment that the chart's test by checkov needs
	@test -x $(CHECKOV)/bin/python || $(PYTHON) -m venv $(CHECKOV)
	@VIRTUAL_ENV=$(abspath $(CHECKOV)) $(UV) pip install --quiet --require-hashes -r requirements/checkov.txt

chart-audit: checkov ## checkov over the rendered chart and the Dockerfile
	CALLWARDEN_CHECKOV=$(abspath $(CHECKOV))/bin/checkov $(BIN)/pytest -q tests/chart/test_checkov.py

# No wheel of it for every Python, and nothing of ours needs it but one test.
PJSUA := $(VENV)-pjsua
pjsua: setup ## The environment that the test with a pjsua phone needs
	@test -x $(PJSUA)/bin/python || $(PYTHON) -m venv $(PJSUA)
	@VIRTUAL_ENV=$(abspath $(PJSUA)) $(UV) pip install --quiet --require-hashes --only-binary :all: -r requirements/pjsua.txt

# What looks at an image's packages is none of them.
SBOM := $(VENV)-sbom
IMAGES := $(patsubst %/,%,$(filter services/% operators/% libs/schema/,$(MEMBERS)))
sbom-tools: setup ## The environment that the test of an image's bill of materials needs
	@test -x $(SBOM)/bin/python || $(PYTHON) -m venv $(SBOM)
	@VIRTUAL_ENV=$(abspath $(SBOM)) $(UV) pip install --quiet --require-hashes -r requirements/sbom.txt

sbom: sbom-tools ## CycloneDX bills of materials, one for each image: build/sbom/
	$(SBOM)/bin/python deploy/image/sbom.py build/sbom $(IMAGES)

chart-docs: setup ## The table of values in the chart's README
	$(BIN)/python deploy/helm/values_table.py

# The generator of the documentation ships with nothing: an environment of its own, made when first asked for.
DOCS := $(VENV)-docs
$(DOCS)/.ready: requirements/docs.txt | setup
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	@VIRTUAL_ENV=$(abspath $(DOCS)) $(UV) pip install --quiet --require-hashes -r requirements/docs.txt
	@touch $@

docs: $(DOCS)/.ready ## The documentation as a site: build/docs/index.html; warnings and broken links are errors
	$(DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --write-all -c docs -b html . build/docs

# What a release consists of, but for images. Packages built twice from one commit are the same, byte for byte.
RELEASE := build/release
release: setup sbom ## sdists, wheels, chart, bills of materials and checksums: build/release/
	@rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	@export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); for member in $(MEMBERS); do \
	  VIRTUAL_ENV=$(abspath $(VENV)) $(UV) build --quiet --offline --no-build-isolation $$member --out-dir $(RELEASE); done
	@$$($(BIN)/python -c 'from callwarden.testing.kube_tools import program; print(program("helm"))') \
	  package deploy/helm/callwarden --destination $(RELEASE) > /dev/null
	@cp build/sbom/*.cdx.json $(RELEASE)/ && rm -f $(RELEASE)/.gitignore
	@cd $(RELEASE) && sha256sum -- * > SHA256SUMS && echo "$(RELEASE): $$(wc -l < SHA256SUMS) files, SHA256SUMS"

bench: setup ## SIPp against the running system; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

# CORES="rating rate-guard": these only; SAMPLE=50: that many mutants of each, AGAIN=1: those that survived
# the last full run, MODULE="core.deck*": those of such modules. With any, docs/mutants.md stays as it is, but for
# SAMPLE's RECORD=1.
mutants: setup ## Plant faults in the cores; the unit tests must notice. Writes docs/mutants.md
	$(BIN)/python -m tests.mutation $(CORES) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(AGAIN),--again) $(MODULE:%=--module '%') $(if $(RECORD),--record) $(if $(JOBS),--jobs $(JOBS))

fuzz: setup ## The parser under atheris; FUZZ_SECONDS=600 for the long run
	$(BIN)/python libs/sip/fuzz/fuzz_message.py -max_total_time=$${FUZZ_SECONDS:-60}

clean: ## Remove the environment and all caches
	rm -rf $(VENV) $(CHECKOV) $(SBOM) $(DOCS) build/sbom build/docs build/release .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
