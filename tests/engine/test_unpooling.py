"""Unpooling: values placed at indices, which is the backward pass of max and min."""

from __future__ import annotations

import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

MODES = ("max", "min")
LAYOUTS = ("channels_first", "channels_last")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_duplicates_add_up_in_every_format(dtype, mode):
    values = np.array([[[1, 2]]], dtype)
    spec = PoolSpec(mode, 3, 1)
    for name, indices in (("window", [1, 0]), ("plane", [1, 1]), ("tensor", [1, 1])):
        indices = np.array([[indices]], np.uint8 if name == "window" else np.int64)
        sent = {"input_shape": (1, 1, 4), "indices": indices, "index_format": name}
        assert backward(values, spec, **sent).tolist() == [[[0, 3, 0, 0]]]


def test_the_caller_chooses_the_shape():
    """Two outputs with windows of two elements can come from four or five elements."""
    values, indices = np.array([[[7, 8]]], np.float32), np.array([[[1, 2]]])
    for size in (4, 5):
        x = backward(values, PoolSpec("max", 2), input_shape=(1, 1, size), indices=indices)
        assert x.tolist() == [[[0, 7, 8, 0, 0][:size]]]
    with pytest.raises(InvalidTensorError):
        backward(values, PoolSpec("max", 2), input_shape=(1, 1, 6), indices=indices)


TORCH_WINDOWS = (
    ({"kernel": 2}, (8,)),
    ({"kernel": 3, "stride": 4, "padding": 1}, (11,)),
    ({"kernel": 2}, (6, 8)),
    ({"kernel": (2, 3), "stride": (3, 4)}, (9, 12)),
    ({"kernel": 2, "stride": 2, "ceil_mode": True}, (5, 7)),
    ({"kernel": 2}, (4, 6, 2)),
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("window", "sizes"), TORCH_WINDOWS, ids=cases.name_of)
def test_unpooling_without_duplicates_agrees_with_pytorch(window, sizes, dtype):
    import torch

    functions = torch.nn.functional
    x = torch.from_numpy(cases.normal((2, 3, *sizes), dtype))
    names = {"kernel": "kernel_size"}
    arguments = {names.get(name, name): value for name, value in window.items()}
    pool = getattr(functions, f"max_pool{len(sizes)}d")
    _, cells = pool(x, **arguments, return_indices=True)
    values = cases.normal(tuple(cells.shape), dtype, seed=1)
    arguments.pop("ceil_mode", None)
    unpool = getattr(functions, f"max_unpool{len(sizes)}d")
    theirs = unpool(torch.from_numpy(values), cells, **arguments, output_size=x.shape)
    ours = backward(values, PoolSpec("max", **window), input_shape=x.shape, indices=cells.numpy())
    oracle.assert_same_bits(ours, theirs.numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel": 2},
        {"kernel": 2, "stride": 3},
        {"adaptive_output": (3, 2)},
        {"global_window": True},
    ],
    ids=cases.name_of,
)
def test_pooled_elements_return_to_their_positions(window, mode, layout):
    """Without overlap, the selected elements are restored bit for bit, with zeros elsewhere."""
    options = window | {"mode": mode, "layout": layout}
    x = cases.to_layout(options, cases.normal((2, 3, 6, 8)))
    spec = PoolSpec(**options)
    for name in support.FORMATS:
        y, indices = forward(x, spec, return_indices=True, index_format=name)
        back = backward(y, spec, input_shape=x.shape, indices=indices, index_format=name)
        assert np.count_nonzero(back) == y.size
        oracle.assert_same_bits(back, np.where(back != 0, x, 0).astype(x.dtype))
        oracle.assert_same_bits(
            forward(np.abs(back), PoolSpec(**options | {"mode": "max"})).output, np.abs(y)
        )


@st.composite
def unpoolings(draw):
    """Draw a case, and for every output any of its valid taps, or none."""
    case = draw(cases.cases(modes=support.SELECTING))
    if draw(st.booleans()):
        names = ("kernel", "stride", "dilation", "padding", "ceil_mode")
        options = {key: value for key, value in case.options.items() if key not in names}
        outputs = tuple(draw(st.integers(1, 6)) for _ in case.shape[2:])
        case = case._replace(options=options | {"adaptive_output": outputs})
    windows = cases.windows_of(case.options, case.shape[2:])
    shape = oracle.output_shape(case.shape, windows, case.options.get("ceil_mode", False))
    taps, cells = np.full(shape, oracle.NONE), np.full(shape, oracle.NONE)
    random = np.random.default_rng(case.seed)
    for place in np.ndindex(shape):
        legal = [
            (number, oracle.flat(at, case.shape[2:]))
            for number, at in oracle.numbered_taps(place[2:], windows).items()
            if oracle.is_valid(at, case.shape[2:])
        ]
        if legal and random.random() < 0.9:
            taps[place], cells[place] = legal[random.integers(len(legal))]
    return case, oracle.Pooled(np.empty(shape), taps, cells)


@cases.many_examples
@given(drawn=unpoolings())
def test_any_indices_agree_with_the_oracle(drawn, run_with):
    """The indices include duplicates, and "none" for windows with elements."""
    case, pooled = drawn
    options, disguise = case.options, cases.DISGUISES[case.disguise]
    values = cases.normal(pooled.taps.shape, case.dtype, case.seed)
    expected = cases.expected_backward(options, values, case.shape, taps=pooled.taps)
    by_cell = np.zeros((case.shape[0] * case.shape[1], np.prod(case.shape[2:], dtype=int)))
    for plane, cells, given_values in zip(
        by_cell,
        pooled.cells.reshape(len(by_cell), -1),
        values.reshape(len(by_cell), -1).astype(np.float64),
        strict=True,
    ):
        np.add.at(plane, cells[cells >= 0], given_values[cells >= 0])
    np.testing.assert_allclose(by_cell.reshape(case.shape), expected, atol=1e-12)
    sent = disguise(cases.to_layout(options, values))
    shape = cases.to_layout(options, expected).shape
    results = []
    with run_with(case.block_bytes, case.threads):
        for name, indices in support.indices_of(options, pooled, case.shape).items():
            given_indices = disguise(cases.to_layout(options, indices))
            how = {"indices": given_indices, "index_format": name, "input_shape": shape}
            results.append(backward(sent, PoolSpec(**options), **how))
    for result in results:
        assert result.dtype == values.dtype
        oracle.assert_same_bits(result, results[0])
    ulps = support.ULPS[case.dtype]
    oracle.assert_close(cases.from_layout(options, results[0]), expected, ulps, support.SLACK)


@cases.many_examples
@given(drawn=unpoolings())
def test_unpooling_is_the_transpose_of_a_gather(drawn):
    case, pooled = drawn
    options = case.options | {"layout": "channels_first"}
    values = cases.normal(pooled.taps.shape, "float64", case.seed)
    x = cases.normal(case.shape, "float64", case.seed + 1)
    positions = oracle.in_tensor(pooled.cells, case.shape)
    taken = np.where(positions >= 0, x.ravel()[positions], 0)
    sent = {"indices": positions, "index_format": "tensor", "input_shape": x.shape}
    put = backward(values, PoolSpec(**options), **sent)
    magnitude = 1 + np.abs(taken * values).sum()
    assert abs((taken * values).sum() - (x * put).sum()) <= 1e-13 * magnitude


@pytest.mark.parametrize(
    ("dtype", "many"), [("float16", 2048), ("bfloat16", 256), ("float32", 2**24)]
)
def test_duplicates_are_added_before_rounding(dtype, many):
    """Rounded after each addition, the values after the large one would be lost."""
    values = np.ones((1, 1, 65), dtype)
    values[0, 0, 0] = many
    indices = np.full((1, 1, 65), 64)
    x = backward(values, PoolSpec("max", 65, 1), input_shape=(1, 1, 129), indices=indices)
    assert float(x[0, 0, 64]) == many + 64
    assert np.count_nonzero(x) == 1


def test_values_that_are_not_finite_stay_at_their_positions():
    values = np.array([[[np.inf, np.nan, -np.inf, -0.0]]], np.float32)
    indices = np.array([[[1, 2, 4, 7]]])
    x = backward(values, PoolSpec("min", 2), input_shape=(1, 1, 8), indices=indices)
    np.testing.assert_array_equal(x, [[[0, np.inf, np.nan, 0, -np.inf, 0, 0, 0]]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_do_not_depend_on_threads_or_blocks(layout, run_with):
    options = {"mode": "max", "kernel": 5, "stride": 1, "layout": layout}
    random = np.random.default_rng(5)
    taps = cases.to_layout(options, random.integers(0, 25, (2, 3, 9, 7)).astype(np.uint8))
    values = cases.to_layout(options, cases.normal((2, 3, 9, 7)))
    shape = cases.to_layout(options, np.empty((2, 3, 13, 11))).shape
    spec = PoolSpec(**options)
    expected = backward(values, spec, input_shape=shape, indices=taps)
    for block_bytes, threads in ((8, 1), (8, 4), (100, 2), (1 << 20, 3)):
        with run_with(block_bytes, threads):
            x = backward(values, spec, input_shape=shape, indices=taps)
            oracle.assert_same_bits(x, expected)


@pytest.mark.parametrize("dtype", cases.INTEGERS)
def test_unpooling_of_integers_is_rejected(dtype):
    values, indices = np.ones((1, 1, 2), dtype), np.array([[[1, 2]]])
    with pytest.raises(InvalidTensorError) as error:
        backward(values, PoolSpec("max", 2), input_shape=(1, 1, 4), indices=indices)
    assert error.value.field == "output_gradient"
