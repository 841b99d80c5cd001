"""Invalid indices: every value of every entry, in every format, for windows of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

LAYOUTS = ("channels_first", "channels_last")
PLANES = (1, 2)
INT64 = np.iinfo(np.int64)

# Windows with overlap, padding, dilation, gaps, overhang, no element; adaptive and global.
WINDOWS = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (5, 4)),
    ({"kernel": 2, "stride": 1, "dilation": 2}, (4, 3)),
    ({"kernel": 2, "stride": 3, "dilation": 2, "padding": [(2, 1)]}, (7,)),
    ({"kernel": 1, "stride": 2}, (5,)),
    ({"kernel": 3, "ceil_mode": True}, (4, 3)),
    ({"kernel": 2, "stride": 2, "dilation": 2, "padding": 1}, (1,)),
    ({"kernel": (1, 2, 1), "stride": 1, "padding": "same_upper"}, (2, 2, 2)),
    ({"adaptive_output": (3, 2)}, (5, 3)),
    ({"adaptive_output": 4}, (3,)),
    ({"global_window": True}, (2, 3)),
)


def legal_at(place, shape, windows, name):
    """Return the valid entries at `place`, each with its position in the plane."""
    legal = {}
    for number, position in oracle.numbered_taps(place[2:], windows).items():
        if oracle.is_valid(position, shape[2:]):
            cell = oracle.flat(position, shape[2:])
            plane = place[0] * shape[1] + place[1]
            entry = {"window": number, "plane": cell}.get(name, plane * np.prod(shape[2:]) + cell)
            legal[int(entry)] = position
    return legal


def values_to_try(dtype, shape):
    """Return all small values and those at the ends of the type, except for "none"."""
    small = range(int(np.prod(shape)) + 9)
    if dtype == np.uint8:
        return (*small, 127, 128, 253, 254)
    ends = (INT64.min, INT64.min + 1, INT64.max - 1, INT64.max, 2**62, -(2**62), 2**32, 2**31)
    return (*range(-5, -1), *small, *ends)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", support.FORMATS)
@pytest.mark.parametrize(("window", "sizes"), WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_entries_are_accepted_or_rejected_as_by_the_oracle(mode, window, sizes, name, layout):
    """An entry is accepted, with the gradient at its element, if the oracle's window has it."""
    options = window | {"mode": mode, "layout": layout}
    spec, shape = PoolSpec(**options), (*PLANES, *sizes)
    windows = cases.windows_of(options, sizes)
    output = oracle.output_shape(shape, windows, options.get("ceil_mode", False))
    dy = cases.read_only(cases.to_layout(options, np.ones(output, np.float32)).copy())
    sent = {"input_shape": cases.to_layout(options, np.empty(shape)).shape, "index_format": name}
    none = cases.window_indices(np.full(output, oracle.NONE), windows)
    indices = none if name == "window" else np.full(output, oracle.NONE)
    for place in np.ndindex(output):
        legal = legal_at(place, shape, windows, name)
        for value in values_to_try(indices.dtype, shape):
            invalid = indices.copy()
            invalid[place] = value
            invalid = cases.read_only(cases.to_layout(options, invalid))
            if value not in legal:
                n, c, *spot = place
                named = place if layout == "channels_first" else (n, *spot, c)
                with pytest.raises(InvalidTensorError) as error:
                    backward(dy, spec, indices=invalid, **sent)
                assert error.value.field == "indices"
                assert f"the index at {named} is {value}; it must be" in str(error.value)
                continue
            dx = cases.from_layout(options, backward(dy, spec, indices=invalid, **sent))
            assert dx.sum() == dx[place[:2] + legal[value]] == 1


HONEST = {"window": np.uint8, "plane": np.int64, "tensor": np.int64}
TYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "U1", "O", "M8[s]"),
)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", support.FORMATS)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_other_element_types_are_rejected(mode, name, dtype):
    spec, dy = PoolSpec(mode, 2), np.ones((1, 1, 1), np.float32)
    sent = {"input_shape": (1, 1, 2), "indices": np.zeros((1, 1, 1), dtype), "index_format": name}
    if dtype == np.dtype(HONEST[name]).name:
        assert backward(dy, spec, **sent).tolist() == [[[1, 0]]]
        return
    with pytest.raises(InvalidTensorError) as error:
        backward(dy, spec, **sent)
    assert error.value.field == "indices"


@pytest.mark.parametrize(
    "shape", [(2, 1, 3), (2, 3, 1), (2, 3), (2, 3, 2, 1), (0, 3, 2), (), (12,)]
)
@pytest.mark.parametrize("name", support.FORMATS)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_other_shapes_are_rejected(mode, name, shape):
    x = cases.normal((2, 3, 4))
    output, indices = forward(x, PoolSpec(mode, 2), return_indices=True, index_format=name)
    wrong = np.zeros(shape, indices.dtype)
    sent = {"input_shape": x.shape, "index_format": name}
    with pytest.raises(InvalidTensorError) as error:
        backward(output, PoolSpec(mode, 2), indices=wrong, **sent)
    assert error.value.field == "indices"
    assert str(output.shape) in str(error.value)


@pytest.mark.parametrize("name", support.FORMATS)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_error_names_the_first_of_two_invalid_entries(mode, name):
    x = cases.normal((2, 3, 8))
    output, indices = forward(x, PoolSpec(mode, 2), return_indices=True, index_format=name)
    invalid = indices.copy()
    invalid[1, 0, 2] = invalid[0, 2, 3] = 77
    with pytest.raises(InvalidTensorError, match=r"at \(0, 2, 3\) is 77"):
        backward(output, PoolSpec(mode, 2), input_shape=x.shape, indices=invalid, index_format=name)
