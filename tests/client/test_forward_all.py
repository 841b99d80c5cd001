"""Several layers of one input: results, transports, old servers and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

import pooling_engine
from pooling_client import (
    AsyncPoolingClient,
    InvalidSpecError,
    PoolingClient,
    PoolSpec,
)
from pooling_server import PoolingServer, ServerConfig
from pooling_wire import FORWARD
from pooling_wire.v1 import pooling_pb2 as pb
from tests.support.cases import hard

SPP = [PoolSpec("max", kernel, 1, kernel // 2) for kernel in (5, 9, 13)]
MIXED = [PoolSpec("average", 2), PoolSpec("max", 3, 2), PoolSpec("max", adaptive_output=3)]
FLAGS = [False, True, True]
SMALL = hard((2, 3, 14, 14))
LARGE = hard((24, 16, 60, 60), has_nan=False)  # 5.5 MB: its results are streamed in parts


def assert_results(results: Any, x: Any, specs: Any, flags: Any, format_: str = "window") -> None:
    """Compare with one call of the engine for each layer."""
    assert len(results) == len(specs)
    for result, spec, flag in zip(results, specs, flags, strict=True):
        expected = pooling_engine.forward(
            x, spec, return_indices=flag, index_format=format_ if flag else "window"
        )
        np.testing.assert_array_equal(result.output, expected.output, strict=True)
        assert result.output.flags.writeable
        if flag:
            np.testing.assert_array_equal(result.indices, expected.indices, strict=True)
        else:
            assert result.indices is None


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of layers of each request."""
    layers: list[int] = []

    parts = FORWARD.request.parts

    def counted(call: Any, places: Any) -> Any:
        layers.append(len(getattr(call, "calls", (call,))))
        return parts(call, places)

    monkeypatch.setattr(FORWARD.request, "parts", counted)
    return layers


@pytest.mark.parametrize("format_", ["window", "plane", "tensor"])
def test_one_request_has_the_results_of_all_layers(
    client: PoolingClient, sent: list[int], format_: str
) -> None:
    results = client.forward_all(SMALL, MIXED, return_indices=FLAGS, index_format=format_)
    assert_results(results, SMALL, MIXED, FLAGS, format_)
    assert set(sent) == {3}


def test_an_asyncio_client_does_the_same(server: PoolingServer, sent: list[int]) -> None:
    async def main() -> Any:
        async with AsyncPoolingClient(server.address) as client:
            return [await client.forward_all(x, SPP, return_indices=True) for x in (SMALL, LARGE)]

    small, large = asyncio.run(main())
    assert_results(small, SMALL, SPP, [True] * 3)
    assert_results(large, LARGE, SPP, [True] * 3)
    assert set(sent) == {3}


def test_a_large_batch_is_sent_once_in_parts(client: PoolingClient, sent: list[int]) -> None:
    results = client.forward_all(LARGE, MIXED, return_indices=FLAGS, index_format="plane")
    assert_results(results, LARGE, MIXED, FLAGS, "plane")
    results = client.forward_all(LARGE, SPP)
    assert_results(results, LARGE, SPP, [False] * 3)
    assert set(sent) == {3}
    assert len(sent) > 2


def test_positions_in_a_large_tensor_are_requested_layer_by_layer(
    client: PoolingClient, sent: list[int]
) -> None:
    results = client.forward_all(LARGE, SPP, return_indices=True, index_format="tensor")
    assert_results(results, LARGE, SPP, [True] * 3, "tensor")
    assert set(sent) == {1}


def test_one_layer_and_an_empty_batch(client: PoolingClient) -> None:
    (result,) = client.forward_all(SMALL, SPP[:1])
    assert_results([result], SMALL, SPP[:1], [False])
    assert_results(client.forward_all(SMALL[:0], SPP), SMALL[:0], SPP, [False] * 3)


def test_calls_in_shared_memory_share_the_input(tmp_path: Any) -> None:
    address = f"unix:{tmp_path}/s"
    own = PoolingServer(ServerConfig(listen=address, backend="numpy", warm_up=False))
    own.start()
    with PoolingClient(address) as client:
        results = client.forward_all(LARGE, MIXED, return_indices=FLAGS)
        assert_results(results, LARGE, MIXED, FLAGS)
    assert own.stop()


class OldServer:
    """Server that does not know `more`: it replies with the result of the first layer."""

    def __init__(self) -> None:
        handlers = {
            "Forward": grpc.unary_unary_rpc_method_handler(lambda data, _: self.answer(data)),
            "ForwardStream": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        service = grpc.method_handlers_generic_handler("pooling.v1.PoolingService", handlers)
        self.requests = 0
        options = [("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(4), options=options)
        self._server.add_generic_rpc_handlers((service,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def answer(self, data: bytes) -> bytes:
        self.requests += 1
        request = pb.ForwardRequest.FromString(data)
        request.ClearField("more")
        call = FORWARD.decode_request(request.SerializeToString()).call
        return FORWARD.encode_response(pooling_engine.run(call, backend="numpy"))

    def _stream(self, items: Any, _: Any) -> Iterator[bytes]:
        for data in items:
            item = pb.ForwardStreamRequest.FromString(data)
            response = pb.ForwardResponse.FromString(self.answer(item.request.SerializeToString()))
            yield pb.ForwardStreamResponse(id=item.id, response=response).SerializeToString()

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def old() -> Iterator[OldServer]:
    server = OldServer()
    yield server
    server.stop()


@pytest.mark.parametrize("x", [SMALL, LARGE], ids=["small", "large"])
def test_an_old_server_is_noticed_once(old: OldServer, x: Any) -> None:
    with PoolingClient(f"127.0.0.1:{old.port}") as client:
        results = client.forward_all(x, MIXED, return_indices=FLAGS)
        assert_results(results, x, MIXED, FLAGS)
        before = old.requests
        results = client.forward_all(SMALL, MIXED, return_indices=FLAGS)
        assert_results(results, SMALL, MIXED, FLAGS)
        assert old.requests == before + 3


@pytest.mark.parametrize(
    ("specs", "options", "field"),
    [
        ([], {}, "specs"),
        (SPP[:1] * 65, {}, "specs"),
        (SPP[0], {}, "specs"),
        ([SPP[0], PoolSpec("max", 20)], {}, "specs[1].kernel[0]"),
        ([SPP[0], PoolSpec("sum", 2)], {"return_indices": True}, "specs[1].return_indices"),
        (SPP, {"return_indices": [True]}, "return_indices"),
        (SPP, {"return_indices": True, "index_format": "flat"}, "specs[0].index_format"),
    ],
)
def test_invalid_arguments_fail_in_client_and_engine_alike(
    client: PoolingClient, specs: Any, options: Any, field: str
) -> None:
    for forward_all in (client.forward_all, pooling_engine.forward_all):
        with pytest.raises(InvalidSpecError) as caught:
            forward_all(SMALL, specs, **options)
        assert caught.value.field == field


def test_the_server_names_the_invalid_layer(stub: Any) -> None:
    request = pb.ForwardRequest.FromString(
        FORWARD.encode_request(pooling_engine.ForwardCall(SMALL, SPP[0]))
    )
    layer = request.more.add(spec=request.spec)
    layer.spec.sliding_windows.axes[1].kernel = -1
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "more[0]" in caught.value.details()
    del request.more[:]
    request.more.extend([pb.ForwardLayer(spec=request.spec)] * 64)
    with pytest.raises(grpc.RpcError, match="65 layers; 1 to 64 are legal"):
        stub.Forward(request)


def test_several_layers_have_no_locations_for_results(stub: Any) -> None:
    call = pooling_engine.ForwardAllCall(
        tuple(pooling_engine.ForwardCall(SMALL, spec) for spec in SPP)
    )
    request = pb.ForwardRequest.FromString(FORWARD.encode_request(call))
    request.output_place.handle = b"handle"
    with pytest.raises(grpc.RpcError) as caught:
        stub.Forward(request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("limits", "limit"),
    [({"max_message_bytes": 24_000}, "max_message_bytes"), ({"max_taps": 60_000}, "max_taps")],
)
def test_limits_apply_to_all_layers_together(limits: Any, limit: str) -> None:
    """One layer fits, the three together do not; the client then sends them one by one."""
    x = hard((2, 3, 28, 28), has_nan=False)  # 18816 bytes, 4704 elements
    own = PoolingServer(
        ServerConfig(listen="127.0.0.1:0", backend="numpy", warm_up=False, **limits)
    )
    own.start()
    specs = [PoolSpec("sum", 5, 1, 2)] * 3
    call = pooling_engine.ForwardAllCall(
        tuple(pooling_engine.ForwardCall(x, spec) for spec in specs)
    )
    with grpc.insecure_channel(own.address) as channel:
        forward = channel.unary_unary(FORWARD.path)
        forward(FORWARD.encode_request(call.calls[0]))
        with pytest.raises(grpc.RpcError, match=limit.replace("_", "-")) as caught:
            forward(FORWARD.encode_request(call))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with PoolingClient(own.address) as client:
        assert_results(client.forward_all(x, specs), x, specs, [False] * 3)
    assert own.stop()
