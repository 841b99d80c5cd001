"""Tie policies: distribution of the gradient among tied elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

INF, NAN = np.inf, np.nan
SHARING = tuple(
    mode | {"tie_policy": policy} for mode in support.SELECTING for policy in ("all", "split")
)

# (mode, kernel, stride, x, the output's gradient, the gradient with "all", with "split")
BY_HAND = (
    ("max", 3, 3, [2, 2, 2], [6], [6, 6, 6], [2, 2, 2]),
    ("min", 3, 3, [2, 5, 2], [6], [6, 0, 6], [3, 0, 3]),
    ("max", 3, 3, [1, 2, 0], [6], [0, 6, 0], [0, 6, 0]),
    ("max", 3, 1, [1, 3, 3, 1, 3], [2, 20, 200], [0, 22, 222, 0, 200], [0, 11, 111, 0, 100]),
    ("max", 2, 2, [-0.0, 0.0, 0.0, -0.0], [2, 4], [2, 2, 4, 4], [1, 1, 2, 2]),
    ("min", 2, 2, [0.0, -0.0, -1, 0], [2, 4], [2, 2, 4, 0], [1, 1, 4, 0]),
    ("max", 4, 4, [1, NAN, INF, NAN], [6], [0, 6, 0, 6], [0, 3, 0, 3]),
    ("min", 4, 4, [NAN, -INF, -INF, 0], [6], [6, 0, 0, 0], [6, 0, 0, 0]),
    ("max", 3, 3, [-INF, -INF, -INF], [6], [6, 6, 6], [2, 2, 2]),
    ("max", 2, 2, [1, 1, 2, 2], [INF, -4], [INF, INF, -4, -4], [INF, INF, -2, -2]),
    ("max", 2, 2, [1, 1, 2, 3], [NAN, 4], [NAN, NAN, 0, 4], [NAN, NAN, 0, 4]),
)


@pytest.mark.parametrize(("mode", "kernel", "stride", "x", "dy", "whole", "split"), BY_HAND)
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_gradients_computed_by_hand(dtype, mode, kernel, stride, x, dy, whole, split):
    x, dy = np.array([[x]], dtype), np.array([[dy]], dtype)
    for policy, expected in (("all", whole), ("split", split)):
        options = {"mode": mode, "kernel": kernel, "stride": stride, "tie_policy": policy}
        np.testing.assert_array_equal(
            cases.expected_backward(options, dy, x.shape, x=x), [[expected]]
        )
        dx = backward(dy, PoolSpec(**options), input=x)
        oracle.assert_same_bits(dx + 0, np.array([[expected]], dtype) + 0)


def test_all_is_the_mask_of_equal_elements():
    x = cases.hard((3, 2, 4, 6), has_nan=False)
    spec = PoolSpec("max", 2, tie_policy="all")
    y = forward(x, spec).output
    dy = cases.normal(y.shape)
    spread = [np.repeat(np.repeat(array, 2, axis=2), 2, axis=3) for array in (y, dy)]
    expected = (x == spread[0]) * spread[1]
    oracle.assert_same_bits(backward(dy, spec, input=x) + 0, expected + 0)


def test_split_divides_the_gradients_of_all():
    x = np.zeros((1, 1, 7), np.float64)
    dy = np.array([[[0.1, 0.7]]])
    dx = backward(dy, PoolSpec("min", 3, 4, tie_policy="split"), input=x)
    oracle.assert_same_bits(dx, np.array([[[0.1 / 3] * 3 + [0] + [0.7 / 3] * 3]]))


def test_a_window_without_a_valid_element_has_no_gradient():
    x = np.full((1, 1, 1), 7, np.float32)
    for mode in SHARING:
        assert backward(x, PoolSpec(**mode, kernel=2, padding=1, dilation=2), input=x) == 0


def test_padding_is_never_tied():
    x = np.full((1, 1, 2), -INF, np.float32)
    spec = PoolSpec("max", 4, 1, 2, tie_policy="split")
    dy = np.full((1, 1, 3), 2, np.float32)
    assert backward(dy, spec, input=x).tolist() == [[[3, 3]]]


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("options", "sizes"),
    cases.all_cases(SHARING, cases.WINDOWS + cases.SIZED_WINDOWS),
    ids=cases.name_of,
)
def test_backward_agrees_with_the_oracle(options, sizes, layout):
    for seed, has_nan in ((0, False), (1, True)):
        x = cases.hard((2, 2, *sizes), seed=seed, has_nan=has_nan)
        support.assert_backward(options | {"layout": layout}, x)


@cases.many_examples
@given(case=cases.cases(modes=SHARING))
def test_random_gradients_agree_with_the_oracle(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed, has_nan=case.seed % 2 == 0)
    with run_with(case.block_bytes, case.threads):
        support.assert_backward(case.options, x, cases.DISGUISES[case.disguise])


@cases.many_examples
@given(case=cases.cases(modes=SHARING, dtypes=("float32",)))
def test_random_sums_of_whole_shares_are_exact(case, run_with):
    """Sums of whole numbers are exact in any order."""
    random = np.random.default_rng(case.seed)
    x = random.integers(0, 2, case.shape).astype(np.float32)
    pooled = cases.expected_forward(case.options, x)
    shares = np.lcm.reduce(np.arange(1, 13))
    dy = (random.integers(-9, 9, pooled.output.shape) * shares).astype(np.float64)
    expected = cases.expected_backward(case.options, dy, x.shape, x=x)
    sent = [cases.to_layout(case.options, array) for array in (dy, x.astype(np.float64))]
    with run_with(case.block_bytes, case.threads):
        dx = backward(sent[0], PoolSpec(**case.options), input=sent[1])
    if np.prod([window[0] for window in cases.windows_of(case.options, case.shape[2:])]) <= 12:
        np.testing.assert_array_equal(cases.from_layout(case.options, dx), expected)
    else:
        np.testing.assert_allclose(cases.from_layout(case.options, dx), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shares_are_added_before_rounding(dtype):
    """One element is tied in 1,024 windows and receives a ninth of each gradient."""
    x = np.zeros((1, 1, 66, 66), dtype)
    options = {"mode": "max", "kernel": 3, "stride": 1, "tie_policy": "split"}
    dx = backward(np.ones((1, 1, 64, 64), dtype), PoolSpec(**options), input=x)
    counts = np.minimum(np.minimum(np.arange(66), 65 - np.arange(66)) + 1, 3)
    oracle.assert_close(dx[0, 0], np.outer(counts, counts) / 9, ulps=0.51)
    peak = np.zeros((1, 1, 64, 64), dtype)
    peak[0, 0, 32, 32] = 1
    dx = backward(
        np.ones((1, 1, 32, 32), dtype), PoolSpec("max", 33, 1, tie_policy="all"), input=peak
    )
    assert dx[0, 0, 32, 32] == 1024


@pytest.mark.parametrize("policy", ["all", "split"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_policies_agree_without_ties(mode, policy):
    x = cases.normal((2, 3, 9, 8))
    window = {"kernel": 3, "stride": 2, "padding": 1}
    dy = cases.normal((2, 3, 5, 4), seed=1)
    expected = backward(dy, PoolSpec(mode, **window), input=x)
    dx = backward(dy, PoolSpec(mode, **window, tie_policy=policy), input=x)
    oracle.assert_same_bits(dx, expected)


@pytest.mark.parametrize("options", SHARING, ids=cases.name_of)
def test_forward_does_not_depend_on_the_tie_policy(options):
    x = cases.hard((2, 2, 7, 6))
    window = {"kernel": 3, "stride": 2}
    expected = forward(x, PoolSpec(options["mode"], **window), return_indices=True)
    result = forward(x, PoolSpec(**options, **window), return_indices=True)
    oracle.assert_same_bits(result.output, expected.output)
    oracle.assert_same_bits(result.indices, expected.indices)
    support.assert_forward(options | window, x)


@pytest.mark.parametrize("options", SHARING, ids=cases.name_of)
@pytest.mark.parametrize("name", support.FORMATS)
def test_indices_do_not_replace_the_input(options, name):
    spec, x = PoolSpec(**options, kernel=2), np.zeros((1, 1, 4), np.float32)
    dy, indices = forward(x, spec, return_indices=True, index_format=name)
    for sent in (
        {"input_shape": x.shape, "indices": indices, "index_format": name},
        {"input": x, "indices": indices, "index_format": name},
        {"input_shape": x.shape},
    ):
        with pytest.raises(InvalidTensorError) as error:
            backward(dy, spec, **sent)
        assert error.value.field in ("indices", "input")


@pytest.mark.parametrize("options", SHARING, ids=cases.name_of)
def test_an_input_of_another_shape_or_type_is_rejected(options):
    spec, dy = PoolSpec(**options, kernel=2), np.zeros((1, 1, 2), np.float32)
    for x, field in (
        (np.zeros((1, 1, 4), np.float64), "input"),
        (np.zeros((1, 1, 6), np.float32), "output_gradient"),
    ):
        with pytest.raises(InvalidTensorError) as error:
            backward(dy, spec, input=x)
        assert error.value.field == field


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("options", SHARING, ids=cases.name_of)
def test_results_do_not_depend_on_threads_or_blocks(options, layout, run_with):
    for window, sizes in (
        ({"kernel": 3, "stride": 2, "padding": 1}, (13, 6)),
        ({"kernel": (4, 3), "stride": 1, "dilation": (1, 2), "padding": (3, 1)}, (7, 9)),
        ({"kernel": 3, "stride": 1}, (19,)),
        ({"adaptive_output": (4, 3)}, (9, 7)),
    ):
        x = cases.hard((2, 3, *sizes), seed=3)
        support.assert_same_for_all_blocks(options | window | {"layout": layout}, x, run_with)


@pytest.mark.parametrize("options", SHARING, ids=cases.name_of)
def test_empty_batches_out_and_unchanged_inputs(options):
    spec = PoolSpec(**options, kernel=2)
    empty = np.empty((0, 3, 4), np.float32)
    assert backward(np.empty((0, 3, 2), np.float32), spec, input=empty).shape == empty.shape
    x, dy = cases.hard((2, 3, 4)), cases.normal((2, 3, 2))
    before = x.tobytes(), dy.tobytes()
    out = np.full(x.shape, NAN, np.float32)
    assert backward(dy, spec, input=x, out=out) is out
    oracle.assert_same_bits(out, backward(dy, spec, input=x))
    assert (x.tobytes(), dy.tobytes()) == before
