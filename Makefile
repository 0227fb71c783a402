# `make` alone lists what there is. PYTHON=... names the interpreter that .venv is made with.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo live test test-slow check docs docs-serve format lock audit images \
  pin-images wheel clean

BIN := .venv/bin
STAMP := .venv/.installed
PROGRAMS := data tuning serving
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

help:  ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## Creates or reuses .venv and installs what requirements*.txt name
	@echo ".venv is ready: $$($(BIN)/python -V)"

demo: $(STAMP)  ## The whole chain on a small made-up world: data to recommendations over gRPC
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

live: $(STAMP)  ## The live layer with its page; EXPORT= and DATASET= name one's own, PORT= where (8080)
	@PATH="$(CURDIR)/$(BIN):$$PATH" EXPORT="$(EXPORT)" DATASET="$(DATASET)" PORT="$(or $(PORT),8080)" \
	  examples/live.sh

test: check  ## Checks, then the tests (those marked slow left out)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)  ## The tests marked slow
	$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## ruff, formatting, types, imports, the site, images; names known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mmrec_tf $(PROGRAMS) release
	$(BIN)/python -m pytest -q tests/test_architecture.py
	@$(MAKE) --no-print-directory docs
	@$(BIN)/python -m release.images
	@$(BIN)/python -m release.audit

docs: $(STAMP)  ## Builds the documentation site into build/site; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site: build/site/index.html"

docs-serve: $(STAMP)  ## Shows the site on localhost:8000, and follows changes
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --quiet

format: $(STAMP)  ## Rewrites the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(STAMP)  ## Writes the lock files and bills of materials in release/ for both Pythons
	$(BIN)/python -m release.lock

audit: $(STAMP)  ## Fails on known vulnerabilities that release/accepted.json does not list
	$(BIN)/python -m release.audit --strict

images: $(STAMP)  ## Says which images of containers are not pinned by a digest
	@$(BIN)/python -m release.images

pin-images: $(STAMP)  ## Looks up digests of images, and writes them to serving/deploy
	@$(BIN)/python -m release.images --pin

wheel: $(STAMP)  ## Builds dist/*.whl, which holds mmrec_tf and nothing else
	$(BIN)/python -m build --wheel --no-isolation

clean:  ## Removes what was built; .venv and work stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Reinstalls only when one of these files changed since. Candidates are run, not looked up: a pyenv
# shim exists even for versions that it then refuses to start.
$(STAMP): requirements.txt requirements-dev.txt setup.cfg pyproject.toml
	@if ! $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null; then \
	  found=; \
	  for candidate in $(or $(PYTHON),python3.11 python3.12 python3 python); do \
	    if "$$candidate" -c '$(SUPPORTED)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "mmrec_tf needs Python 3.11 or 3.12; found $$($(or $(PYTHON),python3) -V 2>&1 | head -n 1)." \
	      "Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; \
	  fi; \
	  echo "Making .venv with $$("$$found" -V) ($$found)"; \
	  if ! said=$$("$$found" -m venv --clear .venv 2>&1); then \
	    rm -rf .venv; \
	    if ! "$$found" -m virtualenv --quiet .venv >/dev/null 2>&1; then \
	      rm -rf .venv; \
	      echo "$$said" >&2; \
	      echo "$$found cannot make a virtual environment. On Debian or Ubuntu: apt-get install" \
	        "$$("$$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; \
	      exit 1; \
	    fi; \
	  fi; \
	fi
	@echo "Installing requirements into .venv (about 3 GB; 2 to 4 minutes the first time)"
	@# What is never imported is never compiled: a minute less.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation -e .
	@touch $@
