"""Random bodies for both decoders: each yields a call or one error, and nothing else.

`POOLING_FUZZ_EXAMPLES` sets the number of cases; `make fuzz` runs many.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pooling_engine import BackwardCall, ForwardCall, PoolingError
from pooling_server.oip.infer_messages import InferExchange
from pooling_server.oip.json_messages import RestExchange
from pooling_server.oip.statistics import Statistics
from pooling_wire.shared_memory import NO_REGIONS
from tests.oip.grpc_support import message_of
from tests.oip.translation import Request, tensor_of

EXAMPLES = int(os.environ.get("POOLING_FUZZ_EXAMPLES", "40"))
X = np.ones((1, 1, 4, 4), np.float32)
SEED = message_of(
    Request("max_pool2d", {"kernel": 2, "padding": "0:1,1:0"}, {"input": tensor_of(X)}, ["output"])
).SerializeToString()
STATISTICS = Statistics()
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def decode(exchange: Any, data: bytes) -> None:
    """Decode a request; anything but a call and a PoolingError fails the test."""
    with suppress(PoolingError):
        placed = exchange.decode_request(data, NO_REGIONS)
        assert isinstance(placed.call, ForwardCall | BackwardCall)


@fuzzed
@given(st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), max_size=6))
def test_changed_bytes_of_a_message(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SEED)
    for place, byte in changes:
        data[place] = byte
    decode(InferExchange(STATISTICS), bytes(data))


@fuzzed
@given(st.binary(max_size=200), st.integers(0, len(SEED)))
def test_bytes_after_a_truncated_message(tail: bytes, end: int) -> None:
    decode(InferExchange(STATISTICS), SEED[:end] + tail)


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["input", "FP32", "BF16", "INT64", "output", "2,2", "0:1", "same_upper"]),
)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_LEAVES, inner),
    max_leaves=6,
)
_KEYS = ["parameters", "inputs", "outputs", "id"]
_INPUT_KEYS = ["name", "shape", "datatype", "data", "parameters"]
_VALID = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": X.ravel().tolist()}


@fuzzed
@given(
    st.dictionaries(st.sampled_from(_KEYS), _JSON),
    st.dictionaries(st.sampled_from(_INPUT_KEYS), _JSON),
    st.dictionaries(st.sampled_from(["kernel", "padding", "norm_p", "layout"]), _LEAVES),
    st.binary(max_size=70),
    st.sampled_from([None, 0, 10, 10_000, "all"]),
)
def test_requests_in_json(
    changes: Any, of_input: Any, parameters: Any, tail: bytes, size: Any
) -> None:
    valid = {"parameters": {"kernel": 2} | parameters, "inputs": [_VALID | of_input]}
    head = json.dumps(valid | changes).encode()
    length = len(head) if size == "all" else size
    decode(RestExchange("max_pool2d", "", length, STATISTICS), head + tail)


@fuzzed
@given(st.binary(max_size=100))
def test_bytes_as_json(data: bytes) -> None:
    decode(RestExchange("max_pool2d", "", None, STATISTICS), data)
