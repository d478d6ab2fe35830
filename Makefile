# Everything runs in a virtual environment of the project's own; nothing but Python ≥ 3.10 and make
# has to be there. Choose another interpreter with `make PYTHON=python3.12 demo`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-core test-slow lint types format benchmark clean

demo: .venv/core  ## measure and recover eight cats, write diffsplit-demo.png
	$(BIN)/diffsplit demo

test: .venv/dev  ## run the tests
	$(BIN)/python -m pytest

test-core: .venv/dev  ## run the tests as where no optional package is installed
	PYTHONPATH=tests $(BIN)/python -m pytest -p hidden_extras

test-slow: .venv/dev  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: .venv/dev  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev  ## check types
	$(BIN)/mypy

format: .venv/dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: .venv/dev  ## measure the ratios that the README quotes
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv build dist *.egg-info

.venv/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev]'
	touch $@ .venv/core
