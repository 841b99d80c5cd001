#!/bin/sh
# Generates wire/pooling_wire/v1/ from protos/pooling/v1/pooling.proto, and the descriptors of the
# Open Inference Protocol from protos/inference/open_inference.proto.
#
# The toolchain is the oldest that the generated code must work with: newer runtimes accept older
# generated code, but not the reverse.
#
# The file is compiled under its published name, pooling/v1/pooling.proto, and then moved into our
# Python package. Thus the registered descriptor is the one that a user's own stubs register, and
# both can be imported into one process: protobuf accepts an identical file twice.
#
# usage: scripts/gen_protos.sh [OUTPUT_FOLDER]
set -eu
cd "$(dirname "$0")/.."
output=${1:-wire}/pooling_wire/v1
inference=${1:-server}/pooling_server/oip
venv=.venv-protos
if [ ! -e "$venv/.installed" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check \
        "grpcio==1.71.0" "grpcio-tools==1.71.0" "protobuf==5.29.5" "setuptools<81"
    touch "$venv/.installed"
fi
generated=$(mktemp -d)
trap 'rm -rf "$generated"' EXIT
"$venv/bin/python" -m grpc_tools.protoc -I protos \
    --python_out="$generated" --pyi_out="$generated" --grpc_python_out="$generated" \
    pooling/v1/pooling.proto
mkdir -p "$output"
for file in pooling_pb2.py pooling_pb2.pyi pooling_pb2_grpc.py; do
    # The Python module's name, in the import of _grpc and as the __module__ of the classes.
    sed -e 's/^from pooling\.v1 import/from pooling_wire.v1 import/' \
        -e "s/'pooling\.v1\.pooling_pb2'/'pooling_wire.v1.pooling_pb2'/" \
        -e 's|in pooling/v1/pooling_pb2_grpc\.py|in pooling_wire/v1/pooling_pb2_grpc.py|' \
        "$generated/pooling/v1/$file" > "$output/$file"
done
mkdir -p "$inference"
"$venv/bin/python" -m grpc_tools.protoc -I protos \
    --descriptor_set_out="$inference/open_inference.binpb" inference/open_inference.proto
