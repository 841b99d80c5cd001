"""Forward pass against the oracle, PyTorch and the contract."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given

from pooling_engine import PoolSpec, forward
from tests.engine import support
from tests.support import cases, oracle

SUMMING = tuple(mode for mode in cases.MODES if mode not in support.SELECTING)
FORMATS = ("window",)  # the others have tests of their own


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize(("options", "sizes"), cases.all_cases(), ids=cases.name_of)
def test_forward_agrees_with_the_oracle(options, sizes, dtype):
    support.assert_forward(options, cases.normal((2, 2, *sizes), dtype), formats=FORMATS)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("has_nan", [False, True], ids=["zeros", "NaNs"])
@pytest.mark.parametrize(
    ("options", "sizes"), cases.all_cases(support.SELECTING), ids=cases.name_of
)
def test_selection_among_ties_zeros_infinities_and_nans(options, sizes, has_nan, dtype):
    for seed in range(3):
        support.assert_forward(
            options, cases.hard((1, 3, *sizes), dtype, seed, has_nan), formats=FORMATS
        )


@cases.many_examples
@given(case=cases.cases(modes=support.SELECTING))
def test_random_selections_are_bit_identical_to_the_oracle(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed, has_nan=case.seed % 2 == 0)
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(
            case.options, x, disguise=cases.DISGUISES[case.disguise], formats=FORMATS
        )


@cases.many_examples
@given(case=cases.cases(modes=SUMMING))
def test_random_sums_agree_with_the_oracle(case, run_with):
    x = cases.normal(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(
            case.options, x, disguise=cases.DISGUISES[case.disguise], formats=FORMATS
        )


@cases.many_examples
@given(case=cases.cases(modes=SUMMING, most_axes=2))
def test_random_sums_over_infinities_and_nans(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        support.assert_forward(case.options, x, formats=FORMATS)


@pytest.mark.parametrize("disguise", cases.DISGUISES)
@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_the_input_is_never_written_to(layout, mode, disguise):
    options = mode | {"kernel": 3, "stride": 1, "padding": 1, "layout": layout}
    x = cases.DISGUISES[disguise](cases.to_layout(options, cases.hard((2, 3, 4, 5))))
    before = cases.read_only(x).tobytes()
    forward(x, PoolSpec(**options))
    assert x.tobytes() == before


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_out_is_written_and_returned(mode):
    spec = PoolSpec(**mode, kernel=2, padding=1, dilation=2)
    x = cases.normal((2, 1, 5, 4))
    expected = forward(x, spec).output
    out = np.full(expected.shape, 77, np.float32)
    assert forward(x, spec, out=out).output is out
    oracle.assert_same_bits(out, expected)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_an_empty_batch_has_an_empty_result(mode, layout):
    spec = PoolSpec(**mode, kernel=2, layout=layout)
    shape = (0, 3, 4, 6) if layout == "channels_first" else (0, 4, 6, 3)
    output = forward(np.empty(shape, np.float16), spec).output
    assert output.shape == ((0, 3, 2, 3) if layout == "channels_first" else (0, 2, 3, 3))
    assert output.dtype == np.float16


@pytest.mark.parametrize(
    ("mode", "value"), [("max", -np.inf), ("min", np.inf), ("sum", 0), ("average", 0), ("lp", 0)]
)
@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_the_output_of_a_window_without_a_valid_element(mode, value, dtype):
    spec = PoolSpec(mode, 2, 2, 1, 2)
    output = forward(np.full((1, 1, 1, 1), 7, dtype), spec).output
    assert output.tolist() == [[[[value]]]]


@pytest.mark.parametrize("mode", SUMMING, ids=cases.name_of)
@pytest.mark.parametrize("dtype", [*cases.FLOATS, "bfloat16"])
def test_a_computed_nan_is_canonical(mode, dtype):
    x = np.array([[[-np.nan, 1]]]).astype(dtype)
    x.view(f"u{x.dtype.itemsize}")[...] |= 3
    output = forward(x, PoolSpec(**mode, kernel=2)).output
    oracle.assert_same_bits(output, np.array([[[np.nan]]]).astype(dtype))


@pytest.mark.parametrize("axes", [1, 2])
def test_windows_may_have_more_elements_than_indices_can_number(axes):
    spec = PoolSpec("max", 70_000, 1, [(69_999, 0)] * axes)
    x = np.array([np.nan, 1], np.float32).reshape((1, 1, 2) + (1,) * (axes - 1))
    assert np.isnan(forward(x, spec).output).all()


def test_results_that_are_not_finite_cause_no_warning():
    x = np.array([[[np.inf, -np.inf, np.nan, 3e38, 3e38, 0]]], np.float32)
    for mode in cases.MODES:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = forward(x, PoolSpec(**mode, kernel=2, stride=1)).output
        assert caught == []
        assert not np.isfinite(output).all()


TORCH_WINDOWS = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (9,)),
    ({"kernel": 4, "stride": 3, "padding": 2, "ceil_mode": True}, (11,)),
    ({"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (8, 7)),
    ({"kernel": (2, 4), "stride": (2, 1), "padding": (1, 2)}, (6, 9)),
    ({"kernel": 2, "stride": 2, "padding": 1, "ceil_mode": True}, (5, 4, 6)),
)


@pytest.mark.parametrize(("window", "sizes"), TORCH_WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("dilation", [1, 2])
def test_max_agrees_with_pytorch(window, sizes, dilation):
    import torch

    pool = getattr(torch.nn.functional, f"max_pool{len(sizes)}d")
    x = cases.normal((2, 3, *sizes))
    names = {"kernel": "kernel_size"}
    theirs, positions = pool(
        torch.from_numpy(x),
        dilation=dilation,
        return_indices=True,
        **{names.get(name, name): value for name, value in window.items()},
    )
    spec = PoolSpec("max", **window, dilation=dilation)
    ours = forward(x, spec, return_indices=True, index_format="plane")
    oracle.assert_same_bits(ours.output, theirs.numpy())
    oracle.assert_same_bits(ours.indices, positions.numpy())


@pytest.mark.parametrize(("window", "sizes"), TORCH_WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_average_agrees_with_pytorch(window, sizes, count_include_pad):
    import torch

    pool = getattr(torch.nn.functional, f"avg_pool{len(sizes)}d")
    x = cases.normal((2, 3, *sizes), "float64")
    arguments = dict(window)
    theirs = pool(
        torch.from_numpy(x),
        arguments.pop("kernel"),
        count_include_pad=count_include_pad,
        **arguments,
    )
    spec = PoolSpec("average", **window, count_include_pad=count_include_pad)
    np.testing.assert_allclose(forward(x, spec).output, theirs.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kernel", [(2, 1, 3), (1, 2, 1, 3), (3, 1, 1, 2), (2, 1, 2, 1, 2)])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_axes_without_pooling_between_pooled_axes(mode, kernel):
    x = cases.normal((2, 3, *(size + 2 for size in kernel)))
    spec = PoolSpec(mode, kernel, 1)
    expected = oracle.forward(
        x, mode, cases.windows_of({"kernel": kernel, "stride": 1}, x.shape[2:])
    )
    oracle.assert_same_bits(forward(x, spec).output, expected.output)
