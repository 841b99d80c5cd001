"""The golden corner cases of `pooling-semantics.md`, section 7, under their numbers there."""

from __future__ import annotations

from typing import Any, NamedTuple

import cases
import numpy as np
import oracle
import pytest

from pooling_engine import InvalidSpecError, PoolSpec, backward, forward

INF, NAN = np.inf, np.nan


class Golden(NamedTuple):
    """One case: spatial values in, the output, plane indices and gradient out, where stated."""

    number: int
    options: dict
    x: Any
    y: Any
    cells: Any = None
    dy: Any = None
    dx: Any = None


MAX, AVERAGE, LP = {"mode": "max"}, {"mode": "average"}, {"mode": "lp"}
EXCLUDE = AVERAGE | {"count_include_pad": False}
NO_TAP = {"kernel": 2, "stride": 2, "padding": 1, "dilation": 2}
WIDE_CEIL = {"kernel": 4, "stride": 3, "padding": 2, "ceil_mode": True}
SQUARE_CEIL = {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}
DILATED_CEIL = {"kernel": 3, "stride": 3, "padding": 1, "dilation": 2, "ceil_mode": True}
SAME = {"kernel": 3, "stride": 2, "padding": "same_upper"}
UNEVEN = {"kernel": 3, "stride": 2, "padding": [(0, 2)], "ceil_mode": True}
SQUARE = [[4 / 9, 2 / 3, 1 / 3], [2 / 3, 1, 1 / 2], [1 / 3, 1 / 2, 1 / 4]]

GOLDEN = (
    Golden(1, MAX | {"kernel": 3}, [2, 2, 2], [2], [0], [1], [1, 0, 0]),
    Golden(
        2,
        MAX | {"kernel": 3, "stride": 1},
        [1, 3, 3, 1, 3],
        [3, 3, 3],
        [1, 1, 2],
        [1, 10, 100],
        [0, 11, 100, 0, 0],
    ),
    Golden(3, MAX | {"kernel": 3, "stride": 1, "padding": 1}, [-5, -6], [-5, -5], [0, 0]),
    Golden(
        4,
        MAX | {"kernel": 3, "stride": 1, "padding": 1},
        [-INF] * 4,
        [-INF] * 4,
        [0, 0, 1, 2],
    ),
    Golden(5, MAX | {"kernel": 5}, [1, NAN, 3, NAN, 5], [NAN], [1], [1], [0, 1, 0, 0, 0]),
    Golden(6, MAX | {"kernel": 3}, [2, NAN, 3], [NAN], [1], [1], [0, 1, 0]),
    Golden(7, MAX | {"kernel": 2}, [-0.0, 0.0], [-0.0], [0]),
    Golden(8, MAX | NO_TAP, [7], [-INF], [-1], [1], [0]),
    Golden(10, MAX | NO_TAP | {"ceil_mode": True}, [1, 2], [2, 2], [1, 1]),
    Golden(17, AVERAGE | WIDE_CEIL, [1] * 5, [0.5, 1, 1 / 3]),
    Golden(18, EXCLUDE | WIDE_CEIL, [1] * 5, [1, 1, 1]),
    Golden(19, AVERAGE | SQUARE_CEIL, [[1] * 4] * 4, SQUARE),
    Golden(20, AVERAGE | {"kernel": 3, "ceil_mode": True}, [0, 1, 2, 3], [1, 3]),
    Golden(21, AVERAGE | DILATED_CEIL, [1] * 7, [2 / 3, 1, 1 / 2]),
    Golden(22, EXCLUDE | SAME, [1] * 4, [1, 1]),
    Golden(22, AVERAGE | SAME, [1] * 4, [1, 2 / 3]),
    Golden(23, AVERAGE | UNEVEN, [1] * 4, [1, 2 / 3]),
    Golden(24, LP | {"norm_p": 1, "kernel": 2}, [-3, 4], [7], None, [1], [-1, 1]),
    Golden(25, LP | {"norm_p": 3, "kernel": 2}, [-5, 4], [189 ** (1 / 3)]),
    Golden(26, LP | {"norm_p": 1, "kernel": 3, "ceil_mode": True}, [1] * 4, [3, 1]),
    Golden(27, LP | {"kernel": 2}, [0, 0], [0], None, [1], [0, 0]),
    Golden(28, LP | {"kernel": 2}, [-3, 4], [5], None, [1], [-0.6, 0.8]),
    Golden(29, LP | {"kernel": 2}, [1e30, 1e30], [2**0.5 * 1e30]),
    Golden(
        35, MAX | {"kernel": 3, "stride": 1}, [0, 9, 0, 0], [9, 9], [1, 1], [1, 2], [0, 3, 0, 0]
    ),
    Golden(40, MAX | {"kernel": 1, "stride": 3}, range(6), [0, 3], [0, 3], [1, 1], [1, 0, 0] * 2),
)

# (number, L, options, outputs or None for a refusal)
SIZES = (
    (12, 4, {"kernel": 1, "stride": 2, "ceil_mode": True}, 2),
    (13, 2, {"kernel": 3, "stride": 3, "padding": 1, "ceil_mode": True}, 1),
    (14, 9, {"kernel": 4, "stride": 4, "padding": 2, "ceil_mode": True}, 3),
    (15, 6, {"kernel": 3, "stride": 1, "dilation": 2, "padding": "same_upper"}, 6),
    (16, 1, {"kernel": 3, "stride": 2, "ceil_mode": True}, None),
)

# Below, or in a file of their own: integers, bfloat16, adaptive windows, unpooling.
ELSEWHERE = (9, 11, 30, 31, 32, 33, 34, 36, 37, 38, 39)


def planes(values, dtype="float32"):
    """Spatial values as a tensor of one plane."""
    return np.asarray(values, dtype)[None, None]


def test_every_golden_case_has_its_place():
    numbers = {case.number for case in GOLDEN} | {row[0] for row in SIZES}
    assert sorted(numbers | set(ELSEWHERE)) == list(range(1, 41))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case", GOLDEN, ids=lambda case: f"{case.number} {cases.name_of(case.options)}"
)
def test_golden(case, dtype):
    spec, x = PoolSpec(**case.options), planes(case.x, dtype)
    selects = case.cells is not None
    result = forward(x, spec, return_indices=selects, index_format="plane")
    oracle.assert_close(result.output, planes(case.y, "float64"), ulps=0 if selects else 2)
    assert (np.signbit(result.output) == np.signbit(planes(case.y))).all() or np.isnan(case.y).any()
    if selects:
        oracle.assert_same_bits(result.indices, planes(case.cells, "int64"))
    if case.dx is not None:
        residual = {"input_shape": x.shape, "indices": result.indices} if selects else {"input": x}
        dx = backward(planes(case.dy, dtype), spec, **residual)
        oracle.assert_close(dx, planes(case.dx, "float64"), ulps=2)


@pytest.mark.parametrize(
    "case", GOLDEN, ids=lambda case: f"{case.number} {cases.name_of(case.options)}"
)
def test_the_oracle_gives_the_golden_answers(case):
    x = planes(case.x, "float64")
    pooled = cases.expected_forward(case.options, x)
    oracle.assert_close(pooled.output, planes(case.y, "float64"), ulps=2)
    if case.cells is not None:
        oracle.assert_same_bits(pooled.cells, planes(case.cells, "int64"))
    if case.dx is not None:
        dy = planes(case.dy, "float64")
        dx = cases.expected_backward(case.options, dy, x.shape, x=x, taps=pooled.taps)
        oracle.assert_close(dx, planes(case.dx, "float64"), ulps=2)


@pytest.mark.parametrize(("number", "size", "options", "outputs"), SIZES)
def test_golden_sizes(number, size, options, outputs):
    spec, x = PoolSpec("max", **options), np.zeros((1, 1, size, size), np.float32)
    if outputs is None:
        with pytest.raises(InvalidSpecError, match="no output"):
            forward(x, spec)
    else:
        assert forward(x, spec).output.shape == (1, 1, outputs, outputs)


def test_golden_36_an_empty_batch():
    spec, x = PoolSpec("max", 2), np.zeros((0, 3, 4), np.float32)
    result = forward(x, spec, return_indices=True)
    assert result.output.shape == result.indices.shape == (0, 3, 2)
    dx = backward(result.output, spec, input_shape=x.shape, indices=result.indices)
    assert dx.shape == x.shape


def test_golden_37_plane_indices_start_anew_in_every_plane():
    x = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    spec = PoolSpec("max", 2)
    indices = forward(x, spec, return_indices=True, index_format="plane").indices
    assert indices.tolist() == [[[1, 3], [1, 3]], [[1, 3], [1, 3]]]
    tensor = forward(x, spec, return_indices=True, index_format="tensor").indices
    assert tensor.ravel().tolist() == [1, 3, 5, 7, 9, 11, 13, 15]


def test_golden_38_column_major_positions_follow_from_ours():
    """ONNX's storage_order = 1 is not a format of the contract; a line makes it of two that are."""
    x = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4)
    spec, height, width = PoolSpec("max", 2), 4, 4
    plane = forward(x, spec, return_indices=True, index_format="plane").indices
    tensor = forward(x, spec, return_indices=True, index_format="tensor").indices
    column_major = tensor - plane + plane // width + plane % width * height
    assert column_major.ravel().tolist() == [5, 13, 7, 15, 21, 29, 23, 31]


def test_golden_39_channels_last_positions_follow_from_ours():
    """Nor are TensorFlow's positions in (H, W, C), with and without the batch."""
    x = np.arange(64, dtype=np.float32).reshape(2, 4, 4, 2)
    spec = PoolSpec("max", 2, layout="channels_last")
    plane = forward(x, spec, return_indices=True, index_format="plane").indices
    without_batch = plane * 2 + np.arange(2)
    assert without_batch.reshape(2, -1).tolist() == [[10, 11, 14, 15, 26, 27, 30, 31]] * 2
    with_batch = without_batch + 32 * np.arange(2).reshape(2, 1, 1, 1)
    assert with_batch[1].ravel().tolist() == [42, 43, 46, 47, 58, 59, 62, 63]
