# The two commands of the README are `make demo` and `make test`. Each does its own set-up.
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := $(shell sed -n 's/^uv==\([^ ;]*\).*/\1/p' requirements.lock)

# Everything but download caches stays inside the project, and telemetry is off.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
# Use the system's certificates, not only those bundled with uv: networks behind a proxy need them.
export UV_SYSTEM_CERTS := true
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Keep compiled modules. Container images often switch that off, and then each process compiles 4,000 of them for 20 s.
export PYTHONDONTWRITEBYTECODE :=

# One worker per core, hyper-threads included. Workers get whole files, in the order of tests/conftest.py, so that the
# fixtures of a file are made once.
PYTEST := python -m pytest -q --numprocesses logical --dist loadfile --no-loadscope-reorder

.PHONY: demo test check ui setup data lock lint benchmarks clean

demo: setup data  ## build the sample, from photos to report
	geoloc build
	@echo
	@echo "Open the report:      build/default/report/report.html"
	@echo "Look at the pipeline: make ui"
	@echo "Ask it about a photo: $(BIN)/geoloc locate PHOTO.jpg"

test: setup data  ## style, types and every test
	$(PYTEST)

check: setup  ## style, types and quick tests, for every change
	$(PYTEST) -m "not slow" tests/test_style.py tests/unit

ui: setup data  ## the Dagster UI, with the same history
	geoloc ui

setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "geoloc needs Python 3.11 to 3.13; set PYTHON=python3.x"; exit 1; }
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

benchmarks: setup  ## run every benchmark
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; python $$script || exit 1; done

clean:  ## remove all builds; keep the photos and the history of runs
	rm -rf build .geoloc/scratch
