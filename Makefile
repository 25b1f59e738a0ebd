# `make` alone prints the targets.

PYTHON ?= python3
LISTEN ?= 127.0.0.1:19525
LOG ?=
LINES ?= 1000000
SEED ?= 1
SECONDS ?= 600
WEEKS ?= 2
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SAMPLES = tests/logs/postfix tests/logs/exim tests/logs/exchange
BIN = .venv/bin
# Many tests wait for a server: more processes than cores.
PYTEST = -m pytest -q -n $$(($(CORES) + 2)) --dist loadgroup

.PHONY: help run quick test lint format bench fuzz golden docs site grafana trial fleet soak demo deb pyz image clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

run: .venv/run.stamp ## install into .venv and serve metrics: of the sample logs, or of LOG=/var/log/mail.log
	@exec $(BIN)/bouncemeter serve --no-state --from-start --web.listen-address $(LISTEN) $(or $(LOG),$(SAMPLES))

quick: .venv/dev.stamp ## run the tests that need no server, in a minute or so
	$(BIN)/python $(PYTEST) -m "not needs and not slow" $(ARGS)

test: .venv/dev.stamp ## run all tests, with real servers of their own; COVERAGE=yes measures what they run
	sh tests/servers/install
	$(if $(COVERAGE),$(BIN)/coverage erase)
	$(BIN)/$(if $(COVERAGE),coverage run,python) $(PYTEST) $(ARGS)
	$(if $(COVERAGE),$(BIN)/coverage combine --quiet)
	$(if $(COVERAGE),$(BIN)/coverage report)

lint: .venv/dev.stamp ## check style, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/dev.stamp ## put the style right
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: .venv/dev.stamp ## compare the cost of LINES=1000000 lines with other tools; ARCHIVE=5000000: of an archive
	$(if $(ARCHIVE),,$(BIN)/python -m tests.bench.compare $(LINES) $(SEED))
	$(if $(ARCHIVE),$(BIN)/python -m tests.bench.archive $(ARCHIVE))
	$(if $(ARCHIVE),$(BIN)/python -m tests.bench.spark $(ARCHIVE))

fuzz: .venv/dev.stamp ## look for input that breaks a parser or a source, SECONDS=600 for each
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q -rP -n $(CORES) tests/test_fuzz.py

golden: .venv/dev.stamp ## write the golden files of tests/logs again
	WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_golden.py

docs: .venv/dev.stamp ## write the references in docs and the man page again
	WRITE_DOCS=1 $(BIN)/python -m pytest -q tests/docs/test_references.py tests/packaging/test_man_page.py

site: .venv/dev.stamp ## build the documentation's site in dist/site
	$(BIN)/sphinx-build -q -W --keep-going docs dist/site

grafana: .venv/dev.stamp ## write dashboards, provisioning and alerts again
	$(BIN)/bouncemeter grafana export --dashboards-path /var/lib/grafana/dashboards grafana
	$(BIN)/bouncemeter rules export --unit-tests grafana/alerts

soak: .venv/dev.stamp ## write logs for SECONDS=600 at a steady rate, and compare what is counted
	$(BIN)/python -m tests.bench.soak $(SECONDS)

trial: .venv/dev.stamp ## try all alerts on WEEKS=2 of simulated servers of many kinds: half an hour or more
	sh tests/servers/install
	$(BIN)/python -m tests.grafana.trial $(WEEKS)

fleet: .venv/dev.stamp ## time the dashboards on a simulated fleet of ten exporters, over a day and a month
	$(BIN)/python -m tests.grafana.fleet

demo: .venv/dev.stamp ## serve a simulated day of mail with a Prometheus, to look at the dashboards
	$(BIN)/python -m tests.grafana.day

deb: | .venv/bin/python ## build dist/bouncemeter_VERSION_all.deb, for Debian 12 and later
	@PYTHON=$(BIN)/python packaging/build-deb

pyz: | .venv/bin/python ## build dist/bouncemeter.pyz, one file that any Python from 3.11 on runs
	@PYTHON=$(BIN)/python packaging/build-pyz

image: ## build the container image with podman, buildah or docker
	@program=$$(command -v podman || command -v buildah || command -v docker) || \
		{ echo "make image needs podman, buildah or docker"; exit 1; }; \
		BUILDAH_FORMAT=docker $$program build --tag bouncemeter --file packaging/Containerfile $(ARGS) .

clean: ## remove everything that make has made
	rm -rf .venv .servers build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
		.hypothesis .fuzz

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bouncemeter needs Python 3.11 or later; name one with PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; } || \
		{ echo "Python's venv module is missing: install the package python3-venv"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml | .venv/bin/python
	@echo "Installing bouncemeter into .venv ..."
	@$(BIN)/pip install -q --disable-pip-version-check --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	@echo "Installing bouncemeter and what its tests need into .venv ..."
	@$(BIN)/pip install -q --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install -q --disable-pip-version-check --editable . --group dev
	@touch $@ .venv/run.stamp
