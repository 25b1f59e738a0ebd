# make run    install into .venv and serve metrics: of the sample logs, or of LOG=/var/log/mail.log
# make test   install everything and run all tests; as root on Debian or Ubuntu with the real servers
# make lint   style and types          make format   put the style right
# make bench  compare the cost of reading LINES=1000000 lines with other tools
# make fuzz   look for input that breaks a parser or source, SECONDS=600 for each
# make grafana write dashboards, provisioning and alerts anew; make demo serve a day of mail to look at them with
# make golden write the golden files of tests/logs anew     make docs   write docs/commands.md anew

PYTHON ?= python3
LISTEN ?= 127.0.0.1:19525
LOG ?=
LINES ?= 1000000
SECONDS ?= 600
SAMPLES = tests/logs/postfix tests/logs/exim tests/logs/exchange
BIN = .venv/bin

.PHONY: run test lint format bench fuzz golden docs grafana demo clean

run: .venv/run.stamp
	@exec $(BIN)/bouncemeter serve --no-state --from-start --web.listen-address $(LISTEN) $(or $(LOG),$(SAMPLES))

test: .venv/dev.stamp
	sh tests/servers/install
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: .venv/dev.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/dev.stamp
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: .venv/dev.stamp
	$(BIN)/python -m tests.bench.compare $(LINES)

fuzz: .venv/dev.stamp
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q -rP tests/test_fuzz.py

golden: .venv/dev.stamp
	WRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/test_golden.py

docs: .venv/dev.stamp
	WRITE_DOCS=1 $(BIN)/python -m pytest -q tests/test_docs.py -k reference

grafana: .venv/dev.stamp
	$(BIN)/bouncemeter grafana export grafana
	$(BIN)/bouncemeter rules export grafana/alerts

demo: .venv/dev.stamp
	$(BIN)/python -m tests.grafana.day

clean:
	rm -rf .venv build dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .fuzz

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
