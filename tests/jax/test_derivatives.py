"""Derivatives and transformations: grad of grad, jit, vmap, scan, checkpoint."""

from __future__ import annotations

from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import pooling_client.jax as remote
from pooling_client import PoolingClient
from tests.jax.test_functions import values

pytestmark = pytest.mark.usefixtures("address")
NAMES = ("max", "min", "avg", "sum")
X = values(2, 5, 6, 2)


def function(name: str) -> Any:
    pool = getattr(remote, f"{name}_pool")
    return lambda x: pool(x, (3, 2), (2, 1), "SAME")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "order"), [(name, 3) for name in NAMES] + [("lp", 1)])
def test_derivatives_agree_with_finite_differences(name: str, order: int) -> None:
    x = values(1, 4, 5, 2, dtype=jnp.float64) + 0.1
    check_grads(jax.jit(function(name)), (x,), order=order, modes=["rev"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["max", "avg"])
def test_hessians_agree_with_those_of_flax(name: str) -> None:
    x = values(1, 3, 4, 1, dtype=jnp.float64)

    def of_flax(x: Any) -> Any:
        pool = getattr(flax.linen, f"{name}_pool")
        return pool(x, (3, 2), (2, 1), "SAME")

    def hessian(pool: Any) -> Any:
        return jax.jacrev(jax.jacrev(lambda x: (pool(x) ** 3).sum()))(x)

    np.testing.assert_allclose(hessian(function(name)), hessian(of_flax), rtol=1e-12, atol=1e-12)


def test_the_second_derivative_of_lp_is_an_error() -> None:
    def slope(x: Any) -> Any:
        return jax.grad(lambda x: remote.lp_pool(x, (2, 2)).sum())(x).sum()

    with pytest.raises(NotImplementedError, match="lp_pool has no second derivative"):
        jax.grad(slope)(X)


def test_residuals_are_one_byte_per_output() -> None:
    _, pull = jax.vjp(lambda x: remote.max_pool(x, (3, 3)), X)
    kept = [leaf for leaf in jax.tree.leaves(pull) if hasattr(leaf, "nbytes")]
    assert sum(leaf.nbytes for leaf in kept) == 2 * 3 * 4 * 2


def test_indices_are_requested_for_gradients_only(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[bool] = []
    forward = PoolingClient.forward

    def recorded(self: Any, x: Any, spec: Any, *, return_indices: bool = False) -> Any:
        requested.append(return_indices)
        return forward(self, x, spec, return_indices=return_indices)

    monkeypatch.setattr(PoolingClient, "forward", recorded)
    remote.max_pool(X, (2, 2)).block_until_ready()
    jax.grad(lambda x: remote.max_pool(x, (2, 2)).sum())(X).block_until_ready()
    assert requested == [False, True]


@pytest.mark.parametrize("name", NAMES)
def test_vmap_adds_a_batch_axis_and_one_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = values(3, 2, 5, 6, 2)
    gradient = jax.grad(lambda x: (function(name)(x) ** 2).sum())
    expected = jnp.stack([gradient(each) for each in x])
    shapes: list[tuple[int, ...]] = []
    backward = PoolingClient.backward

    def recorded(self: Any, dy: Any, spec: Any, **options: Any) -> Any:
        shapes.append(options["input_shape"])
        return backward(self, dy, spec, **options)

    monkeypatch.setattr(PoolingClient, "backward", recorded)
    assert jnp.array_equal(jax.jit(jax.vmap(gradient))(x), expected)
    assert shapes == [(6, 5, 6, 2)]
    moved = jax.vmap(gradient, in_axes=-1, out_axes=-1)(jnp.moveaxis(x, 0, -1))
    assert jnp.array_equal(jnp.moveaxis(moved, -1, 0), expected)


def test_jacobians_of_one_input() -> None:
    """The cotangents have a batch axis, and the indices have none."""
    x = values(4, 4, 1)
    jacobian = jax.jacrev(lambda x: remote.max_pool(x, (2, 2), (2, 2)))(x)
    assert jacobian.shape == (2, 2, 1, 4, 4, 1)
    assert jnp.array_equal(jacobian.sum((3, 4, 5)), jnp.ones((2, 2, 1)))


def test_scan_and_checkpoint() -> None:
    @jax.checkpoint
    def step(x: Any, _: None) -> Any:
        return remote.avg_pool(jnp.sin(x), (3, 3), padding="SAME"), None

    def scanned(x: Any) -> Any:
        return jax.lax.scan(step, x, None, length=3)[0].sum()

    def unrolled(x: Any) -> Any:
        for _ in range(3):
            x, _ = step(x, None)
        return x.sum()

    np.testing.assert_allclose(
        jax.jit(jax.grad(scanned))(X), jax.grad(unrolled)(X), rtol=1e-5, atol=1e-6
    )


def test_a_layer_is_compiled_once() -> None:
    traced = []

    @jax.jit
    def compiled(x: Any) -> Any:
        traced.append(None)
        return remote.max_pool(x, (2, 2))

    for _ in range(3):
        compiled(X)
        remote.max_pool(X, (2, 2))
    assert len(traced) == 1


def test_many_large_calls_do_not_deadlock() -> None:
    """JAX waits for arguments in the threads that run callbacks; see its issue 24255."""
    x = jnp.ones((4, 64, 64, 16))
    step = jax.jit(jax.grad(lambda x: (remote.max_pool(jnp.sin(x), (2, 2), (2, 2)) ** 2).sum()))
    for _ in range(40):
        x = x + step(x)
    assert bool(jnp.isfinite(x).all())
