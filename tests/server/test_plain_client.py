"""A client built from the .proto alone: plain stubs, with results checked by the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pooling_wire.v1 import pooling_pb2 as pb
from tests.support import oracle

SHAPE = (2, 3, 7, 6)
WINDOWS = ((3, 2, 1, 1, 1), (2, 1, 2, 0, 1))  # kernel, stride, dilation, before, after
MODES = ("max", "min", "average", "sum", "lp")


def request_spec(mode: str) -> pb.PoolSpec:
    axes = [
        pb.Window(kernel=k, stride=s, dilation=d, padding_before=before, padding_after=after)
        for k, s, d, before, after in WINDOWS
    ]
    return pb.PoolSpec(
        mode=pb.Mode.Value(f"MODE_{mode.upper()}"),
        sliding_windows=pb.SlidingWindows(axes=axes),
    )


def tensor_of(array: np.ndarray) -> pb.Tensor:
    number = pb.ElementType.Value(f"ELEMENT_TYPE_{array.dtype.name.upper()}")
    return pb.Tensor(element_type=number, shape=array.shape, data=array.tobytes())


def array_of(tensor: pb.Tensor) -> np.ndarray:
    name = pb.ElementType.Name(tensor.element_type).removeprefix("ELEMENT_TYPE_").lower()
    return np.frombuffer(tensor.data, name).reshape(tensor.shape)


@pytest.mark.parametrize("mode", MODES)
def test_forward_and_backward(stub: Any, mode: str) -> None:
    x = np.random.default_rng(1).standard_normal(SHAPE)
    selects = mode in ("max", "min")
    reply = stub.Forward(
        pb.ForwardRequest(spec=request_spec(mode), input=tensor_of(x), return_indices=selects)
    )
    expected = oracle.forward(x, mode, WINDOWS).output
    np.testing.assert_allclose(array_of(reply.output), expected, rtol=1e-13, atol=1e-13)
    assert reply.HasField("indices") == selects

    dy = np.random.default_rng(2).standard_normal(expected.shape)
    residual: dict[str, Any] = {"input_shape": SHAPE}
    if selects:
        residual["indices"] = reply.indices
    if mode == "lp":
        residual = {"input": tensor_of(x)}
    reply = stub.Backward(
        pb.BackwardRequest(spec=request_spec(mode), output_gradient=tensor_of(dy), **residual)
    )
    gradient = array_of(reply.input_gradient)
    assert gradient.shape == SHAPE
    known = {"taps": oracle.forward(x, mode, WINDOWS).taps} if selects else {"x": x}
    expected = oracle.backward(dy, mode, SHAPE, WINDOWS, **known)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-12)


def test_server_info(stub: Any) -> None:
    info = stub.GetServerInfo(pb.GetServerInfoRequest())
    assert pb.ELEMENT_TYPE_FLOAT16 in info.backends[0].element_types
    assert info.limits.max_message_bytes == 32 << 20
