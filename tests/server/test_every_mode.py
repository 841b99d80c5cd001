"""Mistakes over the wire in every mode that they can be made in, through plain generated stubs."""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  NumPy learns bfloat16
import numpy as np
import pytest

from pooling_wire.v1 import pooling_pb2 as pb
from tests.server.support import (
    BAD_SPEC,
    BAD_TENSOR,
    UNSUPPORTED,
    adaptive,
    assert_rejected,
    assert_serves,
    backward,
    forward,
    positions,
    sliding,
    spec,
    tensor,
)

SELECTING = (pb.MODE_MAX, pb.MODE_MIN)
MODES = {name: number for name, number in pb.Mode.items() if number}
METHODS = ("Forward", "Backward", "GetPlan")
PATH = "spec.sliding_windows.axes"

every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
every_method = pytest.mark.parametrize("method", METHODS)
of_indices = pytest.mark.parametrize("mode", SELECTING, ids=["MODE_MAX", "MODE_MIN"])


def residual_of(mode: int) -> dict[str, Any]:
    """What a good Backward request of a mode has beside its gradient."""
    if mode == pb.MODE_LP:
        return {"indices": None, "input": tensor()}
    return {} if mode in SELECTING else {"indices": None}


def request(method: str, message: pb.PoolSpec, mode: int) -> Any:
    """A request that would be good, but for its spec."""
    if method == "Forward":
        return forward(spec=message)
    if method == "Backward":
        return backward(spec=message, **residual_of(mode))
    shape, element = (1, 1, 4, 4), pb.ELEMENT_TYPE_FLOAT32
    return pb.GetPlanRequest(spec=message, input_shape=shape, element_type=element)


@every_method
@every_mode
def test_what_is_left_unchanged_is_served(stub: Any, method: str, mode: int) -> None:
    getattr(stub, method)(request(method, spec(mode), mode))


ABSURD = (-1, -(2**62), -(2**63), 2**31, 2**62, 2**63 - 1)


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize(
    "field", ["kernel", "stride", "dilation", "padding_before", "padding_after"]
)
@every_method
@every_mode
def test_absurd_sizes(stub: Any, mode: int, method: str, field: str, value: int) -> None:
    message = spec(mode, sliding(**{field: value}))
    call = getattr(stub, method)
    assert_rejected(call, request(method, message, mode), BAD_SPEC, f"{PATH}[1].{field}")
    assert_serves(stub)


@pytest.mark.parametrize("value", [0, *ABSURD])
@every_method
@every_mode
def test_absurd_numbers_of_outputs(stub: Any, mode: int, method: str, value: int) -> None:
    message = spec(mode, adaptive(2, value))
    path = "spec.adaptive_windows.output_sizes[1]"
    assert_rejected(getattr(stub, method), request(method, message, mode), BAD_SPEC, path)


MOST = 2**31 - 1
STEPS = pb.Window(kernel=2, stride=MOST)
WIDE = pb.Window(kernel=MOST, stride=MOST, padding_before=MOST - 1, padding_after=MOST - 1)


def both_axes(window: pb.Window) -> dict[str, Any]:
    return {"sliding_windows": pb.SlidingWindows(axes=[window, window])}


@every_method
@every_mode
def test_the_largest_legal_sizes(stub: Any, mode: int, method: str) -> None:
    """Steps of 2^31 - 1 leave one window; as many taps in reach are too many."""
    ask = request(method, spec(mode, both_axes(STEPS)), mode)
    if method == "Backward":
        ask.output_gradient.CopyFrom(tensor((1, 1, 1, 1)))
        if mode in SELECTING:
            ask.indices.CopyFrom(tensor((1, 1, 1, 1), "uint8"))
    getattr(stub, method)(ask)
    ask = request(method, spec(mode, both_axes(WIDE)), mode)
    assert_rejected(getattr(stub, method), ask, UNSUPPORTED)
    assert_serves(stub)


# (an option, what is sent, the modes that it belongs to)
OPTIONS = (
    ("count_include_pad", True, {pb.MODE_AVERAGE}),
    ("count_include_pad", False, {pb.MODE_AVERAGE}),
    ("divisor_override", 3, {pb.MODE_AVERAGE}),
    ("norm_p", 2, {pb.MODE_LP}),
    ("tie_policy", pb.TIE_POLICY_FIRST, set(SELECTING)),
    ("tie_policy", pb.TIE_POLICY_SPLIT, set(SELECTING)),
    ("nan_policy", pb.NAN_POLICY_PROPAGATE, set(SELECTING)),
    ("nan_policy", pb.NAN_POLICY_ERROR, set(SELECTING)),
)


@pytest.mark.parametrize(("option", "value", "modes"), OPTIONS)
@every_method
@every_mode
def test_options_of_other_modes(
    stub: Any, mode: int, method: str, option: str, value: Any, modes: set[int]
) -> None:
    """Refused even where the value is the default: the message has them only if they were set."""
    message = spec(mode, **{option: value})
    ask = request(method, message, mode)
    if mode not in modes:
        assert_rejected(getattr(stub, method), ask, BAD_SPEC, f"spec.{option}")
    elif (method, value) == ("Backward", pb.TIE_POLICY_SPLIT) and option == "tie_policy":
        assert_rejected(stub.Backward, ask, BAD_TENSOR, "indices")
    else:
        getattr(stub, method)(ask)


NAMED = {name: number for name, number in pb.NamedPadding.items() if number}


@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
@every_method
@every_mode
def test_named_padding_with_pads_or_ceil_mode(
    stub: Any, mode: int, method: str, named: int
) -> None:
    call = getattr(stub, method)
    for field in ("padding_before", "padding_after"):
        message = spec(mode, sliding(named=named, **{field: 1}))
        assert_rejected(call, request(method, message, mode), BAD_SPEC, f"{PATH}[1].{field}")
    message = spec(mode, sliding(named=named, ceil_mode=True))
    path = "spec.sliding_windows.ceil_mode"
    assert_rejected(call, request(method, message, mode), BAD_SPEC, path)


@every_mode
def test_indices_of_modes_without(stub: Any, mode: int) -> None:
    ask = forward(spec=spec(mode), return_indices=True)
    if mode in SELECTING:
        assert stub.Forward(ask).HasField("indices")
    else:
        assert_rejected(stub.Forward, ask, BAD_SPEC, "return_indices")
        assert_rejected(stub.Backward, backward(spec=spec(mode)), BAD_TENSOR, "indices")


@every_mode
def test_backward_of_another_shape(stub: Any, mode: int) -> None:
    ask = backward(spec=spec(mode), **residual_of(mode))
    ask.output_gradient.CopyFrom(tensor((1, 1, 2, 3)))
    assert_rejected(stub.Backward, ask, BAD_TENSOR, "output_gradient")
    ask = backward(spec=spec(mode), **residual_of(mode) | {"input_shape": (1, 1, 6, 4)})
    field = "input_shape" if mode == pb.MODE_LP else "output_gradient"
    assert_rejected(stub.Backward, ask, BAD_TENSOR, field)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
@every_mode
def test_backward_of_integers(stub: Any, mode: int, dtype: str) -> None:
    """The field is that of the type; the input may be right, or not be there."""
    gradient = tensor((1, 1, 2, 2), dtype)
    ask = backward(spec=spec(mode), output_gradient=gradient, **residual_of(mode))
    text = assert_rejected(stub.Backward, ask, BAD_TENSOR, "output_gradient")
    assert text.startswith("output_gradient")
    assert dtype in text


def window_indices(*values: int) -> pb.Tensor:
    """Four uint8 window indices."""
    return tensor((1, 1, 2, 2), "uint8", data=bytes(values))


@of_indices
def test_nans_where_the_policy_refuses_them(stub: Any, mode: int) -> None:
    nans = tensor(data=np.full(16, np.nan, "<f4").tobytes())
    for ties in (pb.TIE_POLICY_FIRST, pb.TIE_POLICY_ALL, pb.TIE_POLICY_SPLIT):
        message = spec(mode, nan_policy=pb.NAN_POLICY_ERROR, tie_policy=ties)
        assert_rejected(stub.Forward, forward(spec=message, input=nans), BAD_TENSOR, "input")
        ask = backward(spec=message, indices=None, input=nans)
        assert_rejected(stub.Backward, ask, BAD_TENSOR, "input")


@pytest.mark.parametrize("mode", [pb.MODE_SUM, pb.MODE_AVERAGE], ids=["sum", "average"])
@pytest.mark.parametrize("value", [2**62, -(2**62) - 1])
def test_sums_that_overflow(stub: Any, mode: int, value: int) -> None:
    large = tensor(dtype="int64", data=np.full(16, value, "<i8").tobytes())
    text = assert_rejected(stub.Forward, forward(spec=spec(mode), input=large), BAD_TENSOR, "input")
    assert "sum overflows" in text


WINDOW, PLANE, TENSOR = (
    pb.INDEX_FORMAT_WINDOW,
    pb.INDEX_FORMAT_PLANE,
    pb.INDEX_FORMAT_TENSOR,
)
# Of windows of 2 by 2 over 4 by 4 elements: (indices, format, part of the refusal or None).
FORGED = {
    "window": (window_indices(3, 0, 255, 1), WINDOW, None),
    "plane": (positions(5, 2, -1, 10), PLANE, None),
    "tensor": (positions(5, 2, -1, 10), TENSOR, None),
    "window, out of range": (window_indices(0, 4, 0, 0), WINDOW, "at (0, 0, 0, 1) is 4"),
    "window, beside none": (window_indices(0, 0, 0, 254), WINDOW, "at (0, 0, 1, 1) is 254"),
    "plane, of another window": (positions(2, 2, 8, 10), PLANE, "at (0, 0, 0, 0) is 2"),
    "plane, out of range": (positions(0, 2, 16, 10), PLANE, "at (0, 0, 1, 0) is 16"),
    "plane, negative": (positions(0, -2, 8, 10), PLANE, "at (0, 0, 0, 1) is -2"),
    "plane, absurd": (positions(0, 2, 8, 2**62), PLANE, str(2**62)),
    "plane, most": (positions(0, 2, 8, 2**63 - 1), PLANE, str(2**63 - 1)),
    "plane, least": (positions(0, 2, 8, -(2**63)), PLANE, str(-(2**63))),
    "tensor, of another window": (positions(2, 2, 8, 10), TENSOR, "at (0, 0, 0, 0) is 2"),
    "tensor, out of range": (positions(0, 2, 16, 10), TENSOR, "at (0, 0, 1, 0) is 16"),
    "tensor, negative": (positions(0, -2, 8, 10), TENSOR, "at (0, 0, 0, 1) is -2"),
    "tensor, absurd": (positions(0, 2, 8, -(2**62)), TENSOR, str(-(2**62))),
    "tensor, most": (positions(0, 2, 8, 2**63 - 1), TENSOR, str(2**63 - 1)),
    "tensor, least": (positions(0, 2, 8, -(2**63)), TENSOR, str(-(2**63))),
    "window, of 64 bits": (positions(0, 2, 8, 10), WINDOW, "int64"),
    "plane, of 8 bits": (window_indices(0, 0, 0, 0), PLANE, "uint8"),
    "tensor, of 8 bits": (window_indices(0, 0, 0, 0), TENSOR, "uint8"),
    "window, of another shape": (tensor((1, 1, 1, 4), "uint8"), WINDOW, "(1, 1, 2, 2)"),
    "plane, of another shape": (tensor((1, 1, 2), "int64"), PLANE, "(1, 1, 2, 2)"),
    "tensor, of another shape": (tensor((2, 1, 2, 2), "int64"), TENSOR, "(1, 1, 2, 2)"),
}


@pytest.mark.parametrize("case", FORGED)
@of_indices
def test_forged_indices(stub: Any, mode: int, case: str) -> None:
    indices, index_format, words = FORGED[case]
    ask = backward(spec=spec(mode), indices=indices, index_format=index_format)
    if words is None:
        assert len(stub.Backward(ask).input_gradient.data) == 64
        return
    text = assert_rejected(stub.Backward, ask, BAD_TENSOR, "indices")
    assert words in text
    assert_serves(stub)


PADDED = pb.Window(kernel=3, stride=3, padding_before=1, padding_after=1)


@pytest.mark.parametrize("value", [0, 1, 2, 3, 6])
@of_indices
def test_window_indices_in_the_padding(stub: Any, mode: int, value: int) -> None:
    """The first of four windows of 3 by 3 has its first row and column in the padding."""
    ask = backward(spec=spec(mode, both_axes(PADDED)), indices=window_indices(value, 3, 1, 0))
    text = assert_rejected(stub.Backward, ask, BAD_TENSOR, "indices")
    assert f"at (0, 0, 0, 0) is {value}" in text
    assert "padding" in text


FORMATS = {WINDOW: "uint8", PLANE: "int64", TENSOR: "int64"}
TYPES = [pb.ElementType.Name(number) for number in pb.ElementType.values() if number]
OTHERS = [
    (index_format, dtype)
    for index_format, own in FORMATS.items()
    for dtype in (name.removeprefix("ELEMENT_TYPE_").lower() for name in TYPES)
    if dtype != own
]


@pytest.mark.parametrize(("index_format", "dtype"), OTHERS)
@of_indices
def test_indices_of_another_type(stub: Any, mode: int, index_format: int, dtype: str) -> None:
    ask = backward(spec=spec(mode), indices=tensor((1, 1, 2, 2), dtype), index_format=index_format)
    assert dtype in assert_rejected(stub.Backward, ask, BAD_TENSOR, "indices")
