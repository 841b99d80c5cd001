# `make help` lists the targets. Everything is installed into .venv from constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
LOWEST := .venv-lowest
GPU := .venv-gpu
FUZZ := .venv-fuzz
TRITON := .venv-triton
GRPCIO := .venv-grpcio
GRPCIO_VERSIONS := 1.76.0 1.80.1
NODE := client/node/node_modules/.package-lock.json
TYPESCRIPT := client/typescript/node_modules/.package-lock.json
PYTEST := -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo demo-load test lint bench protos \
	test-kernels test-training test-faults test-load test-lowest test-grpcio test-triton test-languages \
	test-deep test-large soak reliability fuzz fuzz-calls protos-check protos-baseline \
	bench-engine bench-wire bench-torch bench-decisions exactness gpu-check gpu-compile clean

##@ Main targets (Python 3.11 or later; the tests also need Node 20)

demo: $(VENV)/.demo  ## start a server, send it a photograph, draw the results: demo.png
	$(BIN)/pooling demo --output demo.png

demo-load: $(VENV)/.demo-load  ## start a server, load it at rising rates, write a report; a minute
	$(BIN)/python -m pooling_cli.demo.load build/demo-load

test: $(VENV)/.test $(NODE) $(TYPESCRIPT)  ## test engine, service and clients on the newest supported versions
	$(BIN)/python -m tests.support.compile_kernels
	$(BIN)/python $(PYTEST) $(filter-out $(OTHER_TESTS),$(wildcard tests/*/)) \
		--ignore tests/languages/debian

# Each of them has a target of its own.
OTHER_TESTS := $(patsubst %,tests/%/,gpu torch jax keras faults loadtest triton)

lint: $(VENV)/.test $(VENV)/.dev  ## run ruff, mypy, import-linter, buf and the compose schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against protos/baseline.binpb
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

bench: bench-engine  ## compare the speed of the engine with PyTorch and ONNX Runtime; ten minutes

protos:  ## regenerate the Python code of the contract
	scripts/gen_protos.sh

##@ More tests

test-lowest: $(LOWEST)/.test $(NODE)  ## run the tests on the oldest supported protobuf, grpcio and NumPy
	$(LOWEST)/bin/python $(PYTEST) tests/engine tests/wire tests/server tests/client tests/cli \
		--ignore tests/engine/libraries --ignore tests/engine/numba  # not installed there

GRPCIO_TESTS := $(addprefix tests/server/test_,polling_thread.py polled_streams.py streams.py \
	duration.py overload.py slow_clients.py rejections.py plain_client.py)
test-grpcio: $(VENV)/.test $(GRPCIO_VERSIONS:%=$(GRPCIO)-%/.test)  ## test the server on GRPCIO_VERSIONS, and with all calls in threads; two minutes
	for version in $(GRPCIO_VERSIONS); do \
		timeout 120 $(GRPCIO)-$$version/bin/python -m pytest $(GRPCIO_TESTS) || exit; \
	done
	POOLING_INLINE_CALLS=false timeout 300 $(BIN)/python $(PYTEST) tests/server \
		--ignore tests/server/test_polling_thread.py --ignore tests/server/test_polled_streams.py \
		--deselect tests/server/test_streams.py::test_an_idle_stream_does_not_count_and_its_next_item_may_be_rejected

test-kernels: $(VENV)/.test  ## test the CUDA kernels, compiled for the host, and the GPU backend; two minutes
	$(BIN)/python -m tests.gpu.shim
	$(BIN)/python $(PYTEST) tests/gpu

test-training: $(VENV)/.test  ## test the clients for PyTorch, JAX and Keras; three minutes
	$(BIN)/python $(PYTEST) tests/torch  # its compiled code makes a process flush subnormals
	$(BIN)/python $(PYTEST) tests/jax tests/keras  # JAX starts threads and sets its precision

test-faults: $(VENV)/.test  ## test clients and servers while processes, networks and disks fail; two minutes
	$(BIN)/python $(PYTEST) tests/faults --ignore tests/faults/test_forks.py
	$(BIN)/python -m pytest tests/faults/test_forks.py  # JAX's threads do not survive a fork

DEBIAN := g++ cmake libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc \
	nlohmann-json3-dev golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev \
	protoc-gen-go-1-5 protoc-gen-go-grpc openjdk-17-jdk-headless libgrpc-java libprotobuf-java \
	libguava-java libnetty-java libperfmark-java libgoogle-gson-java libgoogle-common-protos-java \
	libgeronimo-annotation-1.3-spec-java protobuf-compiler-grpc-java-plugin ruby ruby-grpc \
	ruby-googleapis-common-protos-types
test-languages: $(VENV)/.test  ## test C++, Go, Java and Ruby with Debian 12's packages, installed if missing; two minutes
	scripts/debian_packages.sh $(DEBIAN)
	$(BIN)/python -m pytest tests/languages/debian --timeout 300

test-triton: $(VENV)/.test $(TRITON)/.installed  ## call the server with NVIDIA's tritonclient, in an environment of its own
	$(TRITON)/bin/python -m pytest tests/triton

test-load: $(VENV)/.test  ## test load tests, and open a report in a browser; installs Chromium if missing
	scripts/debian_packages.sh chromium
	$(BIN)/python $(PYTEST) tests/loadtest
	$(BIN)/python -m pooling_cli.demo.load --duration 10 build/test-load
	$(BIN)/python -m tests.loadtest.open_report build/test-load

test-deep: $(VENV)/.test  ## run the engine tests with many more random cases; half an hour
	POOLING_TEST_EXAMPLES=5000 $(BIN)/python $(PYTEST) --timeout 0 tests/engine

test-large: $(VENV)/.test  ## stream 8 GiB through a server that stays below 1 GiB; half a minute
	POOLING_TEST_STREAM_MIB=8192 $(BIN)/python -m pytest -s tests/client/test_unbounded.py

SOAK_CALLS := 1000000
soak: $(VENV)/.test  ## make a million mixed calls (SOAK_CALLS), draw memory and descriptors
	$(BIN)/python -m benchmarks.reliability.soak --calls $(SOAK_CALLS)
	$(BIN)/python -m benchmarks.reliability --table

reliability: $(VENV)/.test  ## inject faults into real processes, write docs/reliability.md; ten minutes
	$(BIN)/python -m benchmarks.reliability

FUZZ_SECONDS := 60
fuzz: $(VENV)/.test $(FUZZ)/.installed  ## fuzz parsers and calls of all protocols; for 60 s each (FUZZ_SECONDS)
	$(FUZZ)/bin/python -m tests.wire.fuzz_parsing build/fuzz -artifact_prefix=build/fuzz- \
		-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -print_final_stats=1
	$(FUZZ)/bin/python -m tests.http.fuzz_json build/fuzz-json -artifact_prefix=build/fuzz-json- \
		-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -print_final_stats=1
	$(FUZZ)/bin/python -m tests.server.fuzzing.fuzz_calls build/fuzz-calls \
		-artifact_prefix=build/fuzz-calls- \
		-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -print_final_stats=1
	POOLING_FUZZ_EXAMPLES=8000 $(BIN)/python -m pytest --timeout 0 tests/oip/test_fuzzing.py

FUZZ_INPUTS := 1000000
fuzz-calls: $(VENV)/.test $(FUZZ)/.installed  ## make whole calls of a million fuzz inputs (FUZZ_INPUTS)
	$(FUZZ)/bin/python -m benchmarks.reliability.fuzzing --inputs $(FUZZ_INPUTS) \
		--corpus build/fuzz-calls
	$(BIN)/python -m benchmarks.reliability --table

protos-check:  ## compare the committed generated code with the .proto
	rm -rf build/protos && mkdir -p build/protos
	scripts/gen_protos.sh build/protos
	diff -r -x __init__.py -x __pycache__ build/protos/pooling_wire/v1 wire/pooling_wire/v1
	cmp build/protos/pooling_server/oip/open_inference.binpb \
		server/pooling_server/oip/open_inference.binpb

protos-baseline: $(VENV)/.dev  ## make this .proto the baseline of `buf breaking`, for a release
	$(BIN)/buf build --exclude-source-info --output protos/baseline.binpb

##@ More benchmarks

bench-engine: $(VENV)/.test  ## same as bench
	$(BIN)/python -m benchmarks.engine

bench-wire: $(VENV)/.test $(VENV)/.bench  ## compare the service with echo servers and Arrow Flight; ten minutes
	$(BIN)/python -m benchmarks.wire
	$(BIN)/python -m benchmarks.wire.load
	$(BIN)/python -m benchmarks.wire.callers
	$(BIN)/python -m benchmarks.wire.shared_memory
	$(BIN)/python -m benchmarks.wire.inference benchmarks/results/open-inference.json
	$(BIN)/python -m benchmarks.wire.goals

bench-torch: $(VENV)/.test  ## compare remote PyTorch modules with the client, the engine and PyTorch
	$(BIN)/python -m benchmarks.torch

bench-decisions: $(VENV)/.test  ## repeat the measurements behind ADRs 1, 3, 5, 6, 7, 8, 11, 13, 22 and 23
	$(BIN)/python -m benchmarks.decisions.server_kind_0001
	$(BIN)/python -m benchmarks.decisions.encode_0003
	$(BIN)/python -m benchmarks.decisions.codec_0005
	$(BIN)/python -m benchmarks.decisions.alignment_0005
	$(BIN)/python -m benchmarks.decisions.streams_0006
	$(BIN)/python -m benchmarks.decisions.workers_0007
	$(BIN)/python -m benchmarks.decisions.channel_0008 --table channel-options
	$(BIN)/python -m benchmarks.decisions.channel_0008 --table channel-allocator
	$(BIN)/python -m benchmarks.decisions.small_calls_0011
	$(BIN)/python -m benchmarks.decisions.polling_thread_0013
	$(BIN)/python -m benchmarks.decisions.http_0022
	$(BIN)/python -m benchmarks.decisions.round_trips_0023

exactness: $(VENV)/.test  ## compare results with four libraries; uses flax and tensorflow-cpu if installed
	$(BIN)/python -m benchmarks.exactness

##@ GPU

OUT ?= benchmarks/results
gpu-check:  ## test and measure on an NVIDIA GPU, with the packages of python3 and no network; ten minutes
	$(PYTHON) scripts/gpu/check.py --output "$(OUT)"

gpu-compile: $(GPU)/.compiler  ## compile every CUDA kernel for two GPU generations; needs no GPU
	$(GPU)/bin/python scripts/gpu/compile_kernels.py sm_80 sm_90

##@ Housekeeping

help:  ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "%s%s\n", n++ ? "\n" : "", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

clean:  ## remove virtual environments and build results
	rm -rf $(VENV) $(LOWEST) $(GPU) $(FUZZ) $(TRITON) $(GRPCIO)-* .venv-protos build demo.png client/node/node_modules

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	touch $@

$(VENV)/.demo-load: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --editable '.[server,load]'
	touch $@

$(VENV)/.test: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --editable '.[test,oracles]'
	touch $@

$(VENV)/.bench: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --editable '.[bench]'
	touch $@

$(VENV)/.dev: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@

$(LOWEST)/.test: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check \
		--constraint constraints-lowest.txt --editable '.[test]'
	touch $@

$(GRPCIO)-%/.test: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	grep -v -e '^grpcio' -e '^protobuf' constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/pip install --quiet --disable-pip-version-check --constraint $(@D)/constraints.txt \
		grpcio==$* grpcio-health-checking==$* grpcio-reflection==$* pytest pytest-timeout \
		hypothesis --editable '.[server]'
	touch $@

client/%/node_modules/.package-lock.json: client/%/package.json client/%/package-lock.json
	npm --prefix client/$* ci --ignore-scripts --no-audit --no-fund --loglevel=error

$(TRITON)/.installed: tests/triton/requirements.txt
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(FUZZ)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[fuzz]'
	touch $@

$(GPU)/.compiler: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		nvidia-cuda-nvrtc --editable '.[gpu-cuda13]'
	touch $@
