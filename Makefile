# The two commands of the README are `make demo` and `make test`; each does all of its own set-up.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := $(shell sed -n 's/^uv==\([^ ;]*\).*/\1/p' requirements.lock)

# Everything stays inside the project and nothing reports home.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
# Certificates of the machine, not only those that uv brings: networks with a proxy of their own need it.
export UV_SYSTEM_CERTS := true
export PATH := $(CURDIR)/$(BIN):$(PATH)

# A worker on each core, hyper-threads too. Files are handed out whole, so that each makes its fixtures once, in the order
# of tests/conftest.py.
PYTEST := python -m pytest -q --numprocesses logical --dist loadfile --no-loadscope-reorder

.PHONY: demo test check ui setup data lock lint benchmarks clean

demo: setup data  ## build the sample collection from photos to report
	geoloc build
	@echo
	@echo "Open the report:      build/default/report/report.html"
	@echo "Look at the pipeline: make ui"
	@echo "Ask it about a photo: $(BIN)/geoloc locate PHOTO.jpg"

test: setup data  ## style, types and every test
	$(PYTEST)

check: setup  ## style, types and the quick tests: for every change
	$(PYTEST) -m "not slow" tests/test_style.py tests/unit

ui: setup data  ## the Dagster UI, on the same history
	geoloc ui

setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "geoloc needs Python 3.11 or later; set PYTHON=python3.x"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet "uv==$(UV_VERSION)"
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip sync --quiet requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

data: setup  ## the sample photos, from the DVC remote inside this repository
	@test -f data/catalog.parquet || dvc pull --quiet data.dvc

lint: setup
	ruff check .
	ruff format --check .
	mypy

lock: setup  ## resolve pyproject.toml again into requirements.lock
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--prerelease if-necessary-or-explicit --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --quiet --output-file requirements.lock

benchmarks: setup  ## every measured comparison, one table each
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; python $$script || exit 1; done

clean:  ## remove everything that was built; the photos and the history of runs stay
	rm -rf build .geoloc/scratch
