# `make` alone lists the commands. Everything runs in .venv; nothing is installed outside this folder.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help scm run ui test soak quick lint type format sync clean

VENV := .venv
READY := $(VENV)/.installed
# Stages call `python`: it must be the one of .venv. `make run PORT=…`, `PYTHON=…` and `DAGSTER_HOME=…` override.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export DAGSTER_HOME ?= $(CURDIR)/.dagster
export PYTHONUNBUFFERED := 1
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export DVC_NO_ANALYTICS := 1
PORT ?= 3000
# Reports are served beside the UI, so that links in it open; see dagster_project/dagster_dvc/file_server.py.
FILES_PORT ?= $(shell expr $(PORT) + 1)
export DVC_FILES_URL ?= http://127.0.0.1:$(FILES_PORT)
PYTHON ?= $(shell for p in python3.11 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && command -v $$p && break; done)

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "make %-8s %s\n", $$1, $$2}'

run: $(READY) scm ## run what changed of the pipeline, then show the results
	@python -m dagster_project.dagster_dvc repro
	@bert-ops summary
	@$(MAKE) --no-print-directory sync

sync: $(READY) $(DAGSTER_HOME)/dagster.yaml ## tell Dagster what ran outside of it
	@if [ -f dvc.lock ] && ! cmp -s dvc.lock $(DAGSTER_HOME)/synced.lock; then \
	  cp dvc.lock $(DAGSTER_HOME)/synced.tmp; python -m dagster_project.dagster_dvc sync; \
	  mv $(DAGSTER_HOME)/synced.tmp $(DAGSTER_HOME)/synced.lock; fi

ui: $(READY) scm $(DAGSTER_HOME)/dagster.yaml ## start the Dagster UI on http://127.0.0.1:3000 (PORT=… for another port)
	@echo "The UI opens on http://127.0.0.1:$(PORT) in some seconds; Ctrl-C ends it."
	@python -m dagster_project.dagster_dvc serve --port $(FILES_PORT) & trap "kill $$!" EXIT; \
	  dg dev --no-check-yaml --host 127.0.0.1 --port $(PORT)

test: lint type ## lint, types, import directions, all tests
	@python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder

soak: $(READY) ## the long campaigns: random steps held against dvc status, kills, bad files (hours)
	@BRIDGE_TRUTH_SEEDS=1,2,3,4,5 BRIDGE_TRUTH_STEPS=1000 BRIDGE_KILLS=300 FUZZ_FILES=2000 TRAINER_KILLS=300 \
	  COMPILE_BACKEND=inductor python -m pytest -s --durations=0 tests/dagster_dvc/test_truth.py \
	  tests/dagster_dvc/test_kill.py tests/corpus/test_fuzz_sources.py tests/corpus/test_fuzz_ingest.py \
	  tests/training/test_kill_training.py tests/training/test_compile.py

quick: $(READY) ## the fast tests alone
	@python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

lint: $(READY) ## style, formatting, import directions
	@ruff check .
	@ruff format --check .
	@lint-imports

type: $(READY) ## types
	@mypy

format: $(READY) ## mend style and formatting
	@ruff check --fix .
	@ruff format .

clean: ## remove what can be made again (not .venv, not DVC's cache, not your data)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .bert_ops
	find bert_ops dagster_project tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt .ci/install.py
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 is needed and not found; name one: make PYTHON=/path/to/python3.11 …" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: apt-get install python3.11-venv" >&2; exit 1; }
	@[ -x $(VENV)/bin/python ] || { echo "Creating $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
	@$(VENV)/bin/python .ci/install.py sample,dev,s3,deploy
	@touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster_project/dagster.yaml
	@mkdir -p $(DAGSTER_HOME)
	@cp $< $@

# DVC wants a Git repository. An unpacked archive is none: say so to DVC, on this machine only.
scm:
	@if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then \
	  [ -f .dvc/config.local ] || printf '[core]\n    no_scm = true\n' > .dvc/config.local; \
	  echo "Not a Git repository: DVC versions data here, but cannot compare revisions (git init, and delete .dvc/config.local)"; fi
