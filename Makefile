# The commands of a fresh machine: `make demo` and `make test`. Nothing but Python 3.11 or 3.12 is needed.
#
#   PYTHON=python3.12   the interpreter; without it the first of those below that works
#   TORCH_INDEX=URL     PyTorch's wheel index, such as the one of its CPU builds
#   VENV=DIR            where packages are installed

VENV ?= .venv
TORCH_INDEX ?=
DEMO_DIR ?= demo
# Two trials at a time, where there are two CPUs: no step is timed.
DEMO_WORKERS := $(if $(filter 1,$(shell nproc 2>/dev/null || echo 1)),1,2)
DEMO_RACE = --suite quick --workloads quick_vision --ruleset self --frameworks jax --studies 6 --seed 1 \
  --plain_steps --experiment_dir '$(DEMO_DIR)'
JOBS ?= 2

CHECK = import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
ifndef PYTHON
# A name may be a shim that fails when it is called, so each one is tried.
PYTHON := $(shell for name in python3.11 python3.12 python3 python; do \
  if "$$name" -c "$(CHECK)" 2>/dev/null; then echo "$$name"; break; fi; done)
endif

BIN := $(VENV)/bin
# pip compiles to bytecode on one core, compileall on all; files that are no Python are passed over.
INSTALL := "$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
COMPILE := "$(BIN)/python" -m compileall -qq -j 0 "$(VENV)/lib" || true
DECLARED := pyproject.toml constraints.txt

# Whole files go to one of two workers, in the order of pyproject.toml: what a file shares is made once.
PYTEST = '$(BIN)/python' -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 10

# Hundreds of processes import the same files.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help demo install test test-slow test-long test-cluster test-container docs notebooks bench lint types rules clean
help:
	@echo 'make demo    race two training algorithms on handwritten digits (two minutes)'
	@echo 'make test    run the default tests, in JAX and PyTorch (TORCH_INDEX=URL: other builds of it)'
	@echo 'make test-slow  run what takes longer and starts real trials (minutes; CI runs it, too)'
	@echo 'make test-long  run many kills, full sizes and long races (an hour; before work is called done)'
	@echo 'make test-cluster  run races on a SLURM of its own (apt install slurm-wlm munge; half an hour)'
	@echo 'make test-container  build an image and run a trial in it (apt install buildah debootstrap)'
	@echo 'make docs    build the pages into build/docs, without a network (seconds)'
	@echo 'make notebooks  run the notebooks of the pages again, and keep what they show (minutes)'
	@echo 'make bench, lint, types: measurements, linter, type checker'
	@echo 'make install    install what the tests need, and nothing else'
	@echo 'make rules   write the tables of RULES.md and README.md anew'
	@echo 'make clean   remove what these commands made, but for results'

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or 3.12 is needed, with its venv module.' \
	  'Install one, or name one: make PYTHON=/path/to/python3.12' >&2; exit 2; }
	@'$(PYTHON)' -c "$(CHECK)" || { echo '$(PYTHON) is not Python 3.11 or 3.12.' >&2; exit 2; }
	'$(PYTHON)' -m venv '$(VENV)'

$(VENV)/.installed-demo: $(DECLARED) | $(BIN)/python
	@echo 'Installing into $(VENV); this takes a minute or more.'
	$(INSTALL) -e '.[jax,quick,report]'
	@$(COMPILE)
	@touch '$@'

$(VENV)/.installed-test: $(DECLARED) | $(BIN)/python
	@echo 'Installing into $(VENV); this takes two minutes or more.'
ifneq ($(TORCH_INDEX),)
	$(INSTALL) --index-url '$(TORCH_INDEX)' torch
endif
	$(INSTALL) -e '.[jax,torch,quick,audio,data,text,report,monitor,slurm,dev]'
	@$(COMPILE)
	@touch '$@' '$(VENV)/.installed-demo'

$(VENV)/.installed-docs: $(DECLARED) | $(BIN)/python
	@echo 'Installing into $(VENV); this takes half a minute or more.'
	$(INSTALL) -e '.[docs]'
	@$(COMPILE)
	@touch '$@'

demo: $(VENV)/.installed-demo
	'$(BIN)/algoeff' bench $(DEMO_RACE) --submissions adamw,nesterov --workers $(DEMO_WORKERS)
	@echo
	@echo 'Add an optimizer to this board, by its import name:'
	@echo "  $(BIN)/algoeff bench $(DEMO_RACE) --submissions 'lion=optax.lion(learning_rate=1e-3)'"
ifneq ($(wildcard scoring/published/quick_board_self.csv),)
	@echo 'See where these stand among four baselines:'
	@echo '  $(BIN)/algoeff score $(DEMO_DIR) --against quick_board'
endif

install: $(VENV)/.installed-test

test: $(VENV)/.installed-test
	$(PYTEST)

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m 'slow and not long and not gpu'

test-long: $(VENV)/.installed-test
	$(PYTEST) -m 'long and not gpu'

test-cluster: $(VENV)/.installed-test
	'$(BIN)/python' -m pytest -n 0 -m cluster --durations 10

test-container: $(VENV)/.installed-test
	'$(BIN)/python' -m pytest -n 0 -m container --durations 10

notebooks: $(VENV)/.installed-docs $(VENV)/.installed-demo
	'$(BIN)/jupyter' execute --inplace docs/notebooks/*.ipynb

docs: $(VENV)/.installed-docs
	'$(BIN)/sphinx-build' --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/docs
	@echo 'build/docs/index.html'

bench: $(VENV)/.installed-test
	@for script in tests/benchmarks/bench_*.py; do echo "== $$script"; '$(BIN)/python' "$$script"; done

lint: $(VENV)/.installed-test
	'$(BIN)/ruff' check .
	'$(BIN)/ruff' format --check .

types: $(VENV)/.installed-test
	'$(BIN)/mypy'

rules: $(VENV)/.installed-test
	'$(BIN)/python' tests/golden/rules_figures.py

clean:
	rm -rf '$(VENV)' build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
