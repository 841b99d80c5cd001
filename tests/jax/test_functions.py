"""Outputs and gradients: the engine's bits, and the numbers of Flax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import pooling_client.jax as remote
import pooling_engine
from pooling_engine import PoolSpec

pytestmark = pytest.mark.usefixtures("address")
PADDINGS: Any = ("VALID", "SAME", ((1, 0), (0, 1)))
ROWS: Any = [(((3, 2), (2, 1)), padding) for padding in PADDINGS] + [(((2, 3), None), "VALID")]


def values(*shape: int, dtype: Any = np.float32) -> jax.Array:
    """Return distinct numbers in random order, which are exact in every floating-point type."""
    count = int(np.prod(shape))
    numbers = np.random.default_rng(0).permutation(count) - count // 2
    return jnp.asarray((numbers / 128).reshape(shape), dtype)


X = values(2, 8, 9, 3)


def sum_of_flax(x: Any, window: Any, strides: Any, padding: Any) -> jax.Array:
    return flax.linen.pool(x, 0.0, jax.lax.add, window, strides, padding)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(("window", "padding"), ROWS)
def test_max_and_min_have_the_bits_of_flax(mode: str, window: Any, padding: Any) -> None:
    ours, theirs = (getattr(module, f"{mode}_pool") for module in (remote, nnx))
    both = [jax.vjp(lambda x, f=f: f(x, *window, padding), X) for f in (ours, theirs)]
    assert jnp.array_equal(both[0][0], both[1][0])
    gradient = values(*both[0][0].shape)  # sums of these are exact
    assert jnp.array_equal(both[0][1](gradient)[0], both[1][1](gradient)[0])


@pytest.mark.parametrize("name", ["avg", "avg without pads", "sum"])
@pytest.mark.parametrize(("window", "padding"), ROWS)
def test_average_and_sum_have_the_numbers_of_flax(name: str, window: Any, padding: Any) -> None:
    functions: dict[str, tuple[Callable[..., Any], Callable[..., Any], Any]] = {
        "avg": (remote.avg_pool, flax.linen.avg_pool, ()),
        "avg without pads": (remote.avg_pool, flax.linen.avg_pool, (False,)),
        "sum": (remote.sum_pool, sum_of_flax, ()),
    }
    ours, theirs, options = functions[name]
    both = [jax.vjp(lambda x, f=f: f(x, *window, padding, *options), X) for f in (ours, theirs)]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-6, atol=1e-7)
    gradient = values(*both[0][0].shape)
    np.testing.assert_allclose(
        both[0][1](gradient)[0], both[1][1](gradient)[0], rtol=1e-6, atol=1e-6
    )


DTYPES: Any = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["max", "min", "average", "sum", "lp"])
def test_outputs_and_gradients_have_the_bits_of_the_engine(mode: str, dtype: Any) -> None:
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((2, 6, 5, 3)), dtype)
    function = getattr(remote, {"average": "avg"}.get(mode, mode) + "_pool")
    output, pull = jax.vjp(lambda x: function(x, (3, 2), (2, 1), "SAME"), x)
    dy = jnp.asarray(random.standard_normal(output.shape), dtype)
    spec = PoolSpec(mode, (3, 2), (2, 1), "same_upper", layout="channels_last")
    given = np.asarray(x)
    expected = pooling_engine.forward(given, spec)
    gradient = pooling_engine.backward(
        np.asarray(dy),
        spec,
        input=given if mode in ("max", "min", "lp") else None,
        input_shape=x.shape,
    )
    assert output.dtype == dtype
    assert np.asarray(output).tobytes() == expected.output.tobytes()
    assert np.asarray(pull(dy)[0]).tobytes() == gradient.tobytes()


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_spatial_axes(rank: int) -> None:
    x = values(2, *[4] * rank, 3)
    window = (2,) * rank
    assert jnp.array_equal(remote.max_pool(x, window), flax.linen.max_pool(x, window))


@pytest.mark.parametrize("batch", [(), (3,), (2, 1, 3)])
@pytest.mark.parametrize("name", ["max", "avg"])
def test_batch_axes(batch: tuple[int, ...], name: str) -> None:
    x = values(*batch, 5, 4, 2)
    function = getattr(remote, f"{name}_pool")
    merged = x.reshape(-1, 5, 4, 2)

    def total(x: Any) -> Any:
        return (function(x, (2, 2)) ** 2).sum()

    assert jnp.array_equal(function(x, (2, 2)).reshape(-1, 4, 3, 2), function(merged, (2, 2)))
    assert jnp.array_equal(jax.grad(total)(x).reshape(merged.shape), jax.grad(total)(merged))


def test_the_default_stride_is_1_and_strings_may_be_lower_case() -> None:
    assert remote.max_pool(X, [3, 3]).shape == (2, 6, 7, 3)
    assert remote.max_pool(X, (3, 3), padding="same").shape == X.shape
    upper, lower = (remote.max_pool(X, (2, 2), (2, 2), p) for p in ("SAME", "SAME_LOWER"))
    assert not jnp.array_equal(upper, lower)


def test_an_empty_server_is_the_default(address: str) -> None:
    outputs = [remote.max_pool(X, (2, 2), server=server) for server in ("", None, address)]
    assert jnp.array_equal(outputs[0], outputs[1])
    assert jnp.array_equal(outputs[0], outputs[2])


def test_the_norm_is_an_option() -> None:
    assert jnp.array_equal(
        remote.lp_pool(X, (2, 2), norm_p=float("inf")), remote.max_pool(abs(X), (2, 2))
    )


def test_integers_and_numpy_arrays() -> None:
    x = np.arange(24, dtype=np.int8).reshape(1, 4, 6, 1)
    assert remote.max_pool(x, (2, 2)).dtype == jnp.int8
    assert remote.avg_pool(x, (2, 2)).dtype == jnp.float32


def test_flax_networks_take_the_functions() -> None:
    class Linen(flax.linen.Module):
        pool: Any

        @flax.linen.compact
        def __call__(self, x: Any) -> Any:
            return self.pool(flax.linen.Conv(4, (3, 3))(x), (2, 2), strides=(2, 2))

    weights = Linen(remote.max_pool).init(jax.random.key(0), X)
    outputs = [Linen(pool).apply(weights, X) for pool in (remote.max_pool, flax.linen.max_pool)]
    assert jnp.array_equal(*outputs)

    class Nnx(nnx.Module):
        def __init__(self, pool: Any) -> None:
            self.conv, self.pool = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), pool

        def __call__(self, x: Any) -> Any:
            return self.pool(self.conv(x), (2, 2), strides=(2, 2))

    def loss(network: Nnx) -> Any:
        return (network(X) ** 2).sum()

    gradients = [nnx.jit(nnx.grad(loss))(Nnx(pool)) for pool in (remote.max_pool, nnx.max_pool)]
    kernels = [gradient["conv"]["kernel"][...] for gradient in gradients]
    np.testing.assert_allclose(*kernels, rtol=1e-5, atol=1e-4)
