# make demo, make test: everything from a clean clone, with only Python 3.11+ and make installed.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
DATA ?= ../shared/data
# Processes that run tests side by side.
WORKERS ?= 2
# FAISS and torch each bring an OpenMP runtime; together they would start twice as many threads.
export OMP_NUM_THREADS ?= 2

.PHONY: setup demo test lint types soak bench embedded-model clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("clipsearch needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(PY) sample_data/demo.py demo

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not soak' -q -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(READY)
	$(VENV)/bin/mypy

soak: $(READY)
	$(PY) -m pytest -m soak -q -s

bench: $(READY)
	for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(PY) $$script || exit 1; done

embedded-model: $(READY)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[embedded-model]'
	$(PY) -m training.embedded --data $(DATA) --work runs/embedded --out clipsearch/encoders/embedded

clean:
	rm -rf demo build dist *.egg-info
