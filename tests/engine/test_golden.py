"""The forty corner cases of `tests/support/golden.py` on every backend and the oracle."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from pooling_engine import InvalidSpecError, PoolSpec, backward, forward
from tests.support import cases, oracle
from tests.support.golden import GOLDEN, tensor

SELECTING = ("max", "min")
SIZES = tuple(case for case in GOLDEN if case.outputs)
VALUES = tuple(case for case in GOLDEN if not case.outputs)
SMALL = tuple(case for case in VALUES if np.size(case.x) <= 100)  # small enough for the oracle


def name_of(case):
    return f"{case.number} {cases.name_of(case.options)}"


def in_every_type(of_cases):
    """Return one test case per element type of each case."""
    return pytest.mark.parametrize(
        ("case", "dtype"),
        [
            pytest.param(case, dtype, id=f"{name_of(case)} {dtype}")
            for case in of_cases
            for dtype in case.dtypes
        ],
    )


@contextmanager
def others_noted(case):
    """Add the answers of other systems to a failure."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"Golden case {case.number}. {case.others}")
        raise


def assert_golden(actual, expected, ulps):
    """Compare within `ulps`, with zeros of the same sign."""
    oracle.assert_close(actual, expected, ulps)
    is_number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual)[is_number], np.signbit(expected)[is_number])


def test_there_are_forty_cases():
    assert sorted({case.number for case in GOLDEN}) == list(range(1, 41))


@in_every_type(VALUES)
def test_values_and_indices(case, dtype):
    spec, x = PoolSpec(**case.options), tensor(case.x, dtype)
    selects = spec.mode in SELECTING
    result = forward(x, spec, return_indices=selects, index_format="plane")
    with others_noted(case):
        if case.y is not None:
            assert_golden(result.output, tensor(case.y), ulps=0 if selects else 2)
            assert result.output.dtype == x.dtype
        if case.cells is not None:
            oracle.assert_same_bits(result.indices, tensor(case.cells, "int64"))
        if case.positions is not None:
            result = forward(x, spec, return_indices=True, index_format="tensor")
            oracle.assert_same_bits(result.indices, tensor(case.positions, "int64"))


def residuals_of(spec, x):
    """Return all combinations of arguments that describe the forward pass."""
    if spec.mode == "lp":
        return ({"input": x},)
    if spec.mode not in SELECTING:
        return ({"input_shape": x.shape},)
    formats = ("window", "plane", "tensor")
    indices = (forward(x, spec, return_indices=True, index_format=name)[1] for name in formats)
    return (
        {"input": x},
        *(
            {"input_shape": x.shape, "indices": array, "index_format": name}
            for name, array in zip(formats, indices, strict=True)
        ),
    )


@in_every_type([case for case in VALUES if case.dx is not None])
def test_gradients(case, dtype):
    spec, x = PoolSpec(**case.options), tensor(case.x, dtype)
    expected = tensor(case.dx) if case.at is ... else np.float64(case.dx)
    for residual in residuals_of(spec, x):
        dx = backward(tensor(case.dy, dtype), spec, **residual)
        assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
        with others_noted(case):
            oracle.assert_close(dx[case.at], expected, ulps=2 if spec.mode == "lp" else 0)


@in_every_type(SIZES)
def test_sizes(case, dtype):
    spec, x = PoolSpec(**case.options), tensor(case.x, dtype)
    with others_noted(case):
        if case.outputs == "error":
            with pytest.raises(InvalidSpecError, match="no output"):
                forward(x, spec)
        else:
            assert list(forward(x, spec).output.shape[2:]) == case.outputs


def column_major(plane, tensor_indices, shape):
    """Return ONNX positions for storage_order = 1, computed from two formats of the contract."""
    height, width = shape[2:]
    return tensor_indices - plane + plane // width + plane % width * height


def without_batch(plane, _, shape):
    """Return TensorFlow positions in (H, W, C)."""
    return plane * shape[-1] + np.arange(shape[-1])


def with_batch(plane, _, shape):
    """Return TensorFlow positions in (N, H, W, C)."""
    starts = np.arange(shape[0]).reshape(-1, 1, 1, 1) * np.prod(shape[1:])
    return without_batch(plane, _, shape) + starts


FOREIGN = {"index": column_major, "without": without_batch, "with": with_batch}


@in_every_type([case for case in VALUES if case.foreign])
def test_formats_of_other_systems_can_be_computed(case, dtype):
    spec, x = PoolSpec(**case.options), tensor(case.x, dtype)
    plane, positions = (
        forward(x, spec, return_indices=True, index_format=name).indices
        for name in ("plane", "tensor")
    )
    for name, expected in case.foreign.items():
        with others_noted(case):
            assert FOREIGN[name](plane, positions, x.shape).ravel().tolist() == expected


@pytest.mark.parametrize("case", SMALL, ids=name_of)
def test_the_oracle_gives_the_golden_results(case):
    options = case.options
    x = cases.from_layout(options, tensor(case.x, case.dtypes[-1]))
    pooled = cases.expected_forward(options, x)
    if case.y is not None:
        oracle.assert_close(pooled.output, tensor(case.y), ulps=2)
    if case.cells is not None:
        cells = cases.from_layout(options, tensor(case.cells, "int64"))
        oracle.assert_same_bits(pooled.cells, cells)
    if case.positions is not None:
        positions = oracle.in_tensor(pooled.cells, x.shape)
        oracle.assert_same_bits(positions, tensor(case.positions, "int64"))
    if case.dx is not None:
        dy = tensor(case.dy)
        dx = cases.expected_backward(options, dy, x.shape, x=x, taps=pooled.taps)
        oracle.assert_close(dx, tensor(case.dx), ulps=2)


@pytest.mark.parametrize("case", SIZES, ids=name_of)
def test_the_oracle_gives_the_golden_sizes(case):
    sizes = tensor(case.x).shape[2:]
    windows = cases.windows_of(case.options, sizes)
    is_ceil = case.options.get("ceil_mode", False)
    outputs = [oracle.output_size(*axis, is_ceil) for axis in zip(sizes, windows, strict=True)]
    assert outputs == ([0] if case.outputs == "error" else case.outputs)
