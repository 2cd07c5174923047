# Two commands on a fresh clone: `make demo` trains a model, `make test` runs the tests. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-faults check format clean

demo: $(VENV)/core
	$(BIN)/accelerate launch pretraining/run_mlm.py

test: $(VENV)/dev
	$(BIN)/python -m pytest

# The long form of the resume tests: most of an hour.
test-faults: $(VENV)/dev
	$(BIN)/python -m pytest -m faults
	$(BIN)/python tests/faults.py

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) *.egg-info

# Marker files: an install is repeated when the requirements have changed.
$(VENV)/core: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r requirements.txt
	touch $@

$(VENV)/dev: requirements-dev.txt requirements-cluster.txt $(VENV)/core
	$(BIN)/pip install -r requirements-dev.txt
	touch $@
