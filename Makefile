# Every target makes the environment that it needs. PYTHON=python3.13 make setup chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
DOCS_STAMP := $(VENV)/.made-docs

.DEFAULT_GOAL := help
.PHONY: help setup run test test-slow bench lint docs

help:
	@echo "make setup   the environment in $(VENV), exact versions with hashes"
	@echo "make run     the main job: scans to report, on data inside the installation"
	@echo "make test    style, types, import rule and tests"
	@echo "make test-slow   the long tests that make test leaves out"
	@echo "make bench   the benchmarks, one verdict line a target"
	@echo "make lint    style and types alone (make lint FIX=1 mends style)"
	@echo "make docs    the documentation in site/"

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] < (3, 14); \
	sys.exit(0 if ok else "required: Python 3.11, 3.12 or 3.13\nreceived: %s is %d.%d\ntry:      make setup PYTHON=python3.13" \
	% (sys.executable, *sys.version_info[:2]))'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "required: the venv module (on Debian: apt install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP)
	$(BIN)/tumortwin twin cancer=glioma patient=atlas_glioma

lint: $(STAMP)
ifdef FIX
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
endif
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

bench: $(STAMP)
	$(BIN)/tumortwin reproduce benchmarks

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	@touch $@

docs: $(DOCS_STAMP)
	$(BIN)/mkdocs build --strict --config-file - < docs/mkdocs.yml
