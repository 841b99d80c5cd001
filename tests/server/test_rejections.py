"""Every error that a unary call can return, as a table, through plain generated stubs.

After each error, the same server answers a valid request.
"""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from pooling_wire.v1 import pooling_pb2 as pb
from tests.server.support import (
    BAD_SPEC,
    BAD_TENSOR,
    TOO_LARGE,
    UNSUPPORTED,
    assert_rejected,
    assert_serves,
)
from tests.support.requests import adaptive, backward, forward, positions, sliding, spec, tensor

GIB2 = 2 << 30
AXES = "spec.sliding_windows.axes"
WIDE = pb.Window(kernel=2**15, stride=1, padding_before=2**15 - 1, padding_after=2**15 - 1)
PADDED_TO_4_GIB = {"sliding_windows": pb.SlidingWindows(axes=[WIDE, WIDE])}
LARGE = {"sliding_windows": pb.SlidingWindows(axes=[pb.Window(kernel=23171)] * 2)}
AVERAGE, LP = pb.MODE_AVERAGE, pb.MODE_LP

FORWARD_ERRORS = {
    "no spec": (forward(spec=None), BAD_SPEC, "spec"),
    "no input": (forward(input=None), BAD_TENSOR, "input"),
    "mode unset": (forward(spec=spec(mode=0)), BAD_SPEC, "spec.mode"),
    "mode unknown": (forward(spec=spec(mode=99)), BAD_SPEC, "spec.mode"),
    "layout unknown": (forward(spec=spec(layout=9)), BAD_SPEC, "spec.layout"),
    "no windows": (forward(spec=spec(windows={})), BAD_SPEC, AXES),
    "windows of no axis": (
        forward(spec=spec(windows={"sliding_windows": pb.SlidingWindows()})),
        BAD_SPEC,
        AXES,
    ),
    "windows of seven axes": (forward(spec=spec(windows=sliding(7))), BAD_SPEC, AXES),
    "rank mismatch": (forward(spec=spec(windows=sliding(3))), BAD_SPEC, AXES),
    "kernel unset": (forward(spec=spec(windows=sliding(kernel=0))), BAD_SPEC, f"{AXES}[1].kernel"),
    "kernel negative": (
        forward(spec=spec(windows=sliding(kernel=-2))),
        BAD_SPEC,
        f"{AXES}[1].kernel",
    ),
    "kernel beyond the input": (
        forward(spec=spec(windows=sliding(kernel=5))),
        BAD_SPEC,
        f"{AXES}[1].kernel",
    ),
    "stride zero": (forward(spec=spec(windows=sliding(stride=0))), BAD_SPEC, f"{AXES}[1].stride"),
    "stride absurd": (
        forward(spec=spec(windows=sliding(stride=2**62))),
        BAD_SPEC,
        f"{AXES}[1].stride",
    ),
    "dilation zero": (
        forward(spec=spec(windows=sliding(dilation=0))),
        BAD_SPEC,
        f"{AXES}[1].dilation",
    ),
    "padding negative": (
        forward(spec=spec(windows=sliding(padding_before=-1))),
        BAD_SPEC,
        f"{AXES}[1].padding_before",
    ),
    "padding as wide as the window": (
        forward(spec=spec(windows=sliding(padding_after=2))),
        BAD_SPEC,
        f"{AXES}[1].padding_after",
    ),
    "named padding unknown": (
        forward(spec=spec(windows=sliding(named=8))),
        BAD_SPEC,
        "spec.sliding_windows.named_padding",
    ),
    "named padding with padding": (
        forward(spec=spec(windows=sliding(named=pb.NAMED_PADDING_VALID, padding_after=1))),
        BAD_SPEC,
        f"{AXES}[1].padding_after",
    ),
    "named padding with ceil mode": (
        forward(spec=spec(windows=sliding(named=pb.NAMED_PADDING_VALID, ceil_mode=True))),
        BAD_SPEC,
        "spec.sliding_windows.ceil_mode",
    ),
    "count_include_pad on max": (
        forward(spec=spec(count_include_pad=True)),
        BAD_SPEC,
        "spec.count_include_pad",
    ),
    "divisor_override on max": (
        forward(spec=spec(divisor_override=2)),
        BAD_SPEC,
        "spec.divisor_override",
    ),
    "divisor_override zero": (
        forward(spec=spec(AVERAGE, divisor_override=0)),
        BAD_SPEC,
        "spec.divisor_override",
    ),
    "norm_p on average": (forward(spec=spec(AVERAGE, norm_p=2)), BAD_SPEC, "spec.norm_p"),
    "norm_p below one": (forward(spec=spec(LP, norm_p=0.5)), BAD_SPEC, "spec.norm_p"),
    "norm_p not a number": (forward(spec=spec(LP, norm_p=float("nan"))), BAD_SPEC, "spec.norm_p"),
    "tie policy on average": (
        forward(spec=spec(AVERAGE, tie_policy=pb.TIE_POLICY_FIRST)),
        BAD_SPEC,
        "spec.tie_policy",
    ),
    "tie policy unknown": (forward(spec=spec(tie_policy=7)), BAD_SPEC, "spec.tie_policy"),
    "NaN policy unknown": (forward(spec=spec(nan_policy=7)), BAD_SPEC, "spec.nan_policy"),
    "indices of an average": (
        forward(spec=spec(AVERAGE), return_indices=True),
        BAD_SPEC,
        "return_indices",
    ),
    "index format without indices": (
        forward(index_format=pb.INDEX_FORMAT_PLANE),
        BAD_SPEC,
        "index_format",
    ),
    "index format unknown": (
        forward(return_indices=True, index_format=9),
        BAD_SPEC,
        "index_format",
    ),
    "element type unset": (forward(input=tensor(element_type=0)), BAD_TENSOR, "input.element_type"),
    "element type unknown": (
        forward(input=tensor(element_type=77)),
        BAD_TENSOR,
        "input.element_type",
    ),
    "data too short": (forward(input=tensor(data=b"\0" * 63)), BAD_TENSOR, "input.data"),
    "data too long": (forward(input=tensor(data=b"\0" * 65)), BAD_TENSOR, "input.data"),
    "no data": (forward(input=tensor(data=b"")), BAD_TENSOR, "input.data"),
    "rank two": (forward(input=tensor((4, 4)), spec=spec(windows=sliding(1))), BAD_TENSOR, "input"),
    "rank nine": (forward(input=tensor((1,) * 9)), BAD_TENSOR, "input.shape"),
    "zero size": (forward(input=tensor((1, 0, 4, 4))), BAD_TENSOR, "input"),
    "negative size": (forward(input=tensor(shape=(1, 1, -4, -4))), BAD_TENSOR, "input.shape"),
    "product beyond 64 bits": (
        forward(input=tensor(shape=(2**31, 2**31, 2**31, 4))),
        BAD_TENSOR,
        "input.data",
    ),
    "product that wraps to the length": (
        forward(input=tensor(shape=(2**32, 2**32, 4, 4), data=b"")),
        BAD_TENSOR,
        "input.data",
    ),
    "a result over the limit": (
        forward(input=tensor((1, 1, 1, 1)), spec=spec(windows=PADDED_TO_4_GIB)),
        TOO_LARGE,
    ),
    "many windows of many taps": (
        forward(
            input=tensor((1, 1, 140_000)), spec=spec(windows=sliding(1, kernel=66_000, stride=1))
        ),
        UNSUPPORTED,
    ),
    "norm of integers": (forward(spec=spec(LP), input=tensor(dtype="int32")), BAD_TENSOR, "input"),
    "unsigned of 16 bits": (forward(input=tensor(dtype="uint16")), BAD_TENSOR, "input"),
    "sum that overflows": (
        forward(
            spec=spec(pb.MODE_SUM),
            input=tensor(dtype="int64", data=np.full(16, 2**62, "<i8").tobytes()),
        ),
        BAD_TENSOR,
        "input",
    ),
    "adaptive to nothing": (
        forward(spec=spec(windows=adaptive(2, 0))),
        BAD_SPEC,
        "spec.adaptive_windows.output_sizes[1]",
    ),
    "adaptive of another rank": (
        forward(spec=spec(windows=adaptive(2, 2, 2))),
        BAD_SPEC,
        "spec.adaptive_windows.output_sizes",
    ),
    "adaptive without sizes": (
        forward(spec=spec(windows=adaptive())),
        BAD_SPEC,
        "spec.adaptive_windows.output_sizes",
    ),
    "NaN that the policy rejects": (
        forward(
            spec=spec(nan_policy=pb.NAN_POLICY_ERROR),
            input=tensor(data=np.full(16, np.nan, "<f4").tobytes()),
        ),
        BAD_TENSOR,
        "input",
    ),
}

BACKWARD_ERRORS = {
    "no spec": (backward(spec=None), BAD_SPEC, "spec"),
    "no gradient": (backward(output_gradient=None), BAD_TENSOR, "output_gradient"),
    "no shape": (backward(input_shape=None), BAD_TENSOR, "input_shape"),
    "shape of zeros": (backward(input_shape=(1, 1, 0, 4)), BAD_TENSOR, "input_shape"),
    "negative shape": (backward(input_shape=(1, 1, -4, 4)), BAD_TENSOR, "input_shape"),
    "shape of another gradient": (
        backward(input_shape=(1, 1, 6, 4)),
        BAD_TENSOR,
        "output_gradient",
    ),
    "2 GiB shape without bytes": (
        backward(
            spec=spec(AVERAGE, windows=LARGE),
            input_shape=(1, 1, 23171, 23171),
            indices=None,
            output_gradient=tensor((1, 1, 1, 1)),
        ),
        TOO_LARGE,
        "",
    ),
    "2 GiB shape of another gradient": (backward(input_shape=(1, 1, GIB2, 4)), TOO_LARGE, ""),
    "shape beyond 64 bits": (backward(input_shape=(2**40, 2**40, 4, 4)), TOO_LARGE, ""),
    "gradient too short": (
        backward(output_gradient=tensor((1, 1, 2, 2), data=b"\0" * 15)),
        BAD_TENSOR,
        "output_gradient.data",
    ),
    "max with nothing": (backward(indices=None), BAD_TENSOR, "indices"),
    "average with indices": (backward(spec=spec(AVERAGE)), BAD_TENSOR, "indices"),
    "sum with input": (backward(spec=spec(pb.MODE_SUM), input=tensor()), BAD_TENSOR, "input"),
    "lp without input": (backward(spec=spec(LP)), BAD_TENSOR, "indices"),
    "input of another shape": (backward(input=tensor((1, 1, 5, 5))), BAD_TENSOR, "input_shape"),
    "input of another type": (backward(input=tensor(dtype="float64")), BAD_TENSOR, "input"),
    "indices of another shape": (
        backward(indices=tensor((1, 1, 4, 1), "uint8")),
        BAD_TENSOR,
        "indices",
    ),
    "indices of another type": (
        backward(indices=tensor((1, 1, 2, 2), "uint16")),
        BAD_TENSOR,
        "indices",
    ),
    "float indices": (backward(indices=tensor((1, 1, 2, 2), "float32")), BAD_TENSOR, "indices"),
    "index out of its window": (
        backward(indices=tensor((1, 1, 2, 2), "uint8", data=bytes([0, 1, 4, 3]))),
        BAD_TENSOR,
        "indices",
    ),
    "index in the padding": (
        backward(
            spec=spec(windows=sliding(padding_before=1, padding_after=1, kernel=3, stride=3)),
            indices=tensor((1, 1, 2, 2), "uint8", data=bytes([0, 1, 1, 1])),
        ),
        BAD_TENSOR,
        "indices",
    ),
    "plane index of another window": (
        backward(indices=positions(2, 2, 8, 11)),
        BAD_TENSOR,
        "indices",
    ),
    "plane index out of the plane": (
        backward(indices=positions(0, 2, 8, 2**62)),
        BAD_TENSOR,
        "indices",
    ),
    "format that contradicts the type": (
        backward(index_format=pb.INDEX_FORMAT_PLANE),
        BAD_TENSOR,
        "indices",
    ),
    "format without indices": (
        backward(indices=None, input=tensor(), index_format=pb.INDEX_FORMAT_PLANE),
        BAD_SPEC,
        "index_format",
    ),
    "format of another type": (
        backward(index_format=pb.INDEX_FORMAT_TENSOR),
        BAD_TENSOR,
        "indices",
    ),
    "tensor index of another plane": (
        backward(indices=positions(0, 2, 8, 16), index_format=pb.INDEX_FORMAT_TENSOR),
        BAD_TENSOR,
        "indices",
    ),
    "shared ties with indices": (
        backward(spec=spec(tie_policy=pb.TIE_POLICY_SPLIT)),
        BAD_TENSOR,
        "indices",
    ),
    "integer gradient": (
        backward(output_gradient=tensor((1, 1, 2, 2), "int32")),
        BAD_TENSOR,
        "output_gradient",
    ),
}


@pytest.mark.parametrize("case", FORWARD_ERRORS)
def test_forward_rejects(stub: Any, case: str) -> None:
    request, *expected = FORWARD_ERRORS[case]
    assert_rejected(stub.Forward, request, *expected)
    assert_serves(stub)


@pytest.mark.parametrize("case", BACKWARD_ERRORS)
def test_backward_rejects(stub: Any, case: str) -> None:
    request, *expected = BACKWARD_ERRORS[case]
    assert_rejected(stub.Backward, request, *expected)
    assert_serves(stub)


@pytest.mark.parametrize("method", ["Forward", "Backward"])
@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x7f", b"\x7a\x05\x00"])
def test_messages_that_do_not_parse_are_rejected(
    channel: grpc.Channel, stub: Any, method: str, message: bytes
) -> None:
    call = channel.unary_unary(f"/pooling.v1.PoolingService/{method}")
    assert_rejected(call, message, BAD_TENSOR)
    assert_serves(stub)


def test_requests_over_the_message_limit_are_rejected(channel: grpc.Channel, stub: Any) -> None:
    call = channel.unary_unary("/pooling.v1.PoolingService/Forward")
    assert_rejected(call, b"\0" * (33 << 20), TOO_LARGE)
    assert_serves(stub)


def test_replies_over_the_message_limit_are_rejected(stub: Any) -> None:
    # 16 MiB of output and 16 MiB of indices reach the limit; the headers exceed it.
    axes = [pb.Window(kernel=1)] * 2
    request = forward(
        input=tensor((1, 8, 512, 512), "float64"),
        return_indices=True,
        index_format=pb.INDEX_FORMAT_PLANE,
        spec=spec(windows={"sliding_windows": pb.SlidingWindows(axes=axes)}),
    )
    assert_rejected(stub.Forward, request, TOO_LARGE)
    assert_serves(stub)
