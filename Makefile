# Everything a newcomer needs: `make demo`, then `make test`. Set-up is part of each.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export TZ := UTC

.PHONY: help setup demo test check bench faults down clean format lock
help:            ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: .venv/.ready  ## the virtual environment with the locked dependencies

.venv/.ready: requirements.lock requirements-dev.lock pyproject.toml scripts/setup
	@PYTHON=$(PYTHON) scripts/setup
	@touch $@

demo: setup      ## start the stack, publish real data, build, ask, verify; leaves it running
	@$(BIN)/bus demo

test: setup      ## every test, on real Kafka, OPA, SQLite, PostgreSQL and Chromium
	@scripts/test -n 2 --dist loadscope --no-loadscope-reorder --durations=20

check: setup     ## style, types, imports, policies, duplicates
	@scripts/check

bench: setup     ## the figures of benchmarks/, side by side with their peers
	@scripts/bench

faults: setup    ## the fault list in full length
	@scripts/test -m fault --full-length --timeout 3600

down:            ## stop what was started
	@if [ -x $(BIN)/bus ]; then $(BIN)/bus down; fi

clean: down      ## ... and remove its data
	@rm -rf .bus

format: setup    ## let ruff and opa format
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

lock: setup      ## resolve the dependencies anew
	@$(BIN)/uv pip compile pyproject.toml --generate-hashes --no-annotate --no-header -q -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --no-annotate --no-header -q -o requirements-dev.lock
