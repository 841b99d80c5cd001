"""Requests of the Open Inference Protocol over gRPC: contents, outputs, errors and information."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest

import pooling_engine
from pooling_server import PoolingServer, ServerConfig
from pooling_server.oip.messages import message_class
from tests.oip.grpc_support import LIMIT_S, SERVICE, call, infer, message_of, outputs_of, record_of
from tests.oip.translation import Request, tensor_of

X = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
SPEC = pooling_engine.PoolSpec("max", 2)
POOLED, INDICES = pooling_engine.forward(X, SPEC, return_indices=True)


@pytest.fixture(scope="module")
def server() -> Iterator[PoolingServer]:
    server = PoolingServer(ServerConfig(listen="127.0.0.1:0", backend="numpy", warm_up=False))
    server.start()
    yield server
    assert server.stop(), "calls were left in flight"


@pytest.fixture(scope="module")
def channel(server: PoolingServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def request(**changes: Any) -> Request:
    """Return a valid request with changes."""
    valid = Request("max_pool2d", {"kernel": 2}, {"input": tensor_of(X)}, [])
    return valid._replace(**changes)


def error(channel: grpc.Channel, message: Any) -> tuple[dict[str, str], str]:
    """Return the error of an invalid request, and its text."""
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, message)
    return record_of(caught.value), caught.value.details()


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([], ["output"]),
        (["output"], ["output"]),
        (["indices"], ["indices"]),
        (["indices", "output"], ["indices", "output"]),
        (["output", "indices", "output"], ["output", "indices"]),
    ],
)
def test_the_outputs_are_those_requested_in_their_order(
    channel: grpc.Channel, outputs: list[str], expected: list[str]
) -> None:
    arrays = {"output": POOLED, "indices": INDICES}
    reply = infer(channel, message_of(request(outputs=outputs)))
    assert list(outputs_of(reply).items()) == [(n, tensor_of(arrays[n])) for n in expected]


@pytest.mark.parametrize(
    ("dtype", "contents"),
    [
        ("int8", "int_contents"),
        ("int16", "int_contents"),
        ("int32", "int_contents"),
        ("int64", "int64_contents"),
        ("uint8", "uint_contents"),
        ("float32", "fp32_contents"),
        ("float64", "fp64_contents"),
    ],
)
def test_typed_contents_are_pooled_like_raw_ones(
    channel: grpc.Channel, dtype: str, contents: str
) -> None:
    message = message_of(request(inputs={"input": tensor_of(X.astype(dtype))}))
    raw = infer(channel, message)
    del message.raw_input_contents[:]
    getattr(message.inputs[0].contents, contents).extend(X.astype(dtype).ravel().tolist())
    assert infer(channel, message) == raw


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_floats_are_raw(channel: grpc.Channel, dtype: Any) -> None:
    x = X.astype(dtype)
    reply = infer(channel, message_of(request(inputs={"input": tensor_of(x)})))
    assert outputs_of(reply)["output"] == tensor_of(pooling_engine.forward(x, SPEC).output)
    message = message_of(request(inputs={"input": tensor_of(x)}))
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.extend(X.ravel().tolist())
    record, text = error(channel, message)
    assert record["field"] == "inputs[0].contents"
    assert "raw_input_contents" in text


def test_a_gradient_takes_indices_and_a_shape_or_the_input(channel: grpc.Channel) -> None:
    gradient = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    expected = pooling_engine.backward(gradient, SPEC, input_shape=X.shape, indices=INDICES)
    tensors = {"output_gradient": tensor_of(gradient), "indices": tensor_of(INDICES)}
    shaped = Request("max_pool2d_gradient", {"kernel": 2, "input_shape": "1,2,4,4"}, tensors, [])
    tensors = {"output_gradient": tensor_of(gradient), "input": tensor_of(X)}
    with_input = Request("max_pool2d_gradient", {"kernel": 2}, tensors, [])
    for each in (shaped, with_input):
        reply = infer(channel, message_of(each))
        assert outputs_of(reply) == {"input_gradient": tensor_of(expected)}


def changed(change: Any) -> Any:
    message = message_of(request())
    change(message)
    return message


def typed(message: Any) -> None:
    message.inputs[0].contents.fp32_contents.extend(X.ravel().tolist())


def only_typed(**contents: Any) -> Any:
    message = message_of(request())
    del message.raw_input_contents[:]
    for name, values in contents.items():
        getattr(message.inputs[0].contents, name).extend(values)
    return message


INVALID = {
    "unknown model": (message_of(request(model="max_pool4d")), "model_name", "max_pool4d"),
    "unknown version": (
        changed(lambda m: setattr(m, "model_version", "2")),
        "model_version",
        "'2'",
    ),
    "unknown parameter": (
        message_of(request(parameters={"kernel": 2, "strides": 1})),
        "parameters.strides",
        "stride",
    ),
    "a size of the wrong type": (
        message_of(request(parameters={"kernel": 2.5})),
        "parameters.kernel",
        "2.5",
    ),
    "sizes that are no numbers": (
        message_of(request(parameters={"kernel": "2,x"})),
        "parameters.kernel",
        "3,2",
    ),
    "pairs that are no pairs": (
        message_of(request(parameters={"kernel": 2, "padding": "0:1,1"})),
        "parameters.padding",
        "0:1,2:2",
    ),
    "a flag of the wrong type": (
        message_of(request(parameters={"kernel": 2, "ceil_mode": 1})),
        "parameters.ceil_mode",
        "1",
    ),
    "a name of the wrong type": (
        message_of(request(parameters={"kernel": 2, "index_format": 1})),
        "parameters.index_format",
        "text",
    ),
    "an unset parameter": (
        changed(lambda m: m.parameters["stride"].SetInParent()),
        "parameters.stride",
        "no value",
    ),
    "an illegal size": (
        message_of(request(parameters={"kernel": "2,0"})),
        "parameters.kernel[1]",
        "0",
    ),
    "an input of another name": (
        message_of(request(inputs={"x": tensor_of(X)})),
        "inputs.x",
        "input",
    ),
    "no input": (message_of(request(inputs={})), "inputs.input", "missing"),
    "an input twice": (
        changed(lambda m: m.inputs.append(m.inputs[0])),
        "inputs[1].name",
        "second",
    ),
    "an output of another name": (message_of(request(outputs=["y"])), "outputs.y", "output"),
    "a tensor of another rank": (
        message_of(request(model="max_pool1d")),
        "input.shape",
        "3 axes",
    ),
    "an unknown datatype": (
        changed(lambda m: setattr(m.inputs[0], "datatype", "FP8")),
        "inputs[0].datatype",
        "FP8",
    ),
    "too many axes": (
        changed(lambda m: m.inputs[0].shape.extend([1] * 9)),
        "inputs[0].shape",
        "13 axes",
    ),
    "a negative size": (
        changed(lambda m: m.inputs[0].shape.append(-1)),
        "inputs[0].shape",
        "-1",
    ),
    "too few bytes": (
        changed(lambda m: m.raw_input_contents.__setitem__(0, b"123")),
        "raw_input_contents[0]",
        "3 bytes",
    ),
    "too many raw contents": (
        changed(lambda m: m.raw_input_contents.append(b"")),
        "raw_input_contents",
        "2 entries",
    ),
    "typed and raw contents": (changed(typed), "inputs[0].contents", "both"),
    "no contents": (only_typed(), "inputs[0].contents", "0 bytes"),
    "typed contents of another type": (
        only_typed(int_contents=[1]),
        "inputs[0].contents.int_contents",
        "fp32_contents",
    ),
    "too few typed contents": (
        only_typed(fp32_contents=[1]),
        "inputs[0].contents.fp32_contents",
        "1 elements",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_error_names_the_field_as_the_caller_wrote_it(channel: grpc.Channel, name: str) -> None:
    message, field, part = INVALID[name]
    record, text = error(channel, message)
    assert record["code"] == "INVALID_ARGUMENT"
    assert record["field"] == field
    assert part in text


def test_integers_outside_the_range_of_their_datatype_are_rejected(channel: grpc.Channel) -> None:
    message = only_typed(int_contents=[200] * 32)
    message.inputs[0].datatype = "INT8"
    record, text = error(channel, message)
    assert record["field"] == "inputs[0].contents.int_contents"
    assert "INT8" in text


LONG = "\N{SNOWMAN}" * 20_000
LONG_TEXTS: dict[str, dict[str, Any]] = {
    "model_name": {"model": LONG},
    f"parameters.{LONG}": {"parameters": {LONG: 1}},
    "kernel": {"parameters": {"kernel": LONG}},
    "outputs": {"outputs": [LONG]},
}


@pytest.mark.parametrize("changes", LONG_TEXTS.values(), ids=lambda changes: next(iter(changes)))
def test_an_error_that_repeats_a_long_text_still_arrives(
    channel: grpc.Channel, changes: dict[str, Any]
) -> None:
    record, text = error(channel, message_of(request(**changes)))
    assert record["code"] == "INVALID_ARGUMENT"
    assert record["reason"] == "INVALID_SPEC"
    assert "\N{SNOWMAN}" in text
    assert len(text) < 1000


def test_an_error_in_a_stream_has_the_id_of_its_item(channel: grpc.Channel) -> None:
    short = message_of(request(), "short")
    short.raw_input_contents[0] = b"x"
    items = [
        short,
        message_of(request(model="max_pool9d"), "model"),
        message_of(request(), "valid"),
    ]
    call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    sent = (item.SerializeToString() for item in items)
    parse = message_class("ModelStreamInferResponse").FromString
    replies = [parse(reply) for reply in call(sent, timeout=LIMIT_S)]
    assert [reply.infer_response.id for reply in replies] == ["short", "model", "valid"]
    assert [reply.infer_response.model_name for reply in replies] == [
        "max_pool2d",
        "max_pool9d",
        "max_pool2d",
    ]
    assert [bool(reply.error_message) for reply in replies] == [True, True, False]


def test_truncated_messages_are_rejected(channel: grpc.Channel) -> None:
    data = message_of(request()).SerializeToString()
    for end in (1, 20, len(data) - 1):
        record, _ = error(channel, data[:end])
        assert record["code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "name", ["SystemSharedMemoryRegister", "CudaSharedMemoryStatus", "TraceSetting", "LogSettings"]
)
def test_methods_left_out_say_why(channel: grpc.Channel, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/inference.GRPCInferenceService/{name}")(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert name in caught.value.details()
    assert "Memory" not in name or "unix:" in caught.value.details()


def test_tensors_in_registered_memory_are_rejected(channel: grpc.Channel) -> None:
    message = message_of(request())
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    record, text = error(channel, message)
    assert record["code"] == "UNIMPLEMENTED"
    assert "unix:" in text


def test_the_server_describes_itself_and_its_models(channel: grpc.Channel) -> None:
    def about(method: str, **fields: Any) -> Any:
        return call(channel, method, message_class(f"{method}Request")(**fields))

    assert about("ServerLive").live
    assert about("ServerReady").ready
    assert about("ModelReady", name="lp_pool3d_gradient").ready
    assert not about("ModelReady", name="lp_pool").ready
    assert about("ServerMetadata").name == "pooling"
    index = [model.name for model in about("RepositoryIndex").models]
    assert len(set(index)) == len(index) == 30
    metadata = about("ModelMetadata", name="max_pool2d_gradient")
    assert [tensor.name for tensor in metadata.inputs] == ["output_gradient", "indices", "input"]
    assert list(metadata.outputs[0].shape) == [-1] * 4
    config = about("ModelConfig", name="max_pool2d_gradient").config
    assert [tensor.optional for tensor in config.input] == [False, True, True]
    for name in ("ModelMetadata", "ModelConfig", "ModelStatistics"):
        with pytest.raises(grpc.RpcError) as caught:
            about(name, name="no_model")
        assert record_of(caught.value)["field"] == "model_name"


def test_statistics_count_the_requests_of_a_model(channel: grpc.Channel) -> None:
    def counts() -> Any:
        message = message_class("ModelStatisticsRequest")(name="sum_pool2d")
        return call(channel, "ModelStatistics", message).model_stats[0]

    before = counts()
    infer(channel, message_of(request(model="sum_pool2d")))
    error(channel, message_of(request(model="sum_pool2d", parameters={})))
    after = counts()
    assert after.inference_count == before.inference_count + 1
    assert after.inference_stats.fail.count == before.inference_stats.fail.count + 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns


def test_replies_have_an_id_and_times_as_trailers(channel: grpc.Channel) -> None:
    data = message_of(request()).SerializeToString()
    method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    _, finished = method.with_call(data, timeout=30, metadata=(("x-request-id", "mine"),))
    trailers = dict(finished.trailing_metadata())
    assert trailers["x-request-id"] == "mine"
    assert trailers["server-timing"].startswith("queue;dur=")


def test_large_tensors_and_results_over_a_limit_are_rejected() -> None:
    config = ServerConfig(
        listen="127.0.0.1:0", backend="numpy", warm_up=False, max_message_bytes=2000
    )
    server = PoolingServer(config)
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        big = np.zeros((1, 1, 25, 25), np.float32)
        record, text = error(channel, message_of(request(inputs={"input": tensor_of(big)})))
        assert record["code"] == "RESOURCE_EXHAUSTED"
        assert "--max-message-bytes" in text
    assert server.stop()
