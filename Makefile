# Needs python3 and make, nothing else. PYTHON chooses the interpreter, VENV the folder of the environment;
# QUIET= shows what pip does.
PYTHON ?= python3
VENV ?= .venv
QUIET ?= -qq
ARGS ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check $(QUIET)
INSTALL = $(PIP) install --constraint constraints.txt --editable

.PHONY: help demo test lint format types clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:
	@echo "make demo    install into $(VENV) and run 'longreel demo' into demo/"
	@echo "make test    install the test tools too and run the tests; ARGS='-k store -x' goes to pytest"
	@echo "make lint    check format and style; 'make format' mends what can be mended"
	@echo "make types   check types with pyright"
	@echo "make clean   remove the environment and everything that was made"

demo: $(VENV)/installed
	$(VENV)/bin/longreel demo demo

test: $(VENV)/installed-test
	$(VENV)/bin/pytest $(ARGS)

lint: $(VENV)/installed-test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

format: $(VENV)/installed-test
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# A checker cannot follow an editable install: the tests' `import longreel` is resolved in a plain one.
types: $(VENV)/installed-test
	rm -rf build/lib build/types
	$(PIP) install --no-deps --no-build-isolation --target build/types .
	$(VENV)/bin/pyright --project pyproject.toml --pythonpath $(VENV)/bin/python

clean:
	rm -rf $(VENV) build dist demo longreel.egg-info .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Editable, so that an edit needs no second installation; these two run again when versions or metadata change.
$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing longreel into $(VENV): a few minutes the first time"
	$(INSTALL) .
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing longreel and its test tools into $(VENV): a few minutes the first time"
	$(INSTALL) '.[test]'
	@touch $(VENV)/installed $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "longreel needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
