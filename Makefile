# make demo       the whole way once, on real data
# make test       every test that is not slow, in two processes
# make test-fast  the same without notebooks, with fewer random examples, up to the first failure
# make test-slow  the tests that take long
# make notebooks  run the notebooks and keep their outputs
# make docs       the documentation, in docs/_build/html; a warning is an error
# make package    build sdist and wheel, install the wheel, use it
# make lint       style and types
# make clean      remove what the other targets made, the environment included
#
# Each target first brings .venv up to date; a second call installs nothing.
# Another interpreter: make PYTHON=/path/to/python3.12 test

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := test

PYTHON ?= $(shell command -v python3.11 >/dev/null && python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
# The small matrices of the tests gain nothing from threads, and threads change the last bits.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: demo test test-fast test-slow notebooks docs package lint clean

demo: $(STAMP)
	$(BIN)/celldit demo

test: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: $(STAMP)
	$(ONE_THREAD) HYPOTHESIS_PROFILE=fast CELLDIT_FUZZ=50 $(BIN)/python -m pytest -q --exitfirst --failed-first \
	  --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow and not notebook"

test-slow: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow

notebooks: $(STAMP)
	$(ONE_THREAD) $(BIN)/python notebooks/execute.py --write

docs: $(DOCS_STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html."

package: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m slow tests/test_distribution.py

lint: $(STAMP)
	$(BIN)/ruff check celldit tests notebooks/benchmarks
	$(BIN)/ruff format --check celldit tests notebooks/benchmarks
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist docs/_build docs/notebooks *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis demo_output lightning_logs
	find celldit tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: once its pinned build is there, nothing asks for another one, whose
# CUDA packages weigh gigabytes.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "celldit needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1 || true);" \
	    "install one and name it: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[dev]"
	@touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(PIP) --editable ".[docs]"
	@touch $(DOCS_STAMP)
