# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
# Two test processes with one thread each; threads that spin while they wait would slow small nets down.
ENVIRONMENT := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo 'PYTHON=python3.12 chooses the Python of .venv; ARGS="..." is given to demo, test and test-slow'

demo: $(READY) ## Train on digits, print the test accuracy and where the results lie
	$(ENVIRONMENT) $(BIN)/python examples/demo.py $(ARGS)

test: $(READY) ## Pass every test but the slow ones, doctests included
	$(ENVIRONMENT) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(READY) ## Pass the slow tests: more models, new interpreters instead of forked ones
	$(ENVIRONMENT) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow $(ARGS)

check: $(READY) ## Lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

clean: ## Remove .venv, caches and builds
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	@echo 'Installing into .venv; PyTorch is large, this takes a few minutes the first time.'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $(READY)
