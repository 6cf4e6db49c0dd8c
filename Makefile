# Everything a newcomer needs: `make demo` and `make test` set up what they use themselves.
# `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

UV_COMPILE = $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: chart-readme images sbom release-dry-run help venv demo demo-down cluster cluster-down test e2e bench lint types contracts check format lock clean
MAKEFLAGS += --no-print-directory

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## Create the virtual environment from the hashed lock

# The stamp holds off a reinstall until the lock or the metadata changes.
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "shadowfault needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "==> virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "==> dependencies from requirements/dev.txt (hash-checked; about a minute the first time)"
	@$(BIN)/pip install --disable-pip-version-check --progress-bar off --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## Run the main job end to end on a local cluster (KEEP=1 leaves it running)
	@$(BIN)/shadowfault demo run $(if $(filter-out 0 no false,$(KEEP)),--keep)

demo-down: $(STAMP) ## End what `make demo KEEP=1` left running
	@$(BIN)/shadowfault demo down

cluster: $(STAMP) ## Start a local cluster named dev
	@$(BIN)/shadowfault cluster up

cluster-down: $(STAMP) ## Stop the local cluster named dev
	@$(BIN)/shadowfault cluster down

# Each has a control plane and a PostgreSQL of its own; much of the time it waits for them.
WORKERS ?= 2

test: $(STAMP) ## Unit, API, PostgreSQL and cluster tests (ARGS="-k name" narrows, WORKERS=0 is one after the other)
	@$(BIN)/python -m shadowfault_cluster.controlplane_build
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

e2e: $(STAMP) ## Everything a user is promised, on a kind cluster of its own (needs Docker, kind, kubectl, helm)
	@$(BIN)/pytest tests/e2e --timeout 900 $(ARGS)

VERSION  = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE   ?= shadowfault:$(VERSION)

images: ## Build the image, one for every part (IMAGE=name:tag names it otherwise), and say how large it is
	@docker build --tag $(IMAGE) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .
	@docker image inspect --format '{{.Size}}' $(IMAGE) | awk '{printf "$(IMAGE): %.0f MB\n", $$1 / 1e6}'

sbom: $(STAMP) ## Bill of materials (CycloneDX) and licences of what the image holds, into dist/
	@$(BIN)/python -m shadowfault_packaging.supply dist

release-dry-run: images sbom ## Everything a release makes, into dist/; nothing is pushed (needs Docker and helm)
	@$(BIN)/python -m shadowfault_packaging.release dist

bench: $(STAMP) ## Speed as ratios, side by side in one run (BENCH="injector" narrows, ARGS="--scale 0.1" shrinks)
	@$(BIN)/python -m shadowfault_bench $(ARGS) $(BENCH)

lint: $(STAMP) ## Style and common mistakes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## Strict types
	@$(BIN)/mypy

contracts: $(STAMP) ## Which package may import which
	@$(BIN)/lint-imports

chart-readme: $(STAMP) ## Write the chart's README, the dashboards and the generated pages of docs/ anew
	@$(BIN)/python -m shadowfault_packaging.chart_readme
	@$(BIN)/python -m shadowfault_packaging.dashboards
	@$(BIN)/python -m shadowfault_packaging.endings
	@$(BIN)/python -m shadowfault_packaging.metrics
	@$(BIN)/python -m shadowfault_packaging.settings

check: lint types contracts test ## All of what CI runs, but the demo

format: $(STAMP) ## Apply the formatter and the safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(STAMP) ## Write requirements/*.txt anew from pyproject.toml
	@$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet 'uv>=0.8,<1'
	@$(UV_COMPILE) --extra dev pyproject.toml --output-file requirements/dev.txt
	@$(UV_COMPILE) --constraint requirements/dev.txt --extra operator --extra api --extra tracing pyproject.toml \
	  --output-file requirements/runtime.txt
	@echo 'hatchling>=1.27' | $(UV_COMPILE) --constraint requirements/dev.txt - --output-file requirements/build.txt
	@$(UV_COMPILE) requirements/bench.in --output-file requirements/bench.txt

clean: ## Remove the virtual environments and tool caches (not the cached control plane)
	@rm -rf $(VENV) .venv-bench dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
