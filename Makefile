# make demo and make test install what they need into .venv themselves; all they ask for is Python 3.11 or newer.

VENV ?= .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# 3.11 first: constraints.txt was tested on it. Each candidate is run, not only looked up: a name on the PATH may be a shim of nothing.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3 python,$(if $(shell $(p) -c 'import sys, venv, ensurepip; sys.version_info >= (3, 11) and print("yes")' 2>/dev/null),$(p))))
PYTEST_ARGS ?= -n 2 --dist worksteal

# Small networks: a second thread gains nothing, and on a busy machine two threads that wait for each other cost a factor of ten.
export OMP_NUM_THREADS ?= 1

# Real data sets beside the checkout are used when they are there; without them the tests that need them skip.
ifeq ($(strip $(VAEKIT_DATA)),)
ifneq ($(wildcard ../shared/data),)
export VAEKIT_DATA := $(abspath ../shared/data)
endif
endif

ASSETS := src/vaekit/explore/assets

.DEFAULT_GOAL := help
.PHONY: help install demo test lint docs linkcheck explorer explorer-if-possible clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed-dev explorer-if-possible ## vaekit, editable, with everything its developers use, in .venv

demo: $(VENV)/.installed ## train a small VAE, evaluate, sample, reconstruct and write a report (under two minutes)
	@set -e; n=1; while [ -e "runs/demo-$$n" ]; do n=$$((n + 1)); done; run="runs/demo-$$n"; \
	for step in "train digits --out $$run" "evaluate $$run" "sample $$run" "reconstruct $$run" "report $$run"; do \
	  echo "\$$ vaekit $$step"; "$(BIN)/vaekit" $$step; \
	done; \
	test -f "$$run/report.html"; echo "report: $(CURDIR)/$$run/report.html"

test: $(VENV)/.installed-dev explorer-if-possible ## all tests and the examples of every docstring and page
	"$(PY)" -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## ruff check, ruff format --check, mypy
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"

docs: $(VENV)/.installed-dev ## build the pages; a warning is an error
	"$(PY)" -m sphinx -E -W --keep-going -q -b html docs docs/_build/html
	@echo "pages: $(CURDIR)/docs/_build/html/index.html"

linkcheck: $(VENV)/.installed-dev ## ask for every address that the pages link to (needs a network; no part of the tests)
	"$(PY)" -m sphinx -E -q -b linkcheck docs docs/_build/linkcheck

explorer: $(ASSETS)/runtime.wasm.gz ## the page of vaekit explore, by npm and esbuild

$(ASSETS)/runtime.wasm.gz: explorer/package-lock.json explorer/build.mjs $(wildcard explorer/src/*)
	cd explorer && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error && npm run --silent build

# Where npm or its registry is out of reach, vaekit explore says that its page is not built, and its tests skip.
explorer-if-possible:
	@if command -v npm >/dev/null 2>&1; then $(MAKE) --no-print-directory explorer || echo "the page of vaekit explore was not built: its tests will skip" >&2; fi

clean: ## remove what builds and caches left (keeps .venv and runs)
	rm -rf build dist docs/_build $(ASSETS) explorer/node_modules .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment made by another tool may come without pip.
define INSTALL
"$(PY)" -m pip --version >/dev/null 2>&1 || "$(PY)" -m ensurepip
"$(PY)" -m pip install --disable-pip-version-check -q -c constraints.txt -e
endef

# The stamps are older than what they depend on exactly when an install is due.
$(VENV)/.installed: pyproject.toml constraints.txt | $(PY)
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(PY)
	$(INSTALL) '.[compress,dev,docs,h5ad,hub,onnx,pyro,ray,tables,tensorboard]'
	@touch $(VENV)/.installed $@

$(PY):
	@test -n "$(PYTHON)" || { echo "vaekit needs Python 3.11 or newer with venv and pip, and none is on the PATH: install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
