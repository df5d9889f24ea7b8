# The commands of this repository; `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help env env-extras quickstart test test-slow lint bench clean

# The first of these that runs makes the environment: make env PYTHON=/path/to/python3.11
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c "" >/dev/null 2>&1 && echo "$$p" && break; done)
VENV_PYTHON := .venv/bin/python
# Test files run side by side in this many processes of one thread each.
JOBS ?= 2
# More pytest arguments: make test PYTEST_ARGS="-k mapper"
PYTEST_ARGS ?=
# One of tools/benchmark.py by name, and its options: make bench BENCH=encoder BENCH_ARGS=--quick
BENCH ?= all
BENCH_ARGS ?=

# fvcore and Detectron2 0.6 call torch.jit.script on import; its warning is not about this code.
export PYTHONWARNINGS := ignore:`torch.jit.script`:FutureWarning

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf '%-12s %s\n' "$$name" "$$text"; done

env: ## Make .venv with the pinned dependencies, or reuse it while they are unchanged
	@test -n "$(strip $(PYTHON))" || { echo "make env: no Python found: install Python 3.11," \
		"or name one: make env PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(strip $(PYTHON))" tools/make_env.py

env-extras: env ## Add what the web page, the Ray pipeline and their tests need to .venv
	@$(VENV_PYTHON) -m pip install --quiet --requirement requirements-extras.txt

quickstart: env ## Render a small data set, train SCHNet on it, evaluate it, draw predictions
	@$(VENV_PYTHON) tools/quickstart.py

test: env ## Run the tests (without those marked slow)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-slow: env-extras ## Run the tests marked slow
	$(VENV_PYTHON) -m pytest -m slow $(PYTEST_ARGS)

lint: env ## Check style, format and types (ruff, mypy)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

bench: env ## Measure speed and memory; tables, and JSON in output/benchmark (BENCH=name for one)
	$(VENV_PYTHON) tools/benchmark.py $(BENCH) $(BENCH_ARGS)

# Data sets and results of the user's own stay: only what these commands made themselves goes.
CLEANED := .venv build .pytest_cache .mypy_cache .ruff_cache projects/SCHNet/schnet.egg-info \
	output/quickstart
DOLLS := datasets/dolls
clean: ## Remove .venv, caches, output/quickstart and the rendered datasets/dolls; no other data
	@dolls=; if [ -e $(DOLLS)/paper_dolls.json ]; then dolls=$(DOLLS); fi; \
		for path in $(CLEANED) $$dolls; do \
		if [ -e "$$path" ]; then echo "removing $$path"; rm -rf "$$path"; fi; done
	@if [ -e $(DOLLS) ]; then echo "keeping $(DOLLS): make_paper_dolls.py did not write it"; fi
	@find projects datasets tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
