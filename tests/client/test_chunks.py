"""The chunks of a call give bit-identical results to the call, with the engine alone."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pooling_engine  # the NumPy backend computes: the splitting is tested
from pooling_client._cutting import indices as _indices
from pooling_client._cutting.chunks import (
    backward_chunks,
    backward_row_bytes,
    forward_chunks,
    forward_row_bytes,
)
from pooling_engine import IndexFormat, PoolSpec
from pooling_engine.plans.planning import make_plan
from tests.support import cases, oracle

POLICIES = tuple(
    {"mode": mode, **policies}
    for mode in ("max", "min")
    for policies in ({"tie_policy": "all"}, {"tie_policy": "split"}, {"nan_policy": "ignore"})
)
MODES = cases.MODES + POLICIES
FORMATS = ("window", "plane", "tensor")


def forward_in_chunks(
    x: np.ndarray, spec: PoolSpec, index_format: str | None, max_bytes: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return output and indices. Every element must be written exactly once."""
    plan = make_plan(spec, x.shape, x.dtype)
    chosen = IndexFormat(index_format or "window")
    dtype = plan.index_dtype if index_format in (None, "window") else np.dtype(np.int64)
    output = np.empty(plan.output_shape, plan.output_dtype)
    indices = np.empty(plan.output_shape, dtype) if index_format else None
    written = np.zeros(plan.output_shape, int)
    row_bytes = forward_row_bytes(plan, dtype.itemsize if index_format else 0)
    for chunk in forward_chunks(spec, plan, row_bytes, max_bytes):
        result = pooling_engine.forward(
            x[chunk.inputs],
            chunk.spec,
            return_indices=index_format is not None,
            index_format=chosen,
            backend="numpy",
        )
        output[chunk.outputs] = result.output
        if indices is not None:
            indices[chunk.outputs] = _indices.to_call(plan, chunk, result.indices, chosen)
        written[chunk.outputs] += 1
    assert (written == 1).all()
    return output, indices


def backward_in_chunks(
    dy: np.ndarray, spec: PoolSpec, shape: tuple[int, ...], residual: dict[str, Any], max_bytes: int
) -> np.ndarray:
    plan = make_plan(spec, shape, dy.dtype)
    indices, x = residual.get("indices"), residual.get("input")
    gradient = np.zeros(shape, dy.dtype)
    written = np.zeros(shape, int)
    itemsize = 0 if indices is None else indices.dtype.itemsize
    row_bytes = backward_row_bytes(plan, itemsize, x is not None)
    for chunk in backward_chunks(spec, plan, row_bytes, max_bytes):
        chunk_residual: dict[str, Any] = {"input_shape": gradient[chunk.inputs].shape}
        if indices is not None:
            chosen = IndexFormat(residual["index_format"])
            chunk_residual["indices"] = _indices.to_chunk(plan, chunk, indices, chosen)
            chunk_residual["index_format"] = chosen
        elif x is not None:
            chunk_residual = {"input": x[chunk.inputs]}
        result = pooling_engine.backward(
            dy[chunk.outputs], chunk.spec, backend="numpy", **chunk_residual
        )
        gradient[chunk.computed] = result[chunk.part]
        written[chunk.computed] += 1
    assert (written <= 1).all()
    return gradient


def assert_same_in_chunks(
    options: dict[str, Any], x: np.ndarray, index_format: str, max_bytes: int
) -> None:
    spec = PoolSpec(**options)
    x = np.ascontiguousarray(cases.to_layout(options, x))
    selects = options["mode"] in ("max", "min")
    wanted = index_format if selects else None
    whole = pooling_engine.forward(x, spec, return_indices=selects, index_format=wanted or "window")
    output, indices = forward_in_chunks(x, spec, wanted, max_bytes)
    oracle.assert_same_bits(output, whole.output)
    if selects:
        np.testing.assert_array_equal(indices, whole.indices, strict=True)
    if x.dtype.kind in "iu":
        return
    dy = cases.normal(whole.output.shape, x.dtype, seed=1)
    needs_input = options["mode"] == "lp" or options.get("tie_policy", "first") != "first"
    choices: list[dict[str, Any]] = [{"input": x}] if needs_input or selects else [{}]
    if selects and not needs_input:
        choices.append({"indices": indices, "index_format": index_format})
    for residual in choices:
        expected = pooling_engine.backward(
            dy, spec, input_shape=x.shape, backend="numpy", **residual
        )
        actual = backward_in_chunks(dy, spec, x.shape, residual, max_bytes)
        oracle.assert_same_bits(actual, expected)


WINDOWS = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (13, 6)),
    ({"kernel": (4, 3), "stride": (1, 2), "padding": ((3, 1), (0, 1))}, (11, 9)),
    ({"kernel": 3, "stride": (2, 3), "dilation": (3, 1), "padding": (4, 1), "ceil_mode": True},
     (14, 7)),
    ({"kernel": 2, "stride": 5, "ceil_mode": True}, (16,)),
    ({"kernel": 3, "stride": 1, "padding": "same_lower", "dilation": (2, 1, 1)}, (7, 3, 4)),
    ({"adaptive_output": (3, 2)}, (7, 5)),
    ({"adaptive_output": (6, 2)}, (9, 4)),
    ({"adaptive_output": (5, 3)}, (20, 4)),
    ({"adaptive_output": 13}, (17,)),
    ({"global_window": True}, (5, 6)),
)  # fmt: skip
DTYPES = ("float16", ml_dtypes.bfloat16, "float32", "float64", "int8", "int64")
ROWS = [
    (mode | window, sizes, dtype, layout, format_)
    for (mode, (window, sizes)), (dtype, layout), format_ in zip(
        itertools.product(MODES, WINDOWS),
        itertools.cycle(itertools.product(DTYPES, ("channels_first", "channels_last"))),
        itertools.cycle(FORMATS * 2 + FORMATS[::-1]),
    )
    if mode["mode"] != "lp" or "int" not in np.dtype(dtype).name
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "sizes", "dtype", "layout", "index_format"), ROWS, ids=cases.name_of
)
def test_every_mode_window_type_and_layout(
    options: dict[str, Any], sizes: tuple[int, ...], dtype: Any, layout: str, index_format: str
) -> None:
    shape = (2, 3, *sizes)
    is_float = "float" in np.dtype(dtype).name
    x = cases.normal(shape, dtype) if is_float else cases.integers(shape, dtype)
    for max_bytes in (1, 600):
        assert_same_in_chunks(options | {"layout": layout}, x, index_format, max_bytes)


@pytest.mark.parametrize("window", [{"kernel": (9, 43)}, {"adaptive_output": (7, 1)}])
@pytest.mark.parametrize("rows", [18, 45, 60])
def test_bands_of_windows_as_wide_as_the_plane_keep_the_order_of_sums(window, rows) -> None:
    x = cases.normal((1, 2, rows, 43), "float64")
    for max_bytes in (1, 9 * 43 * 8, 30 * 43 * 8):
        assert_same_in_chunks({"mode": "sum"} | window, x, "window", max_bytes)


@pytest.mark.parametrize("mode", ["average", "sum"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(15, 1, 0), (16, 1, [(7, 15)] * 2), (18, 2, 9), (25, 3, 24), ((21, 3), (2, 1), (4, 1))],
)
def test_bands_keep_the_order_of_scanned_sums(
    mode: str, layout: str, kernel: Any, stride: Any, padding: Any
) -> None:
    options = {"kernel": kernel, "stride": stride, "padding": padding, "layout": layout}
    x = cases.normal((1, 2, 90, 29), "float64")
    for max_bytes in (1, 3000, 12000):
        assert_same_in_chunks({"mode": mode} | options, x, "window", max_bytes)


@cases.many_examples
@given(
    case=cases.cases(modes=MODES, most_axes=2),
    index_format=st.sampled_from(FORMATS),
    max_bytes=st.integers(1, 2000),
)
def test_random_windows_and_hard_values(case: Any, index_format: str, max_bytes: int) -> None:
    draw = cases.normal if case.seed % 2 else cases.hard
    x = draw(case.shape, case.dtype, case.seed)
    assert_same_in_chunks(case.options, x, index_format, max_bytes)


@cases.many_examples
@given(
    size=st.integers(1, 40),
    outputs=st.integers(1, 45),
    mode=st.sampled_from(MODES),
    has_nan=st.booleans(),
    index_format=st.sampled_from(FORMATS),
    max_bytes=st.integers(1, 600),
)
def test_random_adaptive_windows(
    size: int, outputs: int, mode: Any, has_nan: bool, index_format: str, max_bytes: int
) -> None:
    x = cases.hard((1, 2, size, 3), seed=size, has_nan=has_nan)
    options = mode | {"adaptive_output": (outputs, 2)}
    assert_same_in_chunks(options, x, index_format, max_bytes)
