"""Invalid requests in every mode, through plain generated stubs.

The specs are those of `invalid_specs`. Here, every pair of values is sent; tests/wire decodes every
combination.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 in NumPy
import numpy as np
import pytest

from pooling_wire.v1 import pooling_pb2 as pb
from tests.server.support import BAD_SPEC, BAD_TENSOR, assert_rejected, assert_serves
from tests.support import invalid_specs
from tests.support.invalid_specs import METHODS, MODES, SELECTING, request, residual_of
from tests.support.pairwise import pairwise
from tests.support.requests import backward, forward, positions, spec, tensor

every_mode = pytest.mark.parametrize("mode", MODES, ids=pb.Mode.Name)
every_method = pytest.mark.parametrize("method", METHODS)
selecting_modes = pytest.mark.parametrize("mode", SELECTING, ids=pb.Mode.Name)


@every_method
@every_mode
def test_valid_requests_are_served(stub: Any, method: str, mode: int) -> None:
    """The requests that the tests below change are valid."""
    reply = getattr(stub, method)(request(method, spec(mode), mode))
    shape = {
        "Forward": lambda: reply.output.shape,
        "Backward": lambda: reply.input_gradient.shape,
        "GetPlan": lambda: reply.output_shape,
    }[method]()
    assert list(shape) == ([1, 1, 4, 4] if method == "Backward" else [1, 1, 2, 2])


@pytest.mark.parametrize(
    ("mode", "method", "field", "value"),
    pairwise(MODES, METHODS, invalid_specs.SIZES, invalid_specs.ABSURD),
)
def test_absurd_sizes_are_rejected(
    stub: Any, mode: int, method: str, field: str, value: int
) -> None:
    message, path = invalid_specs.absurd_size(mode, field, value)
    assert_rejected(getattr(stub, method), request(method, message, mode), BAD_SPEC, path)
    assert_serves(stub)


@pytest.mark.parametrize(
    ("mode", "method", "value"), pairwise(MODES, METHODS, (0, *invalid_specs.ABSURD))
)
def test_absurd_output_sizes_are_rejected(stub: Any, mode: int, method: str, value: int) -> None:
    message, path = invalid_specs.absurd_output(mode, value)
    assert_rejected(getattr(stub, method), request(method, message, mode), BAD_SPEC, path)


MAX_SIZE = 2**31 - 1
STEPS = pb.Window(kernel=2, stride=MAX_SIZE)
WIDE = pb.Window(
    kernel=MAX_SIZE, stride=MAX_SIZE, padding_before=MAX_SIZE - 1, padding_after=MAX_SIZE - 1
)


def both_axes(window: pb.Window) -> dict[str, Any]:
    return {"sliding_windows": pb.SlidingWindows(axes=[window, window])}


@every_method
@every_mode
def test_the_largest_legal_sizes(stub: Any, mode: int, method: str) -> None:
    """A stride of 2^31 - 1 leaves one window; kernels of that size reach from the padding."""
    ask = request(method, spec(mode, both_axes(STEPS)), mode)
    if method == "Backward":
        ask.output_gradient.CopyFrom(tensor((1, 1, 1, 1)))
        if mode in SELECTING:
            ask.indices.CopyFrom(tensor((1, 1, 1, 1), "uint8"))
    getattr(stub, method)(ask)
    if method != "Backward" or mode not in SELECTING:  # their first tap is in the padding
        assert getattr(stub, method)(request(method, spec(mode, both_axes(WIDE)), mode)).ByteSize()
    assert_serves(stub)


@pytest.mark.parametrize(
    ("mode", "method", "option"), pairwise(MODES, METHODS, invalid_specs.OPTIONS)
)
def test_options_of_other_modes_are_rejected(
    stub: Any, mode: int, method: str, option: tuple[str, Any, set[int]]
) -> None:
    """They are rejected even with the default value: a message has them only if they were set."""
    name, value, modes = option
    message, path = invalid_specs.option_of_other_modes(mode, name, value)
    call, sent = getattr(stub, method), request(method, message, mode)
    if mode not in modes:
        assert_rejected(call, sent, BAD_SPEC, path)
    elif method == "Backward" and (name, value) == ("tie_policy", pb.TIE_POLICY_SPLIT):
        assert_rejected(call, sent, BAD_TENSOR, "indices")
    else:
        assert call(sent).ByteSize()


@pytest.mark.parametrize(("mode", "method", "named"), pairwise(MODES, METHODS, invalid_specs.NAMED))
def test_named_padding_excludes_pads_and_ceil_mode(
    stub: Any, mode: int, method: str, named: int
) -> None:
    for message, path in invalid_specs.named_padding(mode, named):
        assert_rejected(getattr(stub, method), request(method, message, mode), BAD_SPEC, path)


@every_mode
def test_indices_of_modes_without_indices_are_rejected(stub: Any, mode: int) -> None:
    ask = forward(spec=spec(mode), return_indices=True)
    if mode in SELECTING:
        assert stub.Forward(ask).HasField("indices")
    else:
        assert_rejected(stub.Forward, ask, BAD_SPEC, "return_indices")
        assert_rejected(stub.Backward, backward(spec=spec(mode)), BAD_TENSOR, "indices")


@every_mode
def test_gradients_of_another_shape_are_rejected(stub: Any, mode: int) -> None:
    ask = backward(spec=spec(mode), **residual_of(mode))
    ask.output_gradient.CopyFrom(tensor((1, 1, 2, 3)))
    assert_rejected(stub.Backward, ask, BAD_TENSOR, "output_gradient")
    ask = backward(spec=spec(mode), **residual_of(mode) | {"input_shape": (1, 1, 6, 4)})
    field = "input_shape" if mode == pb.MODE_LP else "output_gradient"
    assert_rejected(stub.Backward, ask, BAD_TENSOR, field)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
@every_mode
def test_integer_gradients_are_rejected(stub: Any, mode: int, dtype: str) -> None:
    """The error names the gradient, with or without an input."""
    gradient = tensor((1, 1, 2, 2), dtype)
    ask = backward(spec=spec(mode), output_gradient=gradient, **residual_of(mode))
    text = assert_rejected(stub.Backward, ask, BAD_TENSOR, "output_gradient")
    assert text.startswith("output_gradient")
    assert dtype in text


def window_indices(*values: int) -> pb.Tensor:
    """Return four uint8 window indices."""
    return tensor((1, 1, 2, 2), "uint8", data=bytes(values))


@selecting_modes
def test_nans_are_rejected_by_policy(stub: Any, mode: int) -> None:
    nans = tensor(data=np.full(16, np.nan, "<f4").tobytes())
    for ties in (pb.TIE_POLICY_FIRST, pb.TIE_POLICY_ALL, pb.TIE_POLICY_SPLIT):
        message = spec(mode, nan_policy=pb.NAN_POLICY_ERROR, tie_policy=ties)
        assert_rejected(stub.Forward, forward(spec=message, input=nans), BAD_TENSOR, "input")
        ask = backward(spec=message, indices=None, input=nans)
        assert_rejected(stub.Backward, ask, BAD_TENSOR, "input")


@pytest.mark.parametrize("mode", [pb.MODE_SUM, pb.MODE_AVERAGE], ids=["sum", "average"])
@pytest.mark.parametrize("value", [2**62, -(2**62) - 1])
def test_sums_that_overflow_are_rejected(stub: Any, mode: int, value: int) -> None:
    large = tensor(dtype="int64", data=np.full(16, value, "<i8").tobytes())
    text = assert_rejected(stub.Forward, forward(spec=spec(mode), input=large), BAD_TENSOR, "input")
    assert "sum overflows" in text


WINDOW, PLANE, TENSOR = (
    pb.INDEX_FORMAT_WINDOW,
    pb.INDEX_FORMAT_PLANE,
    pb.INDEX_FORMAT_TENSOR,
)
# For windows of 2 x 2 over 4 x 4 elements: indices, format, and a part of the error or None.
INDEX_CASES = {
    "window": (window_indices(3, 0, 255, 1), WINDOW, None),
    "plane": (positions(5, 2, -1, 10), PLANE, None),
    "tensor": (positions(5, 2, -1, 10), TENSOR, None),
    "window, out of range": (window_indices(0, 4, 0, 0), WINDOW, "at (0, 0, 0, 1) is 4"),
    "window, next to none": (window_indices(0, 0, 0, 254), WINDOW, "at (0, 0, 1, 1) is 254"),
    "plane, of another window": (positions(2, 2, 8, 10), PLANE, "at (0, 0, 0, 0) is 2"),
    "plane, out of range": (positions(0, 2, 16, 10), PLANE, "at (0, 0, 1, 0) is 16"),
    "plane, negative": (positions(0, -2, 8, 10), PLANE, "at (0, 0, 0, 1) is -2"),
    "plane, absurd": (positions(0, 2, 8, 2**62), PLANE, str(2**62)),
    "plane, maximum": (positions(0, 2, 8, 2**63 - 1), PLANE, str(2**63 - 1)),
    "plane, minimum": (positions(0, 2, 8, -(2**63)), PLANE, str(-(2**63))),
    "tensor, of another window": (positions(2, 2, 8, 10), TENSOR, "at (0, 0, 0, 0) is 2"),
    "tensor, out of range": (positions(0, 2, 16, 10), TENSOR, "at (0, 0, 1, 0) is 16"),
    "tensor, negative": (positions(0, -2, 8, 10), TENSOR, "at (0, 0, 0, 1) is -2"),
    "tensor, absurd": (positions(0, 2, 8, -(2**62)), TENSOR, str(-(2**62))),
    "tensor, maximum": (positions(0, 2, 8, 2**63 - 1), TENSOR, str(2**63 - 1)),
    "tensor, minimum": (positions(0, 2, 8, -(2**63)), TENSOR, str(-(2**63))),
    "window, of 64 bits": (positions(0, 2, 8, 10), WINDOW, "int64"),
    "plane, of 8 bits": (window_indices(0, 0, 0, 0), PLANE, "uint8"),
    "tensor, of 8 bits": (window_indices(0, 0, 0, 0), TENSOR, "uint8"),
    "window, of another shape": (tensor((1, 1, 1, 4), "uint8"), WINDOW, "(1, 1, 2, 2)"),
    "plane, of another shape": (tensor((1, 1, 2), "int64"), PLANE, "(1, 1, 2, 2)"),
    "tensor, of another shape": (tensor((2, 1, 2, 2), "int64"), TENSOR, "(1, 1, 2, 2)"),
}


@pytest.mark.parametrize("case", INDEX_CASES)
@selecting_modes
def test_invalid_indices_are_rejected(stub: Any, mode: int, case: str) -> None:
    indices, index_format, words = INDEX_CASES[case]
    ask = backward(spec=spec(mode), indices=indices, index_format=index_format)
    if words is None:
        assert len(stub.Backward(ask).input_gradient.data) == 64
        return
    text = assert_rejected(stub.Backward, ask, BAD_TENSOR, "indices")
    assert words in text
    assert_serves(stub)


PADDED = pb.Window(kernel=3, stride=3, padding_before=1, padding_after=1)


@pytest.mark.parametrize("value", [0, 1, 2, 3, 6])
@selecting_modes
def test_window_indices_in_the_padding_are_rejected(stub: Any, mode: int, value: int) -> None:
    """The first row and column of the first 3 x 3 window are in the padding."""
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
@selecting_modes
def test_indices_of_another_type_are_rejected(
    stub: Any, mode: int, index_format: int, dtype: str
) -> None:
    ask = backward(spec=spec(mode), indices=tensor((1, 1, 2, 2), dtype), index_format=index_format)
    assert dtype in assert_rejected(stub.Backward, ask, BAD_TENSOR, "indices")
