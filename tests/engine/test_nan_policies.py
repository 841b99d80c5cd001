"""NaN policies "ignore" and "error"."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

INF, NAN = np.inf, np.nan
LAYOUTS = ("channels_first", "channels_last")
TIES = ("first", "all", "split")


def with_policy(nan_policy):
    return tuple(
        mode | {"nan_policy": nan_policy, "tie_policy": ties}
        for mode in support.SELECTING
        for ties in TIES
    )


IGNORING, REJECTING = with_policy("ignore"), with_policy("error")

# (mode, kernel, x, the output, the positions in the plane); windows side by side
IGNORED = (
    ("max", 3, [2, NAN, 3], [3], [2]),
    ("min", 3, [2, NAN, 3], [2], [0]),
    ("max", 3, [NAN, -INF, NAN], [-INF], [1]),
    ("min", 3, [NAN, NAN, INF], [INF], [2]),
    ("max", 2, [NAN, NAN, 1, 1], [NAN, 1], [-1, 2]),
    ("min", 2, [NAN, NAN, NAN, -0.0], [NAN, -0.0], [-1, 3]),
    ("max", 5, [1, NAN, 3, NAN, 3], [3], [2]),
    ("max", 1, [NAN, 4, -NAN], [NAN, 4, NAN], [-1, 1, -1]),
)


@pytest.mark.parametrize(("mode", "kernel", "x", "y", "cells"), IGNORED)
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_ignored_nans_computed_by_hand(dtype, mode, kernel, x, y, cells):
    options = {"mode": mode, "kernel": kernel, "nan_policy": "ignore"}
    x = np.array([[x]], dtype)
    expected = cases.expected_forward(options, x)
    np.testing.assert_array_equal(expected.output, [[y]])
    assert expected.cells.tolist() == [[cells]]
    support.assert_forward(options, x)
    support.assert_backward(options, x)
    gradient = np.zeros(x.shape[2])
    gradient[[cell for cell in cells if cell >= 0]] = 1
    dx = backward(np.ones((1, 1, len(y)), dtype), PoolSpec(**options), input=x)
    assert dx.tolist() == [[gradient.tolist()]]


@pytest.mark.parametrize("tie_policy", TIES)
@pytest.mark.parametrize(
    ("shape", "window"), [((1, 1, 3), 3), ((1, 1, 6), 3), ((1, 1, 4, 3), (1, 3))]
)
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_signalling_nans_are_ignored(dtype, shape, window, tie_policy):
    """Elements before a signalling NaN still count; `np.fmax` drops them."""
    x = np.resize(np.array([5, 0, 3], dtype), shape)
    infinity = np.array(INF, dtype).view(f"u{x.itemsize}")
    x.view(f"u{x.itemsize}")[..., 1::3] = infinity + 1  # smallest payload, signalling
    for mode, chosen in (("max", 0), ("min", 2)):
        spec = PoolSpec(mode, window, nan_policy="ignore", tie_policy=tie_policy)
        output, indices = forward(x, spec, return_indices=True)
        assert (output == x[..., chosen::3]).all()
        assert (indices == chosen).all()
        dx = backward(np.ones_like(output), spec, input=x)
        assert (dx == (np.arange(3) == chosen)[np.arange(shape[-1]) % 3]).all()


def test_an_empty_window_differs_from_a_window_of_nans():
    x = np.array([[[NAN]]], np.float32)
    nothing = {"kernel": 2, "stride": 2, "padding": 1, "dilation": 2}
    for mode, value in (("max", -INF), ("min", INF)):
        for policy in ("propagate", "ignore", "error"):
            spec = PoolSpec(mode, **nothing, nan_policy=policy)
            assert forward(x, spec).output.tolist() == [[[value]]]
        padded = PoolSpec(mode, 3, 1, 1, nan_policy="ignore")
        output, indices = forward(x, padded, return_indices=True)
        assert np.isnan(output).all()
        assert indices.tolist() == [[[255]]]
        for residual in ({"input": x}, {"input_shape": x.shape, "indices": indices}):
            assert backward(np.ones_like(x), padded, **residual).tolist() == [[[0]]]


@pytest.mark.parametrize(
    ("ties", "expected"), [("first", [0, 6, 0, 0]), ("all", [0, 6, 6, 0]), ("split", [0, 3, 3, 0])]
)
def test_ties_among_ignored_nans(ties, expected):
    x = np.array([[[NAN, 2, 2, NAN]]])
    spec = PoolSpec("max", 4, tie_policy=ties, nan_policy="ignore")
    assert backward(np.array([[[6.0]]]), spec, input=x).tolist() == [[expected]]
    nothing = np.full((1, 1, 4), NAN)
    assert backward(np.array([[[6.0]]]), spec, input=nothing).tolist() == [[[0] * 4]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("options", "sizes"),
    cases.all_cases(IGNORING, cases.WINDOWS + cases.SIZED_WINDOWS),
    ids=cases.name_of,
)
def test_ignored_nans_agree_with_the_oracle(options, sizes, layout):
    x = cases.hard((2, 2, *sizes))
    x[1, 0] = NAN
    support.assert_forward(options | {"layout": layout}, x)
    support.assert_backward(options | {"layout": layout}, x)


@cases.many_examples
@given(case=cases.cases(modes=IGNORING))
def test_random_ignored_nans_agree_with_the_oracle(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed)
    x[np.random.default_rng(case.seed).random(x.shape) < 0.4] = NAN
    disguise = cases.DISGUISES[case.disguise]
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(case.options, x, disguise)
        support.assert_backward(case.options, x, disguise)


@cases.many_examples
@given(case=cases.cases(modes=REJECTING))
def test_random_nans_are_rejected_as_by_the_oracle(case, run_with):
    """A single NaN is an error if and only if it is an element of a window."""
    x = cases.hard(case.shape, case.dtype, case.seed, has_nan=False)
    random = np.random.default_rng(case.seed)
    support.assert_forward(case.options, x)
    support.assert_backward(case.options, x)
    x[tuple(random.integers(size) for size in x.shape)] = NAN
    try:
        pooled = cases.expected_forward(case.options, x)
    except ValueError:
        pooled = cases.expected_forward(case.options | {"nan_policy": "ignore"}, x)
        spec, sent = PoolSpec(**case.options), cases.to_layout(case.options, x)
        dy = cases.to_layout(case.options, np.ones_like(pooled.output))
        calls = (
            lambda: forward(sent, spec),
            lambda: forward(sent, spec, return_indices=True),
            lambda: backward(dy, spec, input=sent),
        )
        with run_with(case.block_bytes, case.threads):
            for call in calls:
                with pytest.raises(InvalidTensorError, match="NaN") as error:
                    call()
                assert error.value.field == "input"
    else:
        with run_with(case.block_bytes, case.threads):
            support.assert_forward(case.options, x)
            support.assert_backward(case.options, x)


@pytest.mark.parametrize("options", REJECTING, ids=cases.name_of)
def test_a_nan_in_no_window_is_accepted(options):
    spec = PoolSpec(**options, kernel=1, stride=3)
    x = np.array([[[1, NAN, NAN, -2, NAN]]], np.float32)
    assert forward(x, spec).output.tolist() == [[[1, -2]]]
    dx = backward(np.ones((1, 1, 2), np.float32), spec, input=x)
    assert dx.tolist() == [[[1, 0, 0, 1, 0]]]


@pytest.mark.parametrize("options", REJECTING, ids=cases.name_of)
@pytest.mark.parametrize("window", [{"adaptive_output": (2, 3)}, {"global_window": True}])
def test_nans_are_rejected_at_every_position(options, window, run_with):
    spec = PoolSpec(**options, **window)
    x = cases.normal((2, 2, 5, 4))
    dy = np.ones_like(forward(x, spec).output)
    for place in np.ndindex(x.shape):
        bad = x.copy()
        bad[place] = -NAN
        for call in (partial(forward, bad, spec), partial(backward, dy, spec, input=bad)):
            with run_with(8, 2), pytest.raises(InvalidTensorError) as error:
                call()
            assert error.value.field == "input"


@pytest.mark.parametrize("policy", ["ignore", "error"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_only_the_input_is_checked(mode, policy):
    """Indices need no input, and a NaN in the output gradient is propagated."""
    spec = PoolSpec(mode, 2, nan_policy=policy)
    dy, indices = np.array([[[NAN, 1]]], np.float32), np.array([[[1, 0]]], np.uint8)
    dx = backward(dy, spec, input_shape=(1, 1, 4), indices=indices)
    np.testing.assert_array_equal(dx, [[[0, NAN, 1, 0]]])


@pytest.mark.parametrize("policy", ["ignore", "error"])
@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "int64"])
def test_policies_agree_without_nans(dtype, mode, policy):
    make = cases.extremes if "int" in dtype else partial(cases.hard, has_nan=False)
    x = make((2, 3, 9, 8), dtype)
    window = {"kernel": 3, "stride": 2, "padding": 1}
    expected = forward(x, PoolSpec(mode, **window), return_indices=True)
    result = forward(x, PoolSpec(mode, **window, nan_policy=policy), return_indices=True)
    oracle.assert_same_bits(result.output, expected.output)
    oracle.assert_same_bits(result.indices, expected.indices)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", IGNORING, ids=cases.name_of)
def test_results_do_not_depend_on_threads_or_blocks(options, layout, run_with):
    for window, sizes in (
        ({"kernel": 3, "stride": 2, "padding": 1}, (13, 6)),
        ({"kernel": 2, "stride": 1, "dilation": 2}, (17,)),
        ({"adaptive_output": (4, 3)}, (9, 7)),
    ):
        x = cases.hard((2, 3, *sizes), seed=4)
        x[0, 0, :4] = NAN
        support.assert_same_for_all_blocks(options | window | {"layout": layout}, x, run_with)


@pytest.mark.parametrize("options", IGNORING + REJECTING, ids=cases.name_of)
def test_empty_batches_and_unchanged_inputs(options):
    spec = PoolSpec(**options, kernel=2)
    output = forward(np.empty((0, 3, 4), np.float32), spec).output
    assert output.shape == (0, 3, 2)
    x = cases.hard((2, 3, 4), has_nan=options["nan_policy"] == "ignore")
    before = x.tobytes()
    dy = forward(cases.read_only(x), spec).output
    backward(dy, spec, input=x)
    assert x.tobytes() == before
