# One command each; CI runs the same ones. The environment in .venv is made once, and again when
# pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# More options for the program or for pytest: make run ARGS="--sharing fresh", make unit ARGS="-k pool"
ARGS ?=
WORKERS ?= 2

# Seconds for each target of make fuzz.
FUZZ_SECONDS ?= 60

.PHONY: help run demo test unit check docs envs fuzz faults soak bench bench-quick bench-envs clean

help:
	@echo "make run     the proxy in front of a bundled stateful server, until Ctrl-C"
	@echo "make demo    the same, before and after, and then it ends"
	@echo "make test    all tests, with real servers and clients"
	@echo "make unit    the quick tests only"
	@echo "make check   format, lint, types (in CI: nothing is changed)"
	@echo "make docs    write docs/configuration.md, events.md and metrics.md anew"
	@echo "make envs    the environments of the end-to-end tests"
	@echo "make fuzz    the fuzz targets, FUZZ_SECONDS (60) each"
	@echo "make faults  the fault tests in full: more calls, kills and stops than make test (an hour)"
	@echo "make soak    mixed clients for SECONDS (600), with a plot and a table in docs/"
	@echo "make bench   the benchmark, ROUNDS (5) of every case, into docs/ (20 minutes, on an idle machine)"
	@echo "make bench-quick  what its targets are about, in two minutes, and only printed"
	@echo "make clean   remove everything that was made"

run: $(READY)
	$(BIN)/mcp-session-proxy demo --serve $(ARGS)

demo: $(READY)
	$(BIN)/mcp-session-proxy demo $(ARGS)

test: $(READY) envs
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

unit: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not e2e" $(ARGS)

check: $(READY)
ifeq ($(CI),)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
else
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
endif
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m tools.configuration > docs/configuration.md
	$(BIN)/python -m tools.handbook events > docs/events.md
	$(BIN)/python -m tools.handbook metrics > docs/metrics.md

envs: $(READY)
	$(BIN)/python tests/envs/install.py

fuzz: $(READY)
	$(BIN)/python tests/envs/install.py fuzz
	for target in inbound sse lifting heads answers json_cost; do \
	  .envs/fuzz/bin/python tests/fuzz/$$target.py -max_total_time=$(FUZZ_SECONDS) $(ARGS) || exit 1; done

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

faults: $(READY) envs
	FAULTED_CALLS=12000 FULL_FAULTS=1 HAMMER_SECONDS=30 $(BIN)/python -m pytest tests/faults $(ARGS)

# Only what make itself is given counts: many shells have a SECONDS of their own.
soak: SECONDS = 600
soak: $(READY)
	$(BIN)/python tests/soak/soak.py --seconds $(SECONDS) --plot docs/soak.svg --table docs/soak.md

bench: ROUNDS = 5
bench: $(READY) bench-envs
	$(BIN)/python -m bench --rounds $(ROUNDS) --write docs/benchmarks.md $(ARGS)

bench-quick: $(READY) bench-envs
	$(BIN)/python -m bench --quick --rounds 2 $(ARGS)

bench-envs: $(READY)
	$(BIN)/python tests/envs/install.py node bench wrk nginx

clean:
	rm -rf $(VENV) .envs .fuzz .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
