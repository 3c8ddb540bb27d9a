# Each target sets up what it needs from nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
UV     := $(shell sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements.lock)

.PHONY: install demo test test-fast check docs docs-reference lock clean

install: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgefront needs Python 3.11 or newer, $(PYTHON) is %d.%d; name another: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "[1/4] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] $(UV)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check $(UV)
	@echo "[3/4] pinned packages, about 6 GB: one minute with a fast network"
	@$(VENV)/bin/uv pip sync --python $(RUN) --require-hashes requirements.lock
	@echo "[4/4] edgefront itself"
	@$(VENV)/bin/uv pip install --python $(RUN) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	$(RUN) -m search.run --budget-ms 0.15 --device local --trials 40 --time-limit 4m30s --out runs/demo

test: install
	$(RUN) -m tests

test-fast: install
	$(RUN) -m tests --fast

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy

# The site, in build/site. A broken link fails it.
docs: install
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# After a change of options. A test compares the page with the parsers.
docs-reference: install
	$(RUN) docs/reference.py

# After a change of dependencies in pyproject.toml. Names no registry host.
lock:
	$(VENV)/bin/uv pip compile pyproject.toml --universal --extra dev --python-version 3.11 --no-header \
	  --no-emit-index-url --no-emit-find-links --no-annotate --generate-hashes --quiet -o requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info
