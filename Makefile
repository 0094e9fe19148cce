# Every target does its own set-up; the second call finds the stamp and starts at once.
VENV := .venv
PYTHON ?= python3
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=

# One thread a process: two threads in one process are many times slower when the cores are shared.
export OMP_NUM_THREADS := 1
# Nothing calls home and nothing is installed while a run is on its way.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help install demo federation bundle sbom test test-slow fuzz crash-walk check format clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time this takes a few minutes ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade-strategy only-if-needed -c constraints.txt -e '.[dev]'
	@# The same OpenCV without windows: the other needs graphics libraries that a server does not have.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall -c constraints.txt opencv-python-headless
	@touch $@

install: $(STAMP) ## Make the virtual environment in .venv

demo: $(STAMP) ## Virtual hospitals train one private model; ends with a report (ARGS="--hospitals 8")
	$(BIN)/consilium-sim demo $(ARGS)

federation: $(STAMP) ## A consortium and hospitals as real processes over TLS; one is killed (needs nginx, stunnel4)
	$(BIN)/consilium-sim federation $(ARGS)

bundle: $(STAMP) ## Everything to install without network, in dist/ (ARGS="--torch cpu")
	$(BIN)/python deploy/bundle.py $(ARGS)

sbom: $(STAMP) ## What is installed, as CycloneDX JSON, in dist/
	@mkdir -p dist
	$(BIN)/consilium-site sbom --out dist/sbom.json

test: $(STAMP) ## All tests but the slow ones, on WORKERS processes
	$(BIN)/python -m pytest -n $(WORKERS) -ra -m 'not slow' $(ARGS)

test-slow: $(STAMP) ## The tests that take minutes
	$(BIN)/python -m pytest -ra -m slow $(ARGS)

fuzz: $(STAMP) ## A hundred thousand mutated files through intake (ARGS="--mutations 1000 --seed 7")
	$(BIN)/python -m tests.client.fuzz_intake $(ARGS)

crash-walk: $(STAMP) ## Power failures at every write of a round, masked ones and analyses too, and a thousand random kills
	$(BIN)/python -m tests.client.crash_walk --walk --samples 4 --kills 1000 $(ARGS)
	$(BIN)/python -m tests.client.mask_walk --rounds 3 --samples 4
	$(BIN)/python -m tests.client.analytics_walk --samples 4

check: $(STAMP) ## Lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment and every cache; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
