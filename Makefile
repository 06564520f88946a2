# Two commands are all the set-up there is: `make demo` and `make test`.
# Both make .venv when it is missing and install again only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
# PyTorch compiles embedding models; see the README for choosing the CPU or CUDA build.
TORCH ?= torch==2.13.0
# pip itself takes this from the environment: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL ...
WORKERS ?= 2

BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help demo test test-slow bench lint lab mlflow clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   answer real questions through a declared chain, offline"
	@echo "make test   run the whole test suite"
	@echo "make bench  measure; prints a table and a JSON line for each benchmark"
	@echo "make lab    open the notebooks"
	@echo "make mlflow open MLflow with the demo's traces"
	@echo "make lint   ruff and mypy"

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "chainops needs Python 3.11 or newer; try: make PYTHON=python3.12 ..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	@echo "installing into .venv (once, some minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$(TORCH)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group demo --group test --editable '.[all]'
	@touch $@

demo: .venv/.installed
	@$(BIN)/chainops demo

test: .venv/.installed lint
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: .venv/.installed
	@$(BIN)/python -m pytest -n $(WORKERS) -m slow

lint: .venv/.installed
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy --no-error-summary

bench: .venv/.installed
	@for benchmark in $(filter-out %_peers.py,$(wildcard benchmarks/[a-z]*.py)); do echo; echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

lab: .venv/.installed
	@$(BIN)/jupyter lab notebooks

mlflow: .venv/.installed
	@set -a; . mlflow/server.env; set +a; $(BIN)/mlflow server

clean:
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
