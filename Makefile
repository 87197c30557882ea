# Every target sets up what it needs in .venv; the second time that takes no time.
# Options go through ARGS: make explore ARGS="--preset standard --out runs/mine"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Named exactly in every command: for a range, pip may prefer a build with gigabytes of CUDA.
TORCH := $(shell grep '^torch==' constraints.txt)
SETUPTOOLS := $(shell grep '^setuptools==' constraints.txt)
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help explore test lint format soak bench release-check clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

explore: $(VENV)/.core ## train a population on digits, run the four protocols, write the page
	$(BIN)/spinscape explore $(ARGS)

test: lint ## linters, types, layers and the fast tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.test ## linters, types and layers only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(VENV)/.test ## all tests, the slow ones included
	$(BIN)/python -m pytest -m "slow or not slow" $(ARGS)

bench: $(VENV)/.bench ## measure against the peers, in one table
	$(BIN)/python -m benchmarks $(ARGS)

release-check: $(VENV)/.core ## build the wheel, install it alone, explore with it
	BIN=$(BIN) TORCH=$(TORCH) bash .ci/release-check

clean: ## remove the environment and what tools left behind
	rm -rf $(VENV) build dist src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "spinscape needs Python 3.11 or newer, and $(PYTHON) is" \
		"$$($(PYTHON) --version 2>&1); try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV): one to three minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) $(SETUPTOOLS)
	$(PIP_INSTALL) --no-build-isolation $(TORCH) -e .
	@touch $@

$(VENV)/.test $(VENV)/.bench: $(VENV)/.%: $(VENV)/.core
	$(PIP_INSTALL) --no-build-isolation $(TORCH) -e '.[$*]'
	@touch $@
