"""Windows derived from the sizes: adaptive and global windows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling_engine import InvalidSpecError, InvalidTensorError, PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

LAYOUTS = ("channels_first", "channels_last")
# (size, outputs) of windows at regular steps: clipped at both ends, and not clipped
EVENLY_SPACED = ((13, 7), (13, 6), (14, 3), (8, 7), (7, 8), (9, 2))
PATHS = {"average": "avg", "max": "max"}  # PyTorch's names


@st.composite
def sized_cases(draw, modes=cases.MODES):
    """Draw a case of `cases.cases` with adaptive or global windows."""
    case = draw(cases.cases(modes=modes))
    names = ("kernel", "stride", "dilation", "padding", "ceil_mode")
    options = {key: value for key, value in case.options.items() if key not in names}
    sizes = tuple(draw(st.integers(1, 9)) for _ in case.shape[2:])
    if draw(st.integers(0, 3)) == 0:
        options["global_window"] = True
    else:
        options["adaptive_output"] = tuple(draw(st.integers(1, 11)) for _ in sizes)
    return case._replace(options=options, shape=case.shape[:2] + sizes)


# (options, x, the output, the positions in the plane); see also golden case 34
BY_HAND = (
    ({"mode": "min", "adaptive_output": 3}, range(5), [0, 1, 3], [0, 1, 3]),
    ({"mode": "sum", "adaptive_output": 3}, range(5), [1, 6, 7], None),
    ({"mode": "max", "adaptive_output": 5}, [7, 8], [7, 7, 8, 8, 8], [0, 0, 1, 1, 1]),
    ({"mode": "sum", "adaptive_output": 5}, [7, 8], [7, 7, 15, 8, 8], None),
    ({"mode": "max", "global_window": True}, [3, 9, 9], [9], [1]),
    ({"mode": "average", "global_window": True}, [3, 9, 9], [7], None),
    ({"mode": "lp", "global_window": True}, [3, 4], [5], None),
)


@pytest.mark.parametrize(("options", "x", "y", "cells"), BY_HAND, ids=cases.name_of)
def test_windows_computed_by_hand(options, x, y, cells):
    x = np.array([[x]], np.float64)
    expected = cases.expected_forward(options, x)
    assert expected.output.tolist() == [[y]]
    result = forward(x, PoolSpec(**options))
    assert result.output.tolist() == [[y]]
    if cells is not None:
        assert expected.cells.tolist() == [[cells]]
        support.assert_forward(options, x)


def test_the_windows_of_the_oracle_follow_the_contract():
    assert oracle.adaptive_windows(5, 3) == [range(2), range(1, 4), range(3, 5)]
    assert oracle.adaptive_windows(2, 3) == [range(1), range(2), range(1, 2)]
    windows = (oracle.adaptive_windows(5, 3), oracle.adaptive_windows(4, 3))
    assert list(map(oracle.kernel_of, windows)) == [3, 2]
    numbers = oracle.numbered_taps((0, 0), windows)
    assert numbers == {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (1, 1)}
    windows = (windows[1], windows[0])
    assert oracle.numbered_taps((1, 2), windows) == {0: (1, 3), 1: (1, 4), 3: (2, 3), 4: (2, 4)}


@pytest.mark.parametrize("mode", ["max", "average", "sum"])
@pytest.mark.parametrize("sizes", EVENLY_SPACED, ids=str)
def test_evenly_spaced_windows_agree_with_the_oracle(sizes, mode):
    size, outputs = sizes
    x = cases.normal((1, 2, size, size))
    options = {"mode": mode, "adaptive_output": outputs}
    support.assert_forward(options, x)
    support.assert_backward(options, x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("options", "sizes"), cases.all_cases(windows=cases.SIZED_WINDOWS), ids=cases.name_of
)
def test_forward_and_backward_agree_with_the_oracle(options, sizes, layout):
    options, x = options | {"layout": layout}, cases.normal((2, 3, *sizes))
    support.assert_forward(options, x)
    support.assert_backward(options, x)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize(
    ("options", "sizes"),
    cases.all_cases(support.SELECTING, cases.SIZED_WINDOWS),
    ids=cases.name_of,
)
def test_selection_among_ties_zeros_infinities_and_nans(options, sizes, dtype):
    for seed in range(3):
        x = cases.hard((1, 3, *sizes), dtype, seed, has_nan=seed > 0)
        support.assert_forward(options, x)
        support.assert_backward(options, x)


@cases.many_examples
@given(case=sized_cases())
def test_random_cases_agree_with_the_oracle(case, run_with):
    x = cases.normal(case.shape, case.dtype, case.seed)
    disguise = cases.DISGUISES[case.disguise]
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(case.options, x, disguise)
        support.assert_backward(case.options, x, disguise)


@cases.many_examples
@given(case=sized_cases(modes=support.SELECTING), data=st.data())
def test_every_number_of_a_window_index_is_checked(case, data):
    """Any number at one output is accepted if the oracle's window has it, and else rejected."""
    options, spec = case.options, PoolSpec(**case.options)
    windows = cases.windows_of(options, case.shape[2:])
    shape = oracle.output_shape(case.shape, windows)
    place = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    taps = oracle.numbered_taps(place[2:], windows)
    entry = data.draw(st.integers(0, np.prod(list(map(oracle.kernel_of, windows)))))
    numbers = np.full(shape, oracle.NONE)
    numbers[place] = entry
    expected = np.zeros(case.shape, np.float32)
    if entry in taps:
        expected[place[:2] + taps[entry]] = 1
    dy, indices = (
        cases.to_layout(options, array)
        for array in (np.ones(shape, np.float32), cases.window_indices(numbers, windows))
    )
    input_shape = cases.to_layout(options, expected).shape
    if entry in taps:
        dx = backward(dy, spec, input_shape=input_shape, indices=indices)
        oracle.assert_same_bits(cases.from_layout(options, dx), expected)
    else:
        with pytest.raises(InvalidTensorError, match=f"is {entry}; it must be") as error:
            backward(dy, spec, input_shape=input_shape, indices=indices)
        assert error.value.field == "indices"


# Windows of x: [0, 2), [1, 4), [3, 5); (the output, the invalid entry, its type)
INVALID = (
    (0, 2, "uint8"),
    (2, 2, "uint8"),
    (1, 3, "uint8"),
    (0, 2, "int64"),
    (1, 0, "int64"),
    (1, 4, "int64"),
    (2, 2, "int64"),
    (2, 5, "int64"),
    (2, -2, "int64"),
)


@pytest.mark.parametrize(("output", "entry", "dtype"), INVALID)
@pytest.mark.parametrize("name", ["plane", "tensor"])
def test_entries_outside_their_window_are_rejected(output, entry, dtype, name):
    indices = np.array([[[1, 1, 1]]] if dtype == "uint8" else [[[1, 2, 3]]], dtype)
    sent = {"input_shape": (1, 1, 5), "index_format": name if dtype == "int64" else "window"}
    spec, dy = PoolSpec("max", adaptive_output=3), np.ones((1, 1, 3), np.float32)
    assert backward(dy, spec, indices=indices, **sent).sum() == 3
    indices[0, 0, output] = entry
    with pytest.raises(InvalidTensorError, match=f"is {entry}; it must be") as error:
        backward(dy, spec, indices=indices, **sent)
    assert error.value.field == "indices"


# (options, spatial sizes, the type of a window index): the largest window of each axis counts.
INDEX_TYPES = (
    ({"adaptive_output": 2}, (510,), "uint8"),
    ({"adaptive_output": 2}, (511,), "uint16"),
    ({"adaptive_output": (1, 3)}, (51, 13), "uint8"),
    ({"adaptive_output": (1, 3)}, (52, 13), "uint16"),
    ({"global_window": True}, (255,), "uint8"),
    ({"global_window": True}, (16, 16), "uint16"),
    ({"global_window": True}, (255, 257), "uint16"),
    ({"global_window": True}, (256, 256), "uint32"),
)


@pytest.mark.timeout(300)  # compiles a kernel for each type of index
@pytest.mark.parametrize(("options", "sizes", "dtype"), INDEX_TYPES, ids=cases.name_of)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_type_of_a_window_index(mode, options, sizes, dtype):
    spec, x = PoolSpec(mode, **options), np.zeros((1, 1, *sizes), np.float32)
    x[(0, 0, *(size - 1 for size in sizes))] = 1 if mode == "max" else -1
    output, indices = forward(x, spec, return_indices=True)
    assert indices.dtype == dtype
    dx = backward(np.abs(output), spec, input_shape=x.shape, indices=indices)
    assert dx.ravel()[-1] == 1
    oracle.assert_same_bits(dx, backward(np.abs(output), spec, input=x))


TORCH_OUTPUTS = (
    ((3,), (5,)),
    ((7,), (3,)),
    ((4, 3), (9, 7)),
    ((5, 2), (3, 8)),
    ((2, 4, 3), (5, 6, 7)),
    ((1, 1), (6, 5)),
)


@pytest.mark.parametrize("mode", PATHS)
@pytest.mark.parametrize(("outputs", "sizes"), TORCH_OUTPUTS, ids=cases.name_of)
def test_values_indices_and_gradients_agree_with_pytorch(mode, outputs, sizes):
    import torch

    pool = getattr(torch.nn.functional, f"adaptive_{PATHS[mode]}_pool{len(sizes)}d")
    x = torch.from_numpy(cases.normal((2, 3, *sizes), "float64")).requires_grad_()
    theirs = pool(x, outputs, **({"return_indices": True} if mode == "max" else {}))
    theirs, cells = theirs if mode == "max" else (theirs, None)
    dy = cases.normal(tuple(theirs.shape), "float64", seed=1)
    theirs.backward(torch.from_numpy(dy))
    options = {"mode": mode, "adaptive_output": outputs}
    spec, array = PoolSpec(**options), x.detach().numpy()
    pooled = cases.expected_forward(options, array)
    gradient = cases.expected_backward(options, dy, array.shape, taps=pooled.taps)
    np.testing.assert_allclose(pooled.output, theirs.detach().numpy(), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-13, atol=1e-14)
    if mode == "max":
        oracle.assert_same_bits(pooled.cells, cells.numpy())
    support.assert_forward(options, array)
    residual = {"input": array} if mode == "max" else {"input_shape": array.shape}
    np.testing.assert_allclose(backward(dy, spec, **residual), x.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_of_the_same_size_give_the_same_results(mode, layout):
    x = cases.normal((2, 3, 6, 4))
    same = (
        ({"global_window": True}, {"kernel": (6, 4)}),
        ({"adaptive_output": 1}, {"kernel": (6, 4)}),
        ({"adaptive_output": (3, 2)}, {"kernel": 2}),
        ({"adaptive_output": (6, 4)}, {"kernel": 1}),
        ({"adaptive_output": (5, 3)}, {"kernel": 2, "stride": 1}),
    )
    for one, other in same:
        specs = [PoolSpec(**mode, **window, layout=layout) for window in (one, other)]
        options = mode | {"layout": layout}
        given = cases.to_layout(options, x)
        outputs = [forward(given, spec).output for spec in specs]
        oracle.assert_same_bits(*outputs)
        needs_input = mode["mode"] in ("max", "min", "lp")
        residual = {"input": given} if needs_input else {"input_shape": given.shape}
        oracle.assert_same_bits(*[backward(outputs[0], spec, **residual) for spec in specs])


@pytest.mark.parametrize("mode", ["average", "sum"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", [(37, 43), (1300,), (7, 11, 19)])
def test_windows_that_span_the_plane_are_summed_like_global_ones(mode, layout, sizes):
    x = cases.to_layout(
        {"layout": layout}, cases.normal((2, 5, *sizes)) * 10.0 ** cases.normal((2, 5, *sizes))
    )
    same = ({"global_window": True}, {"adaptive_output": 1}, {"kernel": sizes, "stride": 1})
    sums = [forward(x, PoolSpec(mode, **window, layout=layout)).output for window in same]
    wide = [
        forward(x.astype(np.float64), PoolSpec(mode, **window, layout=layout)).output
        for window in same
    ]
    for results in (sums, wide):
        oracle.assert_same_bits(results[0], results[1])
        oracle.assert_same_bits(results[0], results[2])


@pytest.mark.parametrize("window", [{"adaptive_output": (3, 4)}, {"global_window": True}])
def test_count_include_pad_has_no_effect(window):
    x = cases.normal((2, 2, 7, 6))
    specs = [PoolSpec("average", **window, count_include_pad=value) for value in (True, False)]
    outputs = [forward(x, spec).output for spec in specs]
    oracle.assert_same_bits(*outputs)
    oracle.assert_same_bits(*[backward(outputs[0], s, input_shape=x.shape) for s in specs])


def test_windows_are_computed_with_integers():
    size, outputs = 5003, 4999
    in_float32 = np.floor(np.arange(outputs, dtype=np.float32) * np.float32(size) / outputs)
    starts = np.arange(outputs) * size // outputs
    assert (in_float32 != starts).any()
    x = np.arange(size, dtype=np.float32)[None, None]
    lowest = forward(x, PoolSpec("min", adaptive_output=outputs)).output
    highest = forward(x, PoolSpec("max", adaptive_output=outputs)).output
    np.testing.assert_array_equal(lowest[0, 0], starts)
    np.testing.assert_array_equal(
        highest[0, 0], -(-np.arange(1, outputs + 1) * size // outputs) - 1
    )


def test_a_long_axis():
    x = cases.normal((1, 2, 60_001))
    spec = PoolSpec("max", adaptive_output=2)
    output, indices = forward(x, spec, return_indices=True, index_format="plane")
    expected = np.stack([x[..., :30_001].max(axis=2), x[..., 30_000:].max(axis=2)], axis=2)
    oracle.assert_same_bits(output, expected)
    oracle.assert_same_bits(np.take_along_axis(x, indices, axis=2), expected)
    mean = forward(x, PoolSpec("average", global_window=True)).output
    oracle.assert_close(mean[:, :, 0], x.astype(np.float64).mean(axis=2), ulps=4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_results_do_not_depend_on_threads_or_blocks(mode, layout, run_with):
    for window, sizes in cases.SIZED_WINDOWS[5:11]:
        options = mode | window | {"layout": layout}
        support.assert_same_for_all_blocks(options, cases.normal((2, 3, *sizes)), run_with)


@pytest.mark.parametrize("window", [{"adaptive_output": (3, 2)}, {"global_window": True}])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_of_an_empty_batch(layout, window):
    outputs = window.get("adaptive_output", (1, 1))
    for mode in cases.MODES:
        options = mode | window | {"layout": layout}
        x = cases.to_layout(options, np.empty((0, 3, 4, 5), np.float32))
        output = forward(x, PoolSpec(**options)).output
        assert cases.from_layout(options, output).shape == (0, 3, *outputs)


@pytest.mark.parametrize("outputs", [(2, 2), (1, 1, 1)])
def test_outputs_for_another_number_of_axes_are_rejected(outputs):
    with pytest.raises(InvalidSpecError) as error:
        forward(np.ones((1, 1, 4), np.float32), PoolSpec("max", adaptive_output=outputs))
    assert error.value.field == "adaptive_output"


@pytest.mark.once
def test_sums_of_short_planes_take_little_memory():
    x = np.ones((20_000, 1, 2), np.float16)
    tracemalloc.start()
    try:
        got = forward(x, PoolSpec("sum", global_window=True), backend="numpy").output
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1000 * len(x)
    np.testing.assert_array_equal(got, np.full((20_000, 1, 1), 2, np.float16))
