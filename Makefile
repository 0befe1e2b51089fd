# Everything a person or a machine runs here. Needs Python 3.11 or newer and make; the first target called sets up
# .venv, and later ones only look whether pyproject.toml or constraints.txt changed since.
#   make demo PYTHON=python3.12     another interpreter
#   make test WORKERS=8 ARGS="-m gpu"   more processes, other tests

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

bin := .venv/bin
installed := .venv/.installed

# Tests share the cores between processes, so each takes one thread; threads in every process are slower than none.
test: export OMP_NUM_THREADS = 1

.PHONY: demo test check bench format

demo: $(installed)
	$(bin)/multimodal-rec demo --out runs/demo

test: $(installed)
	$(bin)/python -m pytest -q -n $(WORKERS) $(ARGS)

check: $(installed)
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/pyright
	$(bin)/lint-imports --no-cache --no-logo
	$(bin)/python -m pytest -q tests/test_house.py

bench: $(installed)
	$(bin)/python benchmarks/run.py

format: $(installed)
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

$(installed): pyproject.toml constraints.txt
	test -x $(bin)/python || $(PYTHON) -m venv .venv
	$(bin)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@
