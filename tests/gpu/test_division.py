"""Multiplications that replace divisions: bit-identical float64, before the result is rounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec
from pooling_engine.backends.cupy_backend.planning import division
from pooling_engine.backends.cupy_backend.planning.launches import (
    BLOCK_THREADS,
    Launch,
    forward_launch,
)
from tests.gpu import shim
from tests.gpu.support import Array
from tests.support import palettes

KERNEL = """
template <typename E>
__global__ void quotients(const double *sums, double *results, Scale scale, int rule, int count) {
  int thread = blockIdx.x * blockDim.x + threadIdx.x;
  if (rule == VALID_TAPS) scale = scale_of<E>(scale.value);
  if (thread < count) results[thread] = quotient<E>(sums[thread], scale, rule);
}
"""
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan])
LARGE = (255, 1000, 65_535, 2**24 - 1, 2**31 - 1, 2**40 + 1, 2**46 + 1, 2**47 - 1, 2**47)
POWERS = tuple(2.0**n for n in range(-47, 48))


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> Iterator[None]:
    source_of = shim.source_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shim, "source_of", lambda file: source_of(file) + KERNEL)
        patch.setattr(shim, "_kernels", {})
        yield


def assert_divides(
    sums: Array, divisor: float, element: str = "float", rule: int | None = None, scale: Any = None
) -> int:
    """Compare the kernel with NumPy's division, except for signs of zeros and bits of NaNs.

    Args:
        rule, scale: of the kernel; by default those of an average with that divisor.

    Returns:
        The rule that was used.
    """
    if rule is None:
        spec = PoolSpec("average", 1, divisor_override=divisor)
        dtype = {"float": np.float32, "double": np.float64}[element]
        rule, scale = division.division_of(pooling_engine.plan(spec, (1, 1, 1), np.dtype(dtype)))
    results = np.empty_like(sums)
    values = scale, np.int32(rule), np.int32(sums.size)
    blocks = -(-sums.size // BLOCK_THREADS)
    shim.run(Launch("forward.cu", f"quotients<{element}>", blocks, values), sums, results)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(results, sums / divisor)
    return rule


def halves() -> Array:
    with np.errstate(invalid="ignore"):
        return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)


def singles(count: int, seed: int) -> Array:
    values = palettes.VALUES["bits"]((count,), np.dtype(np.float32), seed)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return values.astype(np.float64)


def sums_of_many(count: int, seed: int) -> Array:
    """Return sums of any size that use all bits of a float64."""
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, count) * 2.0 ** random.integers(-90, 160, count)


def near_midpoints(divisor: int, seed: int) -> Array:
    """Return sums whose quotients are as close as possible to the midpoint of two float64.

    sum - divisor * midpoint is one unit in the last place.
    """
    odd = divisor // (divisor & -divisor)
    cut = (2**54 * odd).bit_length() - 53  # bits of the product beyond those of a float64
    random = np.random.default_rng(seed).integers(2**53, 2**54, 100)
    sums = []
    for unit in (1, -1):
        last = -unit * pow(odd, -1, 2**cut) % 2**cut
        midpoints = [int(midpoint) >> cut << cut | last for midpoint in random]
        sums += [midpoint * odd + unit for midpoint in midpoints]
    return np.array([float(total) for total in sums if total == int(float(total))])


@pytest.mark.parametrize("made", ["on the host", "by the kernel"])
def test_products_are_bit_identical_to_divisions(made: str) -> None:
    rule = division.VALID_TAPS if made == "by the kernel" else None
    for divisor in (*range(1, 128), *LARGE):
        tables = [SPECIAL, near_midpoints(divisor, 1)]
        tables += [singles(2000, divisor), sums_of_many(2000, divisor)]
        if divisor < 128 and rule is None:
            tables.append(halves())
        scale = division.packed_scale(float(divisor), 0.0)
        used = assert_divides(np.concatenate(tables), divisor, rule=rule, scale=scale)
        assert used == (rule or division.MULTIPLY)


@pytest.mark.parametrize("sign", [1, -1])
def test_powers_of_two_and_negative_divisors(sign: int) -> None:
    for divisor in (*POWERS, 3, 9, 49):
        sums = np.concatenate([SPECIAL, singles(200, 1), sums_of_many(200, 2)])
        assert assert_divides(sums, sign * divisor) == division.MULTIPLY


@pytest.mark.parametrize("divisor", [0.3, -2.5, 2**47 + 1, 1e300, 5e-324, 2.0**-48])
def test_a_divisor_without_an_exact_factor_divides(divisor: float) -> None:
    assert assert_divides(np.concatenate([halves(), singles(2000, 3)]), divisor) == division.DIVIDE


@pytest.mark.parametrize("divisor", [1, 2, 3, 9, 2.0**-1022, 5e-324])
def test_float64_is_divided_unless_the_reciprocal_is_exact(divisor: float) -> None:
    sums = palettes.VALUES["bits"]((5000,), np.dtype(np.float64), 4)
    expected = division.MULTIPLY if divisor in (1, 2, 2.0**-1022) else division.DIVIDE
    assert assert_divides(sums, divisor, "double") == expected


def test_a_window_of_too_many_taps_has_no_kernel() -> None:
    for kernel, has_kernel in (((2**23, 2**24), True), ((2**23 + 1, 2**24), False)):
        spec = PoolSpec("average", kernel, padding=tuple(k - 1 for k in kernel))
        plan = pooling_engine.plan(spec, (1, 1, 1, 1), np.dtype(np.float32))
        assert (forward_launch(plan, False, True) is not None) == has_kernel
