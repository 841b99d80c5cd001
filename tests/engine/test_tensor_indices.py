"""Index format "tensor": positions in the whole tensor (N, C, D1..Dn), in either layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

LAYOUTS = ("channels_first", "channels_last")
HALVES = PoolSpec("max", 2)


def test_channels_last_tensors_are_numbered_channels_first():
    first = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    last = np.moveaxis(first, 1, -1)
    spec = PoolSpec("max", 2, layout="channels_last")
    indices = forward(last, spec, return_indices=True, index_format="tensor").indices
    assert indices.tolist() == [[[1, 5], [3, 7]], [[9, 13], [11, 15]]]
    dx = backward(
        np.ones((2, 2, 2), np.float32),
        spec,
        input_shape=last.shape,
        indices=indices,
        index_format="tensor",
    )
    assert np.flatnonzero(np.moveaxis(dx, -1, 1)).tolist() == [1, 3, 5, 7, 9, 11, 13, 15]


def test_an_index_is_the_flat_numpy_position():
    x = cases.normal((3, 4, 6, 5))
    result = forward(x, PoolSpec("min", 2), return_indices=True, index_format="tensor")
    oracle.assert_same_bits(x.ravel()[result.indices], result.output)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("options", "sizes"), cases.all_cases(support.SELECTING), ids=cases.name_of
)
def test_tensor_indices_agree_with_the_oracle(options, sizes, layout):
    options = options | {"layout": layout}
    x = cases.hard((2, 3, *sizes))
    support.assert_forward(options, x)
    support.assert_backward(options, x)


@cases.many_examples
@given(case=cases.cases(modes=support.SELECTING))
def test_random_tensor_indices_agree_with_the_oracle(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed)
    disguise = cases.DISGUISES[case.disguise]
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(case.options, x, disguise)
        support.assert_backward(case.options, x, disguise)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_minus_one_is_none(layout):
    spec = PoolSpec("max", 2, 2, 1, 2, layout=layout)
    x = np.ones((2, 1, 1), np.float32)
    indices = forward(x, spec, return_indices=True, index_format="tensor").indices
    assert indices.tolist() == [[[-1]], [[-1]]]
    dx = backward(x, spec, input_shape=x.shape, indices=indices, index_format="tensor")
    assert dx.tolist() == [[[0]], [[0]]]


@pytest.mark.parametrize("shape", [(0, 3, 4), (0, 1, 6, 4)])
def test_an_empty_batch_has_no_indices(shape):
    x = np.empty(shape, np.float32)
    result = forward(x, HALVES, return_indices=True, index_format="tensor")
    assert result.indices.dtype == np.int64
    assert result.indices.shape == result.output.shape
    dx = backward(
        result.output, HALVES, input_shape=shape, indices=result.indices, index_format="tensor"
    )
    assert dx.shape == shape


# Input of shape (2, 3, 5, 5), k = 3, s = 2, p = 1, so 25 elements in each of 6 planes, of which
# output (1, 1) sees 6, 7, 8, 11, 12, 13, 16, 17 and 18: (the output of the entry, the entry).
INVALID = (
    ((0, 0, 1, 1), 150),
    ((0, 0, 1, 1), -2),
    ((0, 0, 1, 1), 2**63 - 1),
    ((0, 0, 1, 1), -(2**63)),
    ((1, 2, 1, 1), 150),
    ((0, 0, 1, 1), 5),
    ((0, 0, 0, 0), 4),
    ((0, 1, 1, 1), 12),
    ((0, 0, 1, 1), 12 + 25),
    ((0, 0, 1, 1), 12 + 75),
    ((1, 0, 1, 1), 12),
    ((1, 2, 1, 1), 12 + 100),
    ((0, 1, 0, 0), 24),
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("where", "entry"), INVALID)
def test_invalid_entries_are_rejected_and_named(where, entry, layout):
    options = {"mode": "max", "kernel": 3, "stride": 2, "padding": 1, "layout": layout}
    x = cases.to_layout(options, cases.normal((2, 3, 5, 5)))
    spec = PoolSpec(**options)
    output, indices = forward(x, spec, return_indices=True, index_format="tensor")
    cases.from_layout(options, indices)[where] = entry
    with pytest.raises(InvalidTensorError) as error:
        backward(output, spec, input_shape=x.shape, indices=indices, index_format="tensor")
    assert error.value.field == "indices"
    n, c, *spot = where
    named = where if layout == "channels_first" else (n, *spot, c)
    assert f"{named} is {entry}" in str(error.value)


@cases.many_examples
@given(case=cases.cases(modes=support.SELECTING, dtypes=("float32",), most_axes=2), data=st.data())
def test_a_single_invalid_entry_is_found_anywhere(case, data, run_with):
    """Any value of one entry is accepted if the oracle's window has it, and else rejected."""
    options, spec = case.options, PoolSpec(**case.options)
    windows = cases.windows_of(options, case.shape[2:])
    shape = oracle.output_shape(case.shape, windows, options["ceil_mode"])
    place = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    entry = data.draw(st.integers(-2, np.prod(case.shape)))
    elements = {
        int(np.ravel_multi_index(place[:2] + at, case.shape))
        for at in oracle.taps_of(place[2:], windows)
        if oracle.is_valid(at, case.shape[2:])
    }
    indices = np.full(shape, oracle.NONE)
    indices[place] = entry
    expected = np.zeros(case.shape, np.float32)
    if entry in elements:
        expected.ravel()[entry] = 1
    dy, indices = (cases.to_layout(options, a) for a in (np.ones(shape, np.float32), indices))
    sent = {"input_shape": cases.to_layout(options, expected).shape, "indices": indices}
    with run_with(case.block_bytes, case.threads):
        if entry in elements or entry == oracle.NONE:
            dx = backward(dy, spec, **sent, index_format="tensor")
            oracle.assert_same_bits(cases.from_layout(options, dx), expected)
        else:
            with pytest.raises(InvalidTensorError, match=f"is {entry}; it must be"):
                backward(dy, spec, **sent, index_format="tensor")


def test_int64_indices_are_plane_positions_by_default():
    dy = np.ones((2, 1, 2), np.float32)
    indices = np.array([[[1, 3]], [[5, 7]]], np.int64)
    sent = {"input_shape": (2, 1, 4), "indices": indices}
    dx = backward(dy, HALVES, **sent, index_format="tensor")
    assert np.flatnonzero(dx).tolist() == [1, 3, 5, 7]
    for how in ({}, {"index_format": "plane"}):
        with pytest.raises(InvalidTensorError, match="is 5"):
            backward(dy, HALVES, **sent, **how)
    with pytest.raises(InvalidTensorError, match=r"\(1, 0, 0\) is 1"):
        backward(dy, HALVES, input_shape=(2, 1, 4), indices=indices % 4, index_format="tensor")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "uint64", "float64"])
def test_indices_of_another_type_are_rejected(dtype):
    indices = np.ones((1, 1, 1), dtype)
    with pytest.raises(InvalidTensorError, match=dtype) as error:
        backward(
            np.ones((1, 1, 1)),
            HALVES,
            input_shape=(1, 1, 2),
            indices=indices,
            index_format="tensor",
        )
    assert error.value.field == "indices"


def test_indices_are_not_written_to():
    x = cases.normal((2, 3, 8, 6))
    output, indices = forward(x, HALVES, return_indices=True, index_format="tensor")
    before = indices.tobytes()
    sent = cases.read_only(indices)
    backward(output, HALVES, input_shape=x.shape, indices=sent, index_format="tensor")
    assert sent.tobytes() == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_indices_do_not_depend_on_threads_or_blocks(layout, run_with):
    options = {"mode": "max", "kernel": 3, "stride": 2, "padding": 1, "layout": layout}
    x = cases.hard((2, 3, 9, 8))
    for block_bytes, threads in ((8, 1), (8, 4), (100, 2)):
        with run_with(block_bytes, threads):
            support.assert_forward(options, x)
            support.assert_backward(options, x)
