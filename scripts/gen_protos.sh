#!/bin/sh
# Generates wire/pooling_wire/v1/ from the .proto with the oldest toolchain that the
# generated code must work with: newer runtimes accept older code, not the reverse.
# usage: scripts/gen_protos.sh [OUTPUT_FOLDER]
set -eu
cd "$(dirname "$0")/.."
output=${1:-wire}
venv=.venv-protos
if [ ! -e "$venv/.installed" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check \
        "grpcio==1.71.0" "grpcio-tools==1.71.0" "protobuf==5.29.5" "setuptools<81"
    touch "$venv/.installed"
fi
"$venv/bin/python" -m grpc_tools.protoc -I pooling_wire/v1=protos/pooling/v1 \
    --python_out="$output" --pyi_out="$output" --grpc_python_out="$output" \
    pooling_wire/v1/pooling.proto
