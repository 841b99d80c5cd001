"""bfloat16 through `ml_dtypes`: every mode, forward and backward, summed wide, rounded once."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

from pooling_engine import InvalidTensorError, PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
LAYOUTS = ("channels_first", "channels_last")
POLICIES = tuple(
    mode | policies
    for mode in support.SELECTING
    for policies in (
        {"tie_policy": "all"},
        {"tie_policy": "split"},
        {"nan_policy": "ignore"},
        {"tie_policy": "split", "nan_policy": "ignore"},
    )
)


def in_bfloat16(values):
    return oracle.to_type(np.asarray(values, np.float64), BFLOAT16)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("options", "sizes"),
    cases.all_cases(windows=cases.WINDOWS + cases.SIZED_WINDOWS),
    ids=cases.name_of,
)
def test_forward_and_backward_agree_with_the_oracle(options, sizes, layout):
    options, x = options | {"layout": layout}, cases.normal((2, 2, *sizes), BFLOAT16)
    support.assert_forward(options, x)
    support.assert_backward(options, x)


@cases.many_examples
@given(case=cases.cases(modes=cases.MODES + POLICIES, dtypes=(BFLOAT16,)))
def test_random_cases_agree_with_the_oracle(case, run_with):
    x = cases.normal(case.shape, case.dtype, case.seed)
    disguise = cases.DISGUISES[case.disguise]
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(case.options, x, disguise)
        support.assert_backward(case.options, x, disguise)


@cases.many_examples
@given(case=cases.cases(modes=support.SELECTING + POLICIES, dtypes=(BFLOAT16,)))
def test_random_selection_among_ties_and_nans(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(case.options, x)
        support.assert_backward(case.options, x)


def test_the_oracle_rounds_as_pytorch_does():
    import torch

    values = torch.arange(0x0001_7FFF, 0x7F7F_0000, 0x0012_34CD, dtype=torch.int32)
    ties = torch.arange(0x0000_8000, 0x7F7F_0000, 0x0011_0000, dtype=torch.int32)
    for bits in (values, ties):
        floats = bits.view(torch.float32)
        rounded = in_bfloat16(floats.numpy())
        np.testing.assert_array_equal(rounded.view(np.int16), floats.bfloat16().view(torch.int16))


def test_the_gradient_of_an_average_over_many_windows():
    dx = backward(
        in_bfloat16(np.ones((1, 1, 64, 64))),
        PoolSpec("average", 65, 1),
        input_shape=(1, 1, 128, 128),
    )
    at = np.arange(128)
    counts = np.minimum(at, 63) - np.maximum(0, at - 64) + 1
    oracle.assert_same_bits(dx[0, 0], in_bfloat16(np.outer(counts, counts) / 65**2))
    assert dx[0, 0, 64, 64] == in_bfloat16(4096 / 4225)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_peak_receives_the_gradient_of_all_windows(mode):
    x = in_bfloat16(np.zeros((1, 1, 64, 64)))
    x[0, 0, 32, 32] = 1 if mode == "max" else -1
    dx = backward(in_bfloat16(np.ones((1, 1, 32, 32))), PoolSpec(mode, 33, 1), input=x)
    expected = np.zeros(x.shape)
    expected[0, 0, 32, 32] = 1024
    oracle.assert_same_bits(dx, in_bfloat16(expected))


# (values whose sum is close to the middle of two bfloat16 numbers, the nearer of the two)
NEAR_TIES = (
    ([1, 2**-8, 2**-40], 1 + 2**-7),
    ([1, 2**-8, -(2**-40)], 1),
    ([1, 2**-8], 1),
    ([1, 2**-7, 2**-8], 1 + 2**-6),
    ([1, 2**-7, 2**-8, -(2**-40)], 1 + 2**-7),
    ([-1, -(2**-8), -(2**-40)], -1 - 2**-7),
    ([256] + [1] * 256, 512),
    ([2**127, 2**126, 2**125, 2**-10], 2**127 + 2**126 + 2**125),
    ([2**127, 2**127], np.inf),
    ([2**-133, 2**-133], 2**-132),
)


@pytest.mark.parametrize(("values", "total"), NEAR_TIES)
def test_a_sum_is_rounded_once(values, total):
    """Rounded to float32 first, a sum close to a tie would become the tie, and then even."""
    x = in_bfloat16([[values]])
    y = forward(x, PoolSpec("sum", len(values))).output
    oracle.assert_same_bits(y, in_bfloat16([[[total]]]))
    peak = np.zeros((1, 1, 2 * len(values) - 1))
    peak[0, 0, len(values) - 1] = 1
    dx = backward(x, PoolSpec("max", len(values), 1), input=in_bfloat16(peak))
    oracle.assert_same_bits(dx[0, 0, len(values) - 1], in_bfloat16(total)[()])


@pytest.mark.parametrize("mode", ["sum", "average"])
def test_sums_of_many_elements_are_correctly_rounded(mode):
    x = cases.normal((1, 2, 40, 41), BFLOAT16)
    for options in ({"kernel": 33, "stride": 2}, {"global_window": True}):
        options = options | {"mode": mode}
        expected = cases.expected_forward(options, x).output
        output = forward(x, PoolSpec(**options)).output
        oracle.assert_same_bits(output, oracle.to_type(expected, BFLOAT16))


def test_averages_of_large_values_do_not_overflow():
    x = in_bfloat16(np.full((1, 1, 16, 16), 3e38))
    output = forward(x, PoolSpec("average", 16)).output
    oracle.assert_same_bits(output.ravel(), x.ravel()[:1])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_agrees_with_pytorch(axes):
    import torch

    pool = getattr(torch.nn.functional, f"max_pool{axes}d")
    x = cases.normal((2, 3, *(9, 7, 5)[:axes]), BFLOAT16)
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    theirs, cells = pool(tensor, 3, 2, 1, return_indices=True)
    ours = forward(x, PoolSpec("max", 3, 2, 1), return_indices=True, index_format="plane")
    np.testing.assert_array_equal(ours.output.view(np.int16), theirs.view(torch.int16).numpy())
    oracle.assert_same_bits(ours.indices, cells.numpy())


def test_average_agrees_with_pytorch_within_a_rounding():
    import torch

    x = cases.normal((2, 3, 9, 7), BFLOAT16)
    theirs = torch.nn.functional.avg_pool2d(torch.from_numpy(x.astype(np.float64)), 3, 2, 1)
    ours = forward(x, PoolSpec("average", 3, 2, 1)).output
    oracle.assert_same_bits(ours, oracle.to_type(theirs.numpy(), BFLOAT16))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", cases.MODES + POLICIES, ids=cases.name_of)
def test_results_do_not_depend_on_threads_or_blocks(mode, layout, run_with):
    for window, sizes in (
        ({"kernel": 3, "stride": 2, "padding": 1}, (13, 6)),
        ({"kernel": 5, "stride": 1, "padding": 4}, (9, 3)),
        ({"adaptive_output": (4, 3)}, (9, 7)),
    ):
        x = cases.normal((2, 3, *sizes), BFLOAT16)
        support.assert_same_for_all_blocks(mode | window | {"layout": layout}, x, run_with)


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_out_empty_batches_and_unchanged_inputs(mode):
    options = mode | {"kernel": 2}
    spec = PoolSpec(**options)
    empty = forward(np.empty((0, 3, 4), BFLOAT16), spec).output
    assert (empty.shape, empty.dtype) == ((0, 3, 2), BFLOAT16)
    x = cases.read_only(cases.hard((2, 3, 4), BFLOAT16))
    before = x.tobytes()
    y = forward(x, spec).output
    out = np.full_like(y, 77)
    assert forward(x, spec, out=out).output is out
    oracle.assert_same_bits(out, y)
    for residual in support.residuals_of(options, x):
        dx = backward(y, spec, **residual)
        out = np.full_like(x, 77)
        assert backward(y, spec, **residual, out=out) is out
        oracle.assert_same_bits(out, dx)
    assert x.tobytes() == before


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint16", "int16"])
def test_other_types_do_not_mix_with_bfloat16(dtype):
    spec, dy = PoolSpec("max", 2), in_bfloat16(np.ones((1, 1, 1)))
    with pytest.raises(InvalidTensorError) as error:
        backward(dy, spec, input=np.ones((1, 1, 2), dtype))
    assert error.value.field == "input"
    with pytest.raises(InvalidTensorError) as error:
        forward(in_bfloat16(np.ones((1, 1, 2))), spec, out=np.empty((1, 1, 1), dtype))
    assert error.value.field == "out"
