"""The vectors through `PoolingClient` and `AsyncPoolingClient`."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from pooling_client import AsyncPoolingClient, PoolingClient
from pooling_engine import ForwardAllCall
from pooling_server import PoolingServer
from pooling_wire import BACKWARD, FORWARD
from tests.vectors.messages import tensor_message
from tests.vectors.replay import assert_tensor, load, names, request_of

TENSORS = [name for name in names() if name not in ("errors", "streams")]


def load_replies(name: str) -> list[dict[str, Any]]:
    """Return the vectors of a file that have a reply."""
    return [vector for vector in load(name) if "reply" in vector]


@pytest.mark.parametrize("name", TENSORS)
def test_the_client_returns_exactly_the_tensors(client: PoolingClient, name: str) -> None:
    for vector in load_replies(name):
        assert_result(vector, _call(client, vector))


@pytest.mark.parametrize("name", TENSORS)
def test_the_asyncio_client_returns_exactly_the_tensors(server: PoolingServer, name: str) -> None:
    async def results(vectors: list[dict[str, Any]]) -> list[Any]:
        async with AsyncPoolingClient(server.address) as client:
            return await asyncio.gather(*[_call(client, vector) for vector in vectors])

    vectors = load_replies(name)
    for vector, result in zip(vectors, asyncio.run(results(vectors)), strict=True):
        assert_result(vector, result)


def _call(client: Any, vector: dict[str, Any]) -> Any:
    """Call either client with the arguments in the request of a vector."""
    data = request_of(vector).SerializeToString()
    if vector["method"] == "Forward":
        call = FORWARD.decode_request(data).call
        if isinstance(call, ForwardAllCall):
            specs = [layer.spec for layer in call.calls]
            flags = [layer.return_indices for layer in call.calls]
            return client.forward_all(call.input, specs, return_indices=flags)
        return client.forward(call.input, call.spec, return_indices=call.return_indices)
    back = BACKWARD.decode_request(data).call
    return client.backward(
        back.output_gradient,
        back.spec,
        input_shape=back.input_shape,
        indices=back.indices,
        input=back.input,
    )


def assert_result(vector: dict[str, Any], result: Any) -> None:
    if vector["method"] == "Backward":
        assert_arrays({"inputGradient": result}, vector["reply"])
        return
    more = vector["reply"].get("more", [])
    results = result if more else [result]
    for each, record in zip(results, [vector["reply"], *more], strict=True):
        tensors = {name: value for name, value in record.items() if name != "more"}
        assert_arrays({"output": each.output, "indices": each.indices}, tensors)


def assert_arrays(arrays: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name for name, array in arrays.items() if array is not None} == expected.keys()
    for name, record in expected.items():
        assert_tensor(tensor_message(np.asarray(arrays[name])), record)
