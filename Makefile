# The two commands of the README are `make demo` and `make test`. Each does its own set-up.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports warm pytest bench fuzz docs clean influxd

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt .ci/venv.sh
	@sh .ci/venv.sh $(VENV)
	@touch $@

influxd:
	@sh .ci/influxd.sh

demo: $(READY) influxd warm  ## back up, verify, drill and restore real data in a real Airflow (KEEP=1 leaves it running)
	@exec $(BIN)/python -m demo.run

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

imports: $(READY)  ## import-linter: the rooms and what each may import
	$(BIN)/lint-imports

warm: $(READY)  ## compile the loops, once for each state of the sources
	@$(BIN)/influxdb-backup warm

pytest: $(READY) influxd warm  ## the tests alone (ARGS="-k restore"), in two processes with servers of their own
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test: $(READY)  ## everything that must hold
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint types imports warm influxd
	@$(MAKE) --no-print-directory pytest

bench: $(READY) influxd warm  ## measure speed and memory, as ratios taken in one run
	@exec $(BIN)/python -m benchmarks.run $(ARGS)

fuzz: $(READY)  ## throw mutated bytes at what reads shards (ARGS="--seconds 600 tombstone")
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --constraint constraints.txt \
		--group fuzz || true
	@exec $(BIN)/python -m tests.fuzz.run $(ARGS)

clean:  ## remove what the targets made
	rm -rf $(VENV) .demo .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
