"""Device indices as positions in the plane and the tensor, and back, on the shim and on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from pooling_engine.backends import select_backend
from pooling_engine.backends.cupy_backend.backend import CupyBackend
from pooling_engine.plans import indices
from pooling_engine.specs.enums import IndexFormat
from tests.gpu.support import Array, patched_planner, positions_of_64_bits
from tests.support import cases, oracle, pairs, palettes

pytestmark = pytest.mark.usefixtures("anywhere")

FORMATS = (IndexFormat.PLANE, IndexFormat.TENSOR)
SHAPE = (2, 3, 6, 7)


def assert_converts(spec: PoolSpec, x: Array, index_format: IndexFormat) -> None:
    """Compare both conversions of a call's indices with NumPy's."""
    backend, plan = select_backend("cupy"), pooling_engine.plan(spec, x.shape, x.dtype)
    assert isinstance(backend, CupyBackend)
    windows = forward(x, spec, return_indices=True, backend="numpy").indices
    assert windows is not None
    theirs = np.empty(plan.output_shape, np.int64)
    indices.to_positions(plan, windows, index_format, theirs)
    ours = backend.device.empty(plan.output_shape, np.dtype(np.int64))
    backend.to_positions(plan, backend.to_device(windows), index_format, ours)
    oracle.assert_same_bits(backend.to_host(ours), theirs)
    back = backend.from_positions(plan, ours, index_format)
    oracle.assert_same_bits(backend.to_host(back), windows)


@given(st.data())
@settings(cases.many_examples)
def test_any_case(data: st.DataObject) -> None:
    options, sizes, seed = data.draw(st.integers(1, 4).flatmap(cases.ranked_windows))
    policy = data.draw(st.sampled_from(("propagate", "ignore")))
    spec = PoolSpec("max", nan_policy=policy, **options)
    planes = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 3))
    x = cases.to_layout(options, palettes.VALUES["hard"]((*planes, *sizes), np.float32, seed))
    for index_format in FORMATS:
        assert_converts(spec, x, index_format)


@pytest.mark.parametrize("index_format", FORMATS)
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel": 3, "stride": 2, "padding": 1}, (2, 3, 40, 33)),
        ({"kernel": 3, "dilation": 2, "layout": "channels_last"}, (3, 15, 9, 8)),
        ({"global_window": True}, (2, 2, 30, 30)),  # 16-bit indices
        ({"global_window": True}, (1, 2, 300, 300)),  # 32-bit indices
        ({"adaptive_output": (3, 2, 4)}, (1, 2, 5, 7, 9)),
    ],
    ids=cases.name_of,
)
def test_large_planes_and_positions_of_64_bits(
    options: dict[str, Any], shape: tuple[int, ...], index_format: IndexFormat
) -> None:
    x = cases.normal(shape)
    assert_converts(PoolSpec("max", **options), x, index_format)
    with patched_planner(positions_of_64_bits):
        assert_converts(PoolSpec("max", **options), x, index_format)


# The taps of a window are not adjacent: positions between them are invalid.
DILATED = {"kernel": (1, 2), "stride": (1, 2), "dilation": (1, 2), "padding": (0, 1)}


@pytest.mark.parametrize("index_format", FORMATS)
@pytest.mark.parametrize(
    ("options", "output", "position"),
    [
        ({"kernel": 2}, (0, 0, 0, 0), -2),
        ({"kernel": 2}, (0, 0, 0, 0), 2),
        ({"kernel": 2}, (0, 0, 1, 1), 3),
        ({"kernel": 2}, (1, 2, 2, 2), 6 * 7),
        ({"kernel": 2}, (1, 2, 2, 2), 2**40),
        ({"kernel": 2}, (1, 2, 2, 2), -(2**63)),
        ({"kernel": 3, "padding": 1, "stride": 2}, (0, 1, 0, 0), 6),
        (DILATED, (0, 0, 0, 1), 2),
        ({"adaptive_output": 2}, (0, 0, 0, 0), 4),
        ({"kernel": 2, "layout": "channels_last"}, (1, 0, 1, 1), 0),
    ],
)
def test_a_position_outside_its_window_is_rejected_by_name(
    options: dict[str, Any], output: tuple[int, ...], position: int, index_format: IndexFormat
) -> None:
    x, spec = cases.normal(SHAPE), PoolSpec("max", **options)
    dy, wrong = forward(x, spec, return_indices=True, index_format=index_format, backend="numpy")
    assert wrong is not None
    wrong[output] = position
    given = {"input_shape": SHAPE, "index_format": index_format}
    expected = pairs.outcome(backward, dy, spec, indices=wrong, backend="numpy", **given)
    backend = select_backend("cupy")
    assert isinstance(backend, CupyBackend)
    dy, wrong = backend.to_device(dy), backend.to_device(wrong)
    found = pairs.outcome(backward, dy, spec, indices=wrong, backend="cupy", **given)
    assert (type(found), found.field, str(found)) == (
        type(expected),
        expected.field,
        str(expected),
    )
    assert found.field == "indices"
