# One command each; CI runs the same ones. The environment in .venv is made once, and again when
# pyproject.toml changes. What stands behind ## is what `make help` says.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the program needs, and what its developers need besides.
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
# More options for the program or for pytest: make run ARGS="--sharing fresh", make unit ARGS="-k pool"
ARGS ?=
# Tests with real programs wait more than they work, so there may be more than cores.
WORKERS ?= 4
# Some machines forbid it to keep what was compiled: then each program that a test starts is compiled anew, and each
# worker rewrites the assertions of every test file.
unexport PYTHONDONTWRITEBYTECODE
# Whoever has nothing left to do takes over from others: end-to-end tests take a hundred times as long as most.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# Those that wait for nothing. Each worker collects all of them, so there are no more workers than cores.
QUICK := not e2e and not slow
MARKS ?= $(QUICK)

.PHONY: help run demo unit watch test thorough again check docs site site-serve envs test-python test-root matrix \
	dist fuzz faults hammer cluster soak bench bench-quick bench-envs clean

help:
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ See it
run: $(RUNS) ## the proxy in front of a bundled stateful server, until Ctrl-C
	$(BIN)/mcp-session-proxy demo --serve $(ARGS)

demo: $(RUNS) ## the same, before and after, and then it ends
	$(BIN)/mcp-session-proxy demo $(ARGS)

##@ Change it
unit: WORKERS = 2
unit: $(READY) ## the quick tests, in a minute (MARKS="not e2e" for the slow ones, too)
	$(PYTEST) -m "$(MARKS)" $(ARGS)

watch: $(READY) ## whenever a file changes: the tests of its room, then all quick ones (ARGS=tests/sessions for some)
	$(BIN)/watchfiles --filter python "$(BIN)/python -m tools.watch $(ARGS)" mcp_session_proxy tests tools

check: $(READY) ## format, lint, types (in CI: nothing is changed)
ifeq ($(CI),)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
else
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
endif
	$(BIN)/mypy

docs: $(READY) ## docs/configuration.md, events.md and metrics.md anew
	$(BIN)/python -m tools.configuration > docs/configuration.md
	$(BIN)/python -m tools.handbook events > docs/events.md
	$(BIN)/python -m tools.handbook metrics > docs/metrics.md

site: $(READY) ## the documents as a site, in build/site
	$(BIN)/python tests/envs/install.py site
	$(BIN)/python -m tools.site build

site-serve: site ## the same, at http://127.0.0.1:8099
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8099

##@ Test it
test: $(READY) envs ## all tests, with real servers and clients
	$(PYTEST) $(ARGS)

thorough: $(READY) envs ## the same with every pair of a client and a server, not some of each (an hour)
	$(BIN)/python tests/envs/install.py postgresql
	THOROUGH=1 $(PYTEST) $(ARGS)

# Without TEST, those that failed last. What every program printed is in .cache/again afterwards.
TEST ?= --last-failed --last-failed-no-failures=none
again: $(READY) ## one test (TEST=tests/…::test_…), or what failed last: one at a time, all logs kept
	mkdir -p .cache
	$(BIN)/python -m pytest -x -v --log-level=DEBUG --basetemp=.cache/again $(TEST) $(ARGS); \
	  status=$$?; find .cache/again -name '*.log' -size +0 2>/dev/null; exit $$status

envs: $(READY) ## the environments of the end-to-end tests
	$(BIN)/python tests/envs/install.py

test-python: ## all tests but the end-to-end ones, on another Python (PYTHON=python3.13)
	$(PYTHON) tests/envs/pythons.py here $(ARGS)

SUITE ?= trixie
test-root: ## the same on the Python of another Debian (SUITE=trixie); needs root and debootstrap
	$(PYTHON) tests/envs/pythons.py debian $(SUITE) $(ARGS)

matrix: $(READY) ## docs/clients.md and servers.md anew: all that can be installed (ARGS="clients agno" for some)
	cd tests && ../$(BIN)/python -m matrix $(ARGS)

# Seconds for each target.
FUZZ_SECONDS ?= 60
fuzz: $(READY) ## the fuzz targets, FUZZ_SECONDS (60) each
	$(BIN)/python tests/envs/install.py fuzz
	for target in inbound sse lifting heads answers json_cost; do \
	  .envs/fuzz/bin/python tests/fuzz/$$target.py -max_total_time=$(FUZZ_SECONDS) $(ARGS) || exit 1; done

faults: $(READY) envs ## the fault tests in full: more calls, kills and stops than make test (an hour)
	THOROUGH=1 FAULTED_CALLS=12000 FULL_FAULTS=1 HAMMER_SECONDS=30 $(BIN)/python -m pytest tests/faults $(ARGS)

# One part that fails keeps no other one from being seen; those that take little time and tell much come first.
cluster: $(READY) envs bench-envs ## several proxies in full: kills, partitions (as root), all that one does at three, a large cluster played, into .cache/cluster.md (two hours, on an idle machine)
	mkdir -p .cache
	rm -f .cache/cluster.md .cache/several.md .cache/simulation.md
	export THOROUGH=1 FIGURES_TABLE=.cache/cluster.md; status=0; \
	$(BIN)/python -m pytest -m "not e2e" tests/cluster $(ARGS) || status=1; \
	$(BIN)/python -m pytest -m e2e tests/cluster $(ARGS) || status=1; \
	$(BIN)/python -m bench --rounds 3 --only several --only takeover --only idle-callers > .cache/several.md \
	  || status=1; \
	HAMMER_SECONDS=60 $(BIN)/python -m pytest -m cluster tests/faults $(ARGS) || status=1; \
	$(BIN)/python -m pytest tests/assembly/test_many_restarts.py $(ARGS) || status=1; \
	$(PYTEST) -m cluster tests/e2e $(ARGS) || status=1; \
	PYTHONPATH=.:tests timeout 3600 $(BIN)/python tests/cluster/simulation.py --plot .cache/simulation.svg \
	  > .cache/simulation.md || status=1; \
	for more in .cache/several.md .cache/simulation.md; do echo; cat $$more; done >> .cache/cluster.md; \
	cat .cache/cluster.md; exit $$status

hammer: $(READY) envs ## one caller who means harm, by every means for a minute, into .cache/hammer.md (50 minutes, on an idle machine)
	rm -f .cache/hammer.md
	HAMMER_SECONDS=60 HAMMER_TABLE=.cache/hammer.md $(BIN)/python -m pytest tests/faults/test_hammer.py $(ARGS)

# Only what make itself is given counts: many shells have a SECONDS of their own.
soak: SECONDS = 600
soak: $(READY) ## mixed clients for SECONDS (600), with a plot and a table in docs/
	$(BIN)/python tests/soak/soak.py --seconds $(SECONDS) --plot docs/soak.svg --table docs/soak.md

##@ Measure it
bench: ROUNDS = 5
bench: $(READY) bench-envs ## the benchmark, ROUNDS (5) of every case, into docs/ (20 minutes, on an idle machine)
	$(BIN)/python -m bench --rounds $(ROUNDS) --write docs/benchmarks.md $(ARGS)

bench-quick: $(READY) bench-envs ## what its targets are about, in two minutes, and only printed
	$(BIN)/python -m bench --quick --rounds 2 $(ARGS)

bench-envs: $(READY)
	$(BIN)/python tests/envs/install.py node bench wrk nginx redis-server

##@ Release it
dist: $(READY) ## wheel, sdist and SBOM in dist/, checked, and the wheel tried in an empty environment
	$(BIN)/python tests/envs/install.py release
	$(BIN)/python -m tools.distribution

clean: ## remove everything that was made
	rm -rf $(VENV) .envs .fuzz .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installs what is named, into an environment that is made if there is none.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=...")'
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(1)]"
@touch $@
endef

# Whoever only looks at it need not wait for the developers' tools; whoever has them keeps them.
$(RUNS): pyproject.toml
	$(call install,$(if $(wildcard $(READY)),dev,demo))

$(READY): pyproject.toml
	$(call install,dev)
	@touch $(RUNS)
