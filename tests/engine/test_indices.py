"""Index formats, and the rejection of entries that no forward pass returns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import (
    InvalidSpecError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
)
from tests.support import cases, oracle

once = pytest.mark.once
SELECTING = ({"mode": "max"}, {"mode": "min"})


@pytest.mark.parametrize(("options", "sizes"), cases.all_cases(SELECTING), ids=cases.name_of)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_both_formats_agree_with_the_oracle(layout, options, sizes):
    options = options | {"layout": layout}
    x = cases.hard((2, 3, *sizes))
    expected = cases.expected_forward(options, x)
    windows = cases.windows_of(options, sizes)
    formats = {"window": cases.window_indices(expected.taps, windows), "plane": expected.cells}
    for name, indices in formats.items():
        result = forward(
            cases.to_layout(options, x), PoolSpec(**options), return_indices=True, index_format=name
        )
        oracle.assert_same_bits(cases.from_layout(options, result.indices), indices)


@cases.many_examples
@given(case=cases.cases(modes=SELECTING))
def test_random_plane_indices_agree_with_the_oracle(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed)
    expected = cases.expected_forward(case.options, x)
    with run_with(case.block_bytes, case.threads):
        given = cases.to_layout(case.options, x)
        spec = PoolSpec(**case.options)
        result = forward(given, spec, return_indices=True, index_format="plane")
    oracle.assert_same_bits(cases.from_layout(case.options, result.indices), expected.cells)


# (kernel, the type of a window index): uint8 numbers up to 255 taps, uint16 up to 65,535.
INDEX_TYPES = (
    ((15, 17), "uint8"),
    ((16, 16), "uint16"),
    ((255, 257), "uint16"),
    ((256, 256), "uint32"),
    (255, "uint8"),
    (256, "uint16"),
)


@pytest.mark.parametrize(("kernel", "dtype"), INDEX_TYPES)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_type_of_a_window_index(mode, kernel, dtype):
    kernels = kernel if isinstance(kernel, tuple) else (kernel,)
    x = np.zeros((1, 1, *kernels), np.float32)
    x[(0, 0, *(-1 for _ in kernels))] = 1 if mode == "max" else -1
    spec = PoolSpec(mode, kernels)
    indices = forward(x, spec, return_indices=True).indices
    assert indices.dtype == dtype
    assert indices.item() == np.prod(kernels) - 1
    dx = backward(np.ones(indices.shape, np.float32), spec, input_shape=x.shape, indices=indices)
    oracle.assert_same_bits(dx, np.abs(x))


def test_a_window_without_a_valid_element_has_no_index():
    spec, x = PoolSpec("max", 2, 2, 1, 2), np.ones((1, 1, 1), np.float32)
    names = {"window": 255, "plane": -1}
    for name, none in names.items():
        indices = forward(x, spec, return_indices=True, index_format=name).indices
        assert indices.tolist() == [[[none]]]
        dx = backward(x, spec, input_shape=x.shape, indices=indices)
        assert dx.tolist() == [[[0]]]


def test_none_drops_the_gradient_of_any_window():
    spec = PoolSpec("max", 2)
    indices = np.array([[[255, 1]]], np.uint8)
    dx = backward(np.ones((1, 1, 2), np.float32), spec, input_shape=(1, 1, 4), indices=indices)
    assert dx.tolist() == [[[0, 0, 0, 1]]]


def test_unpooling_adds_duplicates():
    spec = PoolSpec("max", 3, 1)
    indices = np.array([[[2, 1, 0]]], np.uint8)
    values = np.array([[[1, 10, 100]]], np.float32)
    dx = backward(values, spec, input_shape=(1, 1, 5), indices=indices)
    assert dx.tolist() == [[[0, 0, 111, 0, 0]]]


# x: 5 x 5, k = 3, s = 2, p = 1: outputs 3 x 3; tap 0 of output (0, 0) is in the padding.
BORDER = {"kernel": 3, "stride": 2, "padding": 1}
# (options, spatial sizes, the output, the invalid entry, its type, words of the error)
INVALID = (
    (BORDER, (5, 5), (1, 1), 9, "uint8", ("(0, 0, 1, 1)", "is 9", "8")),
    (BORDER, (5, 5), (1, 1), 254, "uint8", ("254",)),
    (BORDER, (5, 5), (0, 0), 0, "uint8", ("(0, 0, 0, 0)", "padding")),
    (BORDER, (5, 5), (0, 1), 2, "uint8", ("padding",)),
    (BORDER, (5, 5), (1, 0), 3, "uint8", ("padding",)),
    (BORDER, (5, 5), (2, 2), 8, "uint8", ("padding",)),
    (BORDER, (5, 5), (1, 2), 5, "uint8", ("padding",)),
    (BORDER, (5, 5), (1, 1), 25, "int64", ("25", "24")),
    (BORDER, (5, 5), (1, 1), -2, "int64", ("-2",)),
    (BORDER, (5, 5), (1, 1), 2**63 - 1, "int64", (str(2**63 - 1),)),
    (BORDER, (5, 5), (1, 1), -(2**63), "int64", (str(-(2**63)),)),
    (BORDER, (5, 5), (1, 1), 5, "int64", ("(0, 0, 1, 1)", "is 5", "window")),
    (BORDER, (5, 5), (1, 1), 24, "int64", ("24", "window")),
    (BORDER, (5, 5), (0, 0), 4, "int64", ("window",)),
    ({"kernel": 2, "stride": 1, "dilation": 2}, (4,), (0,), 1, "int64", ("is 1", "window")),
    ({"kernel": 2, "stride": 2, "dilation": 2, "padding": 1}, (1,), (0,), 0, "uint8", ("padding",)),
    ({"kernel": 2, "stride": 2, "dilation": 2, "padding": 1}, (1,), (0,), 0, "int64", ("window",)),
    ({"kernel": 1, "stride": 2}, (4,), (1,), 3, "int64", ("window",)),
    ({"kernel": 3, "stride": 3, "ceil_mode": True}, (4,), (1,), 1, "uint8", ("padding",)),
    ({"kernel": 300}, (300,), (0,), 300, "uint16", ("300", "299")),
    ({"kernel": 300}, (300,), (0,), 65_534, "uint16", ("65534",)),
    ({"kernel": 254}, (254,), (0,), 254, "uint8", ("254",)),
)


@pytest.mark.parametrize(("options", "sizes", "where", "entry", "dtype", "words"), INVALID)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_invalid_entries_are_rejected_and_named(mode, options, sizes, where, entry, dtype, words):
    spec = PoolSpec(mode, **options)
    x = cases.normal((1, 2, *sizes))
    name = "plane" if dtype == "int64" else "window"
    honest = forward(x, spec, return_indices=True, index_format=name)
    assert honest.indices.dtype == dtype
    invalid = honest.indices.copy()
    invalid[(0, 0, *where)] = entry
    with pytest.raises(InvalidTensorError) as error:
        backward(honest.output, spec, input_shape=x.shape, indices=invalid)
    assert error.value.field == "indices"
    for word in words:
        assert word in str(error.value)


@cases.many_examples
@given(case=cases.cases(modes=SELECTING, dtypes=("float32",), most_axes=2), data=st.data())
def test_a_single_invalid_entry_is_found_anywhere(case, data, run_with):
    """Any value of one entry is accepted if the oracle has such a valid tap, and else rejected."""
    options, spec = case.options, PoolSpec(**case.options)
    windows = cases.windows_of(options, case.shape[2:])
    shape = oracle.output_shape(case.shape, windows, options["ceil_mode"])
    place = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    taps = oracle.taps_of(place[2:], windows)
    entry = data.draw(st.integers(0, len(taps)))
    is_legal = entry < len(taps) and oracle.is_valid(taps[entry], case.shape[2:])
    numbers = np.full(shape, oracle.NONE)
    numbers[place] = entry
    indices = cases.window_indices(numbers, windows)
    expected = np.zeros(case.shape, np.float32)
    if is_legal:
        expected[place[:2] + taps[entry]] = 1
    given = [cases.to_layout(options, array) for array in (np.ones(shape, np.float32), indices)]
    input_shape = cases.to_layout(options, expected).shape
    if not is_legal:
        with pytest.raises(InvalidTensorError, match=f"is {entry}; it must be"):
            backward(given[0], spec, input_shape=input_shape, indices=given[1])
        return
    with run_with(case.block_bytes, case.threads):
        dx = backward(given[0], spec, input_shape=input_shape, indices=given[1])
    oracle.assert_same_bits(cases.from_layout(options, dx), expected)


WRONG_TYPES = ("int8", "uint16", "int32", "uint32", "uint64", "float32", "bool")


@once
@pytest.mark.parametrize("dtype", WRONG_TYPES)
def test_indices_of_another_type_are_rejected(dtype):
    indices = np.zeros((1, 1, 2), dtype)
    with pytest.raises(InvalidTensorError, match=dtype) as error:
        backward(np.ones((1, 1, 2)), PoolSpec("max", 2), input_shape=(1, 1, 4), indices=indices)
    assert error.value.field == "indices"


@once
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 2), (2, 1, 1), (1, 1, 2, 1), (0, 1, 2), ()])
def test_indices_of_another_shape_are_rejected(shape):
    indices = np.zeros(shape, np.uint8)
    with pytest.raises(InvalidTensorError, match=r"the output has \(1, 1, 2\)") as error:
        backward(np.ones((1, 1, 2)), PoolSpec("max", 2), input_shape=(1, 1, 4), indices=indices)
    assert error.value.field == "indices"


@pytest.mark.parametrize(("dtype", "name"), [("uint8", "plane"), ("int64", "window")])
def test_a_format_of_another_type_is_rejected(dtype, name):
    indices = np.zeros((1, 1, 2), dtype)
    with pytest.raises(InvalidTensorError, match=dtype):
        backward(
            np.ones((1, 1, 2)),
            PoolSpec("max", 2),
            input_shape=(1, 1, 4),
            indices=indices,
            index_format=name,
        )


@pytest.mark.parametrize("disguise", cases.DISGUISES)
@pytest.mark.parametrize("name", ["window", "plane"])
def test_indices_may_come_in_any_memory_layout(name, disguise):
    spec = PoolSpec("max", 3, 2, 1)
    x = cases.normal((2, 2, 7, 6))
    output, indices = forward(x, spec, return_indices=True, index_format=name)
    expected = backward(output, spec, input=x)
    sent = cases.DISGUISES[disguise](indices)
    oracle.assert_same_bits(backward(output, spec, input_shape=x.shape, indices=sent), expected)


X = np.ones((1, 1, 4), np.float32)
DY = np.ones((1, 1, 2), np.float32)
TAPS = np.zeros((1, 1, 2), np.uint8)
# (mode, arguments besides the gradient, the field of the error)
WRONG_RESIDUALS = (
    ("max", {}, "input_shape"),
    ("max", {"input_shape": (1, 1, 4)}, "indices"),
    ("min", {"input": X, "indices": TAPS}, "indices"),
    ("sum", {"input": X}, "input"),
    ("average", {"input_shape": (1, 1, 4), "indices": TAPS}, "indices"),
    ("lp", {"input_shape": (1, 1, 4)}, "input"),
    ("lp", {"input": X, "indices": TAPS}, "indices"),
    ("max", {"input": X, "input_shape": (1, 1, 5)}, "input_shape"),
    ("max", {"input": X, "input_shape": 5}, "input_shape"),
    ("max", {"input": X.astype(np.float64)}, "input"),
    ("sum", {"input_shape": (1, 1, 9)}, "output_gradient"),
    ("sum", {"input_shape": (1, 4)}, "input_shape"),
    ("sum", {"input_shape": 4}, "input_shape"),
    ("sum", {"input_shape": (1, 1, 0)}, "input_shape"),
)


@once
@pytest.mark.parametrize(("mode", "residual", "field"), WRONG_RESIDUALS)
def test_arguments_that_do_not_fit_the_mode_are_rejected(mode, residual, field):
    with pytest.raises(InvalidTensorError) as error:
        backward(DY, PoolSpec(mode, 2), **residual)
    assert error.value.field == field


def test_an_input_shape_may_be_an_array():
    dx = backward(DY, PoolSpec("sum", 2), input_shape=np.array(X.shape))
    assert dx.tolist() == X.tolist()


@pytest.mark.parametrize("mode", ["sum", "average", "lp"])
def test_modes_that_select_nothing_have_no_indices(mode):
    with pytest.raises(InvalidSpecError, match=mode) as error:
        forward(X, PoolSpec(mode, 2), return_indices=True)
    assert error.value.field == "return_indices"


@once
def test_unknown_formats_are_rejected():
    spec = PoolSpec("max", 2)
    for call in (
        lambda: forward(X, spec, return_indices=True, index_format="torch"),
        lambda: backward(DY, spec, input_shape=X.shape, indices=TAPS, index_format="torch"),
    ):
        with pytest.raises(InvalidSpecError, match="'torch'") as error:
            call()
        assert error.value.field == "index_format"


# (arguments of forward, class and field of the error)
WRONG_CALLS = (
    ({"out": np.empty((1, 1, 3), np.float32)}, InvalidTensorError, "out"),
    ({"out": np.empty((1, 1, 2), np.float64)}, InvalidTensorError, "out"),
    ({"out": np.empty((1, 1, 4), np.float32)[..., ::2]}, InvalidTensorError, "out"),
    ({"out": np.empty((1, 1, 2), ">f4")}, InvalidTensorError, "out"),
    ({"out": cases.read_only(np.empty((1, 1, 2), np.float32))}, InvalidTensorError, "out"),
    ({"out": [[[0.0, 0.0]]]}, InvalidTensorError, "out"),
    ({"backend": "abacus"}, InvalidSpecError, "backend"),
    ({"return_indices": "no"}, InvalidSpecError, "return_indices"),
    ({"return_indices": 1}, InvalidSpecError, "return_indices"),
    ({"index_format": "torch"}, InvalidSpecError, "index_format"),
)


@once
@pytest.mark.parametrize(("arguments", "error", "field"), WRONG_CALLS)
def test_invalid_arguments_of_a_call_are_rejected(arguments, error, field):
    with pytest.raises(error) as caught:
        forward(X, PoolSpec("max", 2), **arguments)
    assert caught.value.field == field


@once
@pytest.mark.parametrize("dtype", ["complex64", "bool", "U3", "O"])
def test_a_gradient_of_an_unsupported_type_is_rejected(dtype):
    with pytest.raises(InvalidTensorError) as error:
        backward(DY.astype(dtype), PoolSpec("sum", 2), input_shape=X.shape)
    assert error.value.field == "output_gradient"


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_out_that_shares_memory_with_an_input_is_rejected(mode):
    memory = np.arange(64, dtype=np.float32)
    x = memory.reshape(1, 1, 64)
    with pytest.raises(InvalidTensorError, match="shares memory"):
        forward(x, PoolSpec(mode, 3, 1, 1), out=x)
    residual = {"input": x} if mode == "max" else {"input_shape": x.shape}
    with pytest.raises(InvalidTensorError, match="shares memory"):
        backward(x, PoolSpec(mode, 1), **residual, out=x)
    np.testing.assert_array_equal(memory, np.arange(64))


@pytest.mark.parametrize(("p", "is_nan"), [(1, [0, 1, 0]), (2, [1, 1, 1]), (np.inf, [0, 1, 0])])
def test_lp_gradients_propagate_a_nan(p, is_nan):
    x = np.array([[[1, np.nan, 3]]])
    dx = backward(np.ones((1, 1, 1)), PoolSpec("lp", 3, norm_p=p), input=x)
    assert np.isnan(dx[0, 0]).tolist() == [bool(nan) for nan in is_nan]
