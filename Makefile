# Every target makes .venv when it is missing; nothing else is needed but python3 and make.
PYTHON ?= python3
BIN := .venv/bin
# The records that are kept with the code; a run by hand writes to subquad-results/.
RECORDS := experiments/results

.PHONY: report test lint format claims bench experiments clean

report: .venv/installed
	$(BIN)/subquad report $(if $(QUICK),--quick)

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

claims: .venv/installed
	$(BIN)/subquad claims

bench: .venv/installed
	$(BIN)/python -m experiments bench --out $(RECORDS)/bench.json
	$(BIN)/python -m experiments peers --out $(RECORDS)/peers.json
	$(BIN)/python -m experiments crossover_lengths --out $(RECORDS)/crossover_lengths.json
	$(BIN)/python -m experiments scaling --out $(RECORDS)/scaling.json

experiments: .venv/installed
	$(BIN)/python -m experiments all --out $(RECORDS)

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[report,test]'
	touch $@

clean:
	rm -rf .venv report subquad-results build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
