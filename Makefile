# `make` lists what there is. Every target does its own set-up, which is quick once it is done.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow soak faults bench gpu-queue cover check docs browser avalanche constraints clean

# Python >= 3.11; another one: make PYTHON=/path/to/python setup
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
PIP := -m pip --disable-pip-version-check --quiet --quiet
# Two processes, files in the order of collection (tests/conftest.py says what stays together); skips with their reasons;
# the tests that took longest.
TWO := -n 2 --no-loadscope-reorder -rs --durations 12 --durations-min 20

export RAY_USAGE_STATS_ENABLED := 0
test test-slow soak faults bench cover: export HF_HUB_OFFLINE := 1
test test-slow soak faults bench cover: export OMP_NUM_THREADS ?= 1

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## .venv with everything, at the versions of constraints.txt (a few minutes, once)
	@:

# The stamp comes last: a set-up that failed half-way starts again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python setup' >&2; exit 1; }
	@echo 'Setting up .venv (a few minutes)'
	@rm -f $@
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install --constraint constraints.txt --editable '.[cpu,dev]'
	@docker/drop-broken $(BIN)/python
	@touch $@

demo: $(READY) ## two tasks, without and with replay: what is forgotten (some minutes)
	@$(BIN)/python -m benchmarks.arithmetic.demo

test: $(READY) ## unit tests, one real path, one kill and resume
	@$(BIN)/pytest -m 'not slow and not soak and not faults' $(TWO)

test-slow: $(READY) ## the other tests
	@$(BIN)/pytest -m 'slow and not soak and not faults' $(TWO) tests/local tests/faults tests/e2e tests/unit

soak: $(READY) ## tests that run for long, not part of CI
	@$(BIN)/pytest -m soak

faults: $(READY) ## every fault that is provoked, one after another, and the table in the manual
	@$(BIN)/pytest -m faults -n 2 --dist load -rs tests/faults

bench: $(READY) ## what sampling, streaming, stages and the driver cost, against bare parts (half an hour; nothing should run beside it)
	@$(BIN)/python -m benchmarks.throughput

gpu-queue: $(READY) ## what has to be measured on a GPU (a quarter of an hour of one)
	@$(BIN)/python -m benchmarks.throughput.gpu

cover: $(READY) ## line coverage of the unit tests, with the lines that no test runs
	@$(BIN)/pytest -m 'not slow and not soak and not faults' $(TWO) --quiet --cov=continual --cov=baselines \
	    --cov-report=term-missing:skip-covered tests/unit

check: $(READY) ## lint, format, types, imports, Dockerfile
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo 'make check: run .venv/bin/ruff format .' >&2; exit 1; }
	@$(BIN)/mypy
	@imports=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$imports" >&2; exit 1; }
	@$(BIN)/hadolint docker/Dockerfile

docs: $(READY) ## renew the generated parts of README.md and docs/
	@$(BIN)/python -m docs.generate

avalanche: $(READY) ## Avalanche's metrics, which a test compares the figures with (without it, it skips)
	@test -d .venv/avalanche || $(BIN)/python $(PIP) install --no-deps --target .venv/avalanche avalanche-lib==0.6.0

browser: ## Chromium from Debian's packages, for the tests of pages (as root; without it they skip)
	@command -v chromium chromedriver > /dev/null || { \
	    apt-get -q -o APT::Sandbox::User=root update > /dev/null && DEBIAN_FRONTEND=noninteractive \
	    apt-get -q -o APT::Sandbox::User=root install -y --no-install-recommends chromium chromium-driver > /dev/null; }

constraints: ## constraints.txt anew, from what pip resolves today for the extras cpu and gpu
	@rm -rf .setup && $(PYTHON) -m venv .setup
	@for extra in cpu gpu; do \
	    .setup/bin/python $(PIP) install --dry-run --ignore-installed --report .setup/$$extra.json ".[$$extra,dev]"; \
	done
	@.setup/bin/python docker/constraints.py .setup/cpu.json .setup/gpu.json > .setup/constraints.txt
	@mv .setup/constraints.txt constraints.txt
	@rm -rf .setup

clean: ## remove .venv and all caches; runs stay
	@rm -rf .venv .setup build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
