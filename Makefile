# Everything runs in .venv, which `make` sets up from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check docs bench clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt "torch==2.13.0"
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[demo,datasets,dev]"
	touch $@

demo: .venv/.ready
	$(BIN)/tunesmith demo

test: .venv/.ready
	$(BIN)/pytest -n auto --dist worksteal --ignore tests/architecture/test_quickness.py
	$(BIN)/pytest --noconftest tests/architecture/test_quickness.py

check: .venv/.ready
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n auto tests/contract
	$(BIN)/pytest tests/architecture

docs: .venv/.ready
	$(BIN)/python docs/tables.py

bench: .venv/.ready
	$(BIN)/python benchmarks/suite.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
