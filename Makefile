# make demo    start a server, send it a photograph, draw what comes back: demo.png
# make test    run the tests
# make lint    ruff, mypy, import-linter, buf, the compose file's schema
# make bench   measure the engine against PyTorch and ONNX Runtime; writes benchmarks/results/
# make protos  regenerate the Python code of the contract
#
# Everything installs into .venv from constraints.txt; nothing but Python 3.11+ is needed;
# the tests also need Node 20 or later, with npm.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
LOWEST := .venv-lowest
NODE := client/node/node_modules/.package-lock.json
GPU := .venv-gpu
FUZZ := .venv-fuzz
# What PyTorch makes on a card, and 4 GB there, are for a card.
ON_STAND_IN := (card or stand_in) and not (pytorch or need_a_gradient or 64_bits)
STAND_IN := LD_LIBRARY_PATH=build/stand_in $(GPU)/bin/python
BOTH_CORES := -n 2 --dist loadfile

.PHONY: gpu-check gpu-compile gpu-stand-in demo test test-deep test-lowest fuzz lint protos protos-check protos-baseline bench bench-engine bench-server-kind bench-channel bench-streams bench-wire test-large exactness clean

demo: $(VENV)/.demo
	$(BIN)/pooling demo --output demo.png

test: $(VENV)/.test $(NODE)
	$(BIN)/python -m tests.support.compile_kernels
	$(BIN)/python -m pytest $(BOTH_CORES)

# The same tests with many more random cases each; takes about half an hour.
test-deep: $(VENV)/.test
	POOLING_TEST_EXAMPLES=5000 $(BIN)/python -m pytest $(BOTH_CORES) tests/engine

# 8 GiB through a server that stays below 1 GiB; some half a minute.
test-large: $(VENV)/.test
	POOLING_TEST_STREAM_MIB=8192 $(BIN)/python -m pytest -s tests/client/test_unbounded.py

# The same tests on the oldest supported protobuf, grpcio and NumPy.
test-lowest: $(LOWEST)/.test $(NODE)
	$(LOWEST)/bin/python -m pytest $(BOTH_CORES) tests/engine tests/wire tests/server tests/client tests/cli

# The parser of messages against protobuf's own, on bytes that a fuzzer comes up with.
FUZZ_SECONDS := 60
fuzz: $(FUZZ)/.installed
	$(FUZZ)/bin/python -m tests.wire.fuzz_parsing build/fuzz -artifact_prefix=build/fuzz- \
		-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -print_final_stats=1

lint: $(VENV)/.test $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against protos/baseline.binpb
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

protos:
	scripts/gen_protos.sh

# Fails when the committed code is not what the .proto gives.
protos-check:
	rm -rf build/protos && mkdir -p build/protos
	scripts/gen_protos.sh build/protos
	diff -r -x __init__.py -x __pycache__ build/protos/pooling_wire/v1 wire/pooling_wire/v1

# What `buf breaking` compares with: renew it when a release is made.
protos-baseline: $(VENV)/.dev
	$(BIN)/buf build --exclude-source-info --output protos/baseline.binpb

bench: bench-engine

bench-engine: $(VENV)/.test
	$(BIN)/python -m benchmarks.engine

bench-server-kind: $(VENV)/.test
	$(BIN)/python -m benchmarks.decisions.server_kind_0001

bench-channel: $(VENV)/.test
	$(BIN)/python -m benchmarks.decisions.channel_0008 --table channel-options
	$(BIN)/python -m benchmarks.decisions.channel_0008 --table channel-allocator

bench-streams: $(VENV)/.test
	$(BIN)/python -m benchmarks.decisions.streams_0006

bench-wire: $(VENV)/.test $(VENV)/.bench
	$(BIN)/python -m benchmarks.wire

# Every CUDA kernel, compiled for two generations of cards; needs none, but some minutes.
gpu-compile: $(GPU)/.compiler
	$(GPU)/bin/python scripts/compile_kernels.py sm_80 sm_90

# The real CuPy on a stand-in for CUDA, without a card: what we ask of it, and how it passes that on.
# Not for CI: it writes over functions in CuPy's wheel, which another release may not have.
gpu-stand-in: $(GPU)/.tests
	$(STAND_IN) -m tests.gpu.stand_in.place
	POOLING_REQUIRE_GPU=1 $(STAND_IN) -m pytest -p tests.gpu.stand_in.place -k "$(ON_STAND_IN)" \
		tests/gpu/stand_in/check_stand_in.py tests/gpu/test_card.py tests/gpu/test_bits.py \
		tests/gpu/test_positions.py tests/gpu/test_norms.py

# All that needs an NVIDIA card, within ten minutes; uses what python3 has, and no network.
OUT ?= benchmarks/results
gpu-check:
	$(PYTHON) scripts/gpu_check.py --output "$(OUT)"

# Asks every library live; flax and tensorflow-cpu are used where they are installed.
exactness: $(VENV)/.test
	$(BIN)/python -m benchmarks.exactness

clean:
	rm -rf $(VENV) $(LOWEST) $(GPU) $(FUZZ) .venv-protos build demo.png client/node/node_modules

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/.test: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[test,oracles]'
	touch $@

$(VENV)/.bench: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[bench]'
	touch $@

$(VENV)/.dev: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

$(LOWEST)/.test: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check \
		--constraint constraints-lowest.txt --editable '.[test]'
	touch $@

# For the tests of the calls from Node.
$(NODE): client/node/package.json client/node/package-lock.json
	npm --prefix client/node ci --ignore-scripts --no-audit --no-fund --loglevel=error

$(FUZZ)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/bin/pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[fuzz]'
	touch $@

$(GPU)/.compiler: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt \
		nvidia-cuda-nvrtc --editable '.[gpu-cuda13]'
	touch $@

$(GPU)/.tests: $(GPU)/.compiler
	$(GPU)/bin/pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt pytest hypothesis
	touch $@
