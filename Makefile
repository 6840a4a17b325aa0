# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make what they need (.venv).
PYTHON ?= python3
BIN := .venv/bin
SERVERS := .cache/nginx/nginx .cache/envoy/envoy
CLIENTS := .cache/java/java .cache/ab/ab
SOURCES := meshsdk registry/meshsdk_registry sidecar/meshsdk_sidecar examples benchmarks tests

.PHONY: demo polyglot test check unit compiled test-compiled bench format clean

demo: .venv/demo.stamp
	@$(BIN)/meshsdk demo

polyglot: .venv/polyglot.stamp
	@$(BIN)/python examples/polyglot/run.py

test: check unit

check: .venv/bench.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

# Compiled once: else each of the many processes that tests start compiles everything for itself, for half a second.
unit test-compiled: export PYTHONDONTWRITEBYTECODE =
unit: .venv/dev.stamp .cache/consul/usr/bin/consul $(SERVERS) $(CLIENTS)
	$(BIN)/python -m compileall -q $(SOURCES)
	$(BIN)/coverage erase
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder --reruns 2 --cov --cov-report= $(PYTEST)
	$(BIN)/coverage report --skip-covered
	$(BIN)/coverage report --include='meshsdk/core/*,meshsdk/policy/*' --fail-under=95 --format=total

# The path of a request as machine code (docs/decisions/0015); PYTHONPATH=.cache/compiled puts it in the place of ours.
compiled: .cache/compiled/stamp

# The folders whose tests reach what is compiled.
test-compiled: export PYTHONPATH = $(CURDIR)/.cache/compiled:$(CURDIR)
test-compiled: export PYTHONSAFEPATH = 1
test-compiled: .cache/compiled/stamp .cache/consul/usr/bin/consul $(SERVERS) $(CLIENTS)
	$(BIN)/python -m compileall -q tests
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder --reruns 2 -o pythonpath= \
	  tests/core tests/wire tests/client tests/conformance tests/server tests/telemetry tests/sidecar tests/integration $(PYTEST)

# The sidecar is measured compiled and on what its image has (docs/decisions/0022).
bench: .venv/bench.stamp .cache/compiled/stamp .cache/consul/usr/bin/consul $(SERVERS) .cache/haproxy/haproxy .cache/python/python
	$(BIN)/python benchmarks/client.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/propagation.py
	$(BIN)/python benchmarks/sidecar.py

format: .venv/dev.stamp
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf .venv .cache

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/demo.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[examples]'
	@touch $@

.venv/polyglot.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[examples,otel,sidecar]'
	@touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[examples,otel,sidecar]' --group dev
	@touch $@ .venv/demo.stamp .venv/polyglot.stamp

.venv/bench.stamp: .venv/dev.stamp
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

.cache/compiled/stamp: hatch_build.py pyproject.toml $(shell find meshsdk registry sidecar -name '*.py') | .venv/dev.stamp
	rm -rf .cache/compiled
	HATCH_BUILD_HOOKS_ENABLE=1 $(BIN)/python -m pip install --quiet --no-deps --target .cache/compiled .
	@touch $@

.cache/consul/usr/bin/consul:
	scripts/install-consul

.cache/nginx/nginx:
	scripts/install-nginx

.cache/envoy/envoy:
	PYTHON=$(PYTHON) scripts/install-envoy

.cache/haproxy/haproxy:
	scripts/install-haproxy

.cache/python/python:
	scripts/install-python

.cache/java/java:
	scripts/install-java

.cache/ab/ab:
	scripts/install-ab
