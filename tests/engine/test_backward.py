"""Backward pass against the oracle, PyTorch's autograd and the adjoint identity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from tests.engine import support
from tests.support import cases, oracle

LINEAR = tuple(mode for mode in cases.MODES if mode["mode"] in ("average", "sum"))


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize(("options", "sizes"), cases.all_cases(), ids=cases.name_of)
def test_backward_agrees_with_the_oracle(options, sizes, dtype):
    support.assert_backward(options, cases.normal((2, 2, *sizes), dtype))


@cases.many_examples
@given(case=cases.cases())
def test_random_gradients_agree_with_the_oracle(case, run_with):
    x = cases.normal(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        support.assert_backward(case.options, x, cases.DISGUISES[case.disguise])


@cases.many_examples
@given(case=cases.cases(modes=support.SELECTING))
def test_random_gradients_among_ties_and_nans(case, run_with):
    x = cases.hard(case.shape, case.dtype, case.seed)
    with run_with(case.block_bytes, case.threads):
        support.assert_backward(case.options, x)


@cases.many_examples
@given(case=cases.cases(modes=LINEAR, dtypes=("float64",)))
def test_linear_modes_are_adjoint(case, run_with):
    spec = PoolSpec(**case.options)
    v = cases.to_layout(case.options, cases.normal(case.shape, "float64", case.seed))
    with run_with(case.block_bytes, case.threads):
        jv = forward(v, spec).output
        u = cases.normal(jv.shape, "float64", case.seed + 1)
        jtu = backward(u, spec, input_shape=v.shape)
    magnitude = np.abs(jv * u).sum() + np.abs(v * jtu).sum()
    assert abs((jv * u).sum() - (v * jtu).sum()) <= 1e-13 * magnitude


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_the_gradient_of_elements_in_no_window_is_zero(mode):
    spec = PoolSpec(**mode, kernel=1, stride=3)
    x = np.array([[[1, np.nan, np.inf, -2, -np.inf, np.nan, 3]]], np.float32)
    residual = {"input": x} if mode["mode"] in ("max", "min", "lp") else {"input_shape": x.shape}
    dx = backward(np.ones((1, 1, 3), np.float32), spec, **residual)
    assert dx[0, 0, [1, 2, 4, 5]].tolist() == [0, 0, 0, 0]
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_elements_between_windows_do_not_matter(mode, axis, value):
    options = mode | {"kernel": 2, "stride": [3 if a == axis else 1 for a in range(3)]}
    x = cases.normal((2, 2, 5, 5, 5), "float64")
    between = (slice(None),) * (2 + axis) + (2,)
    x[between] = value
    dy = cases.normal(
        pooling_engine.plan(PoolSpec(**options), x.shape, x.dtype).output_shape, "float64"
    )
    dx = []
    for _ in range(2):
        residuals = support.residuals_of(options, x)
        dx += [backward(dy, PoolSpec(**options), **residual) for residual in residuals]
        x[between] = 1
    for other in dx[1:]:
        oracle.assert_same_bits(other, dx[0])
    assert not dx[0][between].any()


@pytest.mark.parametrize("p", [1.5, 2.0, np.inf])
@pytest.mark.parametrize("sizes", [(4,), (2, 2)])
def test_lp_gradients_of_finite_elements_beside_an_infinity_are_zero(sizes, p):
    x = np.array([1, np.inf, 2, -3], np.float32).reshape((1, 1, *sizes))
    dy = np.ones((1, 1) + (1,) * len(sizes), np.float32)
    dx = backward(dy, PoolSpec("lp", sizes, norm_p=p), input=x).ravel()
    assert dx[[0, 2, 3]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("g", [5, np.inf])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 7.0, np.inf])
def test_the_lp_gradient_is_zero_at_zero(p, g):
    x = np.array([[[0, -0.0]]], np.float32)
    dy = np.array([[[g]]], np.float32)
    assert backward(dy, PoolSpec("lp", 2, norm_p=p), input=x).tolist() == [[[0, 0]]]


@pytest.mark.parametrize("strange", [(np.nan, 1), (5, np.nan), (5, np.inf)], ids=str)
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 7.0])
@pytest.mark.parametrize("window", [{"kernel": (2, 3)}, {"global_window": True}], ids=cases.name_of)
def test_lp_gradients_of_a_column_of_zeros(window, p, strange):
    """The window has a NaN elsewhere, or its own gradient is NaN or infinite."""
    last, g = strange
    x = np.array([[0, 0, 3], [0, 2, last]], np.float32).reshape(1, 1, 2, 3)
    dy = np.array(g, np.float32).reshape(1, 1, 1, 1)
    dx = backward(dy, PoolSpec("lp", norm_p=p, **window), input=x).ravel()
    expected = oracle.norm_shares(g, x.ravel().tolist(), p)
    oracle.assert_close(dx, np.array(expected), ulps=4)


def test_the_first_of_the_largest_magnitudes_receives_the_gradient():
    x = np.array([[[-4, 4, 3, -4]]], np.float32)
    dx = backward(np.ones((1, 1, 1), np.float32), PoolSpec("lp", 4, norm_p=np.inf), input=x)
    assert dx.tolist() == [[[-1, 0, 0, 0]]]


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_out_is_overwritten_and_returned(mode):
    options = mode | {"kernel": 2, "stride": 3, "padding": 1, "dilation": 2}
    spec, x = PoolSpec(**options), cases.normal((2, 1, 8, 5))
    dy = np.ones(forward(x, spec).output.shape, np.float32)
    residual = support.residuals_of(options, x)[0]
    out = np.full(x.shape, np.nan, np.float32)
    assert backward(dy, spec, **residual, out=out) is out
    oracle.assert_same_bits(out, backward(dy, spec, **residual))


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_no_argument_is_written_to(mode):
    options = mode | {"kernel": 3, "stride": 1, "padding": 1}
    spec, x = PoolSpec(**options), cases.hard((2, 2, 4, 5))
    dy = cases.normal(x.shape)
    for residual in support.residuals_of(options, x):
        arrays = [dy, *(value for value in residual.values() if isinstance(value, np.ndarray))]
        before = [cases.read_only(array).tobytes() for array in arrays]
        backward(dy, spec, **residual)
        assert [array.tobytes() for array in arrays] == before


@pytest.mark.parametrize("mode", cases.MODES, ids=cases.name_of)
def test_an_empty_batch_has_an_empty_gradient(mode):
    options = mode | {"kernel": 2}
    spec, x = PoolSpec(**options), np.empty((0, 3, 4, 6), np.float16)
    for residual in support.residuals_of(options, x):
        dx = backward(np.empty((0, 3, 2, 3), np.float16), spec, **residual)
        assert dx.shape == x.shape
        assert dx.dtype == x.dtype


def test_a_gradient_that_is_not_finite_stays_in_its_windows():
    dy = np.array([[[1, np.nan, 2, np.inf, -np.inf]]], np.float32)
    dx = backward(dy, PoolSpec("sum", 2, 1), input_shape=(1, 1, 6))
    np.testing.assert_array_equal(dx, [[[1, np.nan, np.nan, np.inf, np.nan, -np.inf]]])


TORCH_WINDOWS = (
    ({"kernel": 3, "stride": 2, "padding": 1}, (9,)),
    ({"kernel": 4, "stride": 3, "padding": 2, "ceil_mode": True}, (11,)),
    ({"kernel": 3, "stride": 1, "padding": 1}, (8, 7)),
    ({"kernel": 2, "stride": 2, "padding": 1, "ceil_mode": True}, (5, 4, 6)),
)


@pytest.mark.parametrize(("window", "sizes"), TORCH_WINDOWS, ids=cases.name_of)
@pytest.mark.parametrize("mode", ["max", "average"])
def test_gradients_agree_with_autograd(mode, window, sizes):
    import torch

    name = "max_pool" if mode == "max" else "avg_pool"
    x = torch.from_numpy(cases.normal((2, 3, *sizes), "float64")).requires_grad_()
    arguments = dict(window)
    pool = getattr(torch.nn.functional, f"{name}{len(sizes)}d")
    y = pool(x, arguments.pop("kernel"), **arguments)
    dy = cases.normal(tuple(y.shape), "float64", 1)
    y.backward(torch.from_numpy(dy))
    spec = PoolSpec(mode, **window)
    array = x.detach().numpy()
    residual = {"input": array} if mode == "max" else {"input_shape": array.shape}
    ours = backward(dy, spec, **residual)
    np.testing.assert_allclose(ours, x.grad.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("p", [1.5, 2.0, 3.0, 6.5])
def test_the_gradient_of_lp_agrees_with_difference_quotients(p):
    spec = PoolSpec("lp", (2, 3), 1, 1, norm_p=p)
    x = cases.normal((1, 1, 4, 5), "float64")
    dy = cases.normal(forward(x, spec).output.shape, "float64", 1)
    dx = backward(dy, spec, input=x)
    for cell in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[cell] = 1e-6
        rise = forward(x + step, spec).output - forward(x - step, spec).output
        assert (rise * dy).sum() / 2e-6 == pytest.approx(dx[cell], rel=1e-5, abs=1e-7)
