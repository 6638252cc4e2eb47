# Every target makes .venv when it is missing; nothing else is needed but python3 and make.
PYTHON ?= python3
BIN := .venv/bin
# The records that are kept with the code; a run by hand writes to subquad-results/.
RECORDS := experiments/results

.PHONY: report test lint format claims bench experiments clean

report: .venv/installed
	$(BIN)/subquad report $(if $(QUICK),--quick)

# A process a core, each with one thread of BLAS. Stealing hands out runs of tests, so that what a
# folder shares (all claims) is mostly made once. Plain `pytest` runs in one process.
test: .venv/installed
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.docstrings

format: .venv/installed
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

claims: .venv/installed
	$(BIN)/subquad claims

bench: .venv/installed
	$(BIN)/python -m experiments bench --out $(RECORDS)/bench.json --fresh
	$(BIN)/python -m experiments peers --out $(RECORDS)/peers.json --fresh
	$(BIN)/python -m experiments crossover_lengths --out $(RECORDS)/crossover_lengths.json --fresh
	$(BIN)/python -m experiments scaling --out $(RECORDS)/scaling.json --fresh

experiments: .venv/installed
	$(BIN)/python -m experiments all --out $(RECORDS)

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[report,test]'
	touch $@

clean:
	rm -rf .venv report subquad-results build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
