"""Requests, encoded before the test starts, and the replies that the local engine expects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pooling_engine
from pooling_engine import BackwardCall, ForwardCall, ForwardResult, Mode, PoolSpec, TiePolicy
from pooling_loadtest.errors import MisuseError
from pooling_loadtest.settings import KindOfCall
from pooling_wire import BACKWARD, FORWARD, Method

Array = NDArray[Any]
_VARIANTS = 4
_VARIANT_BYTES = 64 << 20  # of all variants of a kind together
_BACKEND = "numpy"  # compiles nothing, and its bits are those of every backend
_ULPS = 4  # by which another way to add may differ


@dataclass(frozen=True)
class Payload:
    """A call with its request and its expected results.

    Attributes:
        call: the call.
        expected: output and perhaps indices, or the input gradient.
    """

    call: ForwardCall | BackwardCall
    expected: tuple[Array, ...]

    @property
    def method(self) -> Method[Any, Any]:
        """Names and codecs of the method."""
        return FORWARD if isinstance(self.call, ForwardCall) else BACKWARD

    @property
    def tensor(self) -> Array:
        """The input, or the gradient of the output."""
        call = self.call
        return call.input if isinstance(call, ForwardCall) else call.output_gradient

    @property
    def request_bytes(self) -> int:
        """Bytes of the tensors of the request."""
        call = self.call
        others = [] if isinstance(call, ForwardCall) else [call.indices, call.input]
        return int(self.tensor.nbytes + sum(each.nbytes for each in others if each is not None))

    @property
    def reply_bytes(self) -> int:
        """Bytes of the tensors of the reply."""
        return sum(array.nbytes for array in self.expected)

    def is_right(self, results: tuple[Array, ...], *, exact: bool = True) -> bool:
        """Return whether results are the expected ones.

        Args:
            results: arrays in the order of `expected`.
            exact: compare bits; False accepts the rounding of another order of summation.
        """
        if len(results) != len(self.expected):
            return False
        is_exact = exact and self.call.spec.mode is not Mode.LP
        return all(
            _equal(actual, expected, is_exact)
            for actual, expected in zip(results, self.expected, strict=True)
        )


def payloads_of(kind: KindOfCall, seed: int) -> list[Payload]:
    """Return some calls of a kind with different tensors, the same for the same seed.

    Raises:
        MisuseError: the kind describes no legal call.
    """
    try:
        dtype = np.dtype(kind.dtype)
    except TypeError:
        raise MisuseError(f"kind {kind.name!r}: dtype is {kind.dtype!r}, not a type") from None
    size = max(1, math.prod(kind.shape) * dtype.itemsize)
    count = int(min(_VARIANTS, max(1, _VARIANT_BYTES // size)))
    try:
        return [_payload(kind, dtype, np.random.default_rng([seed, n])) for n in range(count)]
    except (pooling_engine.PoolingError, TypeError) as error:
        raise MisuseError(f"kind {kind.name!r}: {error}") from None
    except MemoryError:
        raise MisuseError(
            f"kind {kind.name!r}: shape is {kind.shape}; a tensor of {size:,} bytes and its result "
            "must fit in the memory of the generator"
        ) from None


def results_in(reply: ForwardResult | Array) -> tuple[Array, ...]:
    """Return the arrays of a decoded reply in the order of `Payload.expected`."""
    if not isinstance(reply, ForwardResult):
        return (reply,)
    return (reply.output,) if reply.indices is None else (reply.output, reply.indices)


def _payload(kind: KindOfCall, dtype: np.dtype[Any], random: np.random.Generator) -> Payload:
    spec = PoolSpec(**kind.spec)
    pooling_engine.plan(spec, kind.shape, dtype)  # rejects the shape before it is allocated
    x = _tensor(kind.shape, dtype, random)
    if kind.direction == "forward":
        call = ForwardCall(x, spec, kind.return_indices)
        return Payload(call, results_in(pooling_engine.run(call, backend=_BACKEND)))
    selects = spec.mode in (Mode.MAX, Mode.MIN)
    needs_input = spec.mode is Mode.LP or (selects and spec.tie_policy is not TiePolicy.FIRST)
    uses_indices = selects and not needs_input
    result = pooling_engine.forward(x, spec, return_indices=uses_indices, backend=_BACKEND)
    gradient = _tensor(result.output.shape, dtype, random)
    back = BackwardCall(gradient, spec, x.shape, result.indices, x if needs_input else None)
    return Payload(back, (pooling_engine.run(back, backend=_BACKEND),))


def _tensor(shape: tuple[int, ...], dtype: np.dtype[Any], random: np.random.Generator) -> Array:
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return random.integers(max(info.min, -1000), min(info.max, 1000), shape, dtype)
    return random.standard_normal(shape, np.float32).astype(dtype)


def _equal(actual: Array, expected: Array, exact: bool) -> bool:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    if exact or actual.dtype.kind in "iu":
        return np.ascontiguousarray(actual).tobytes() == expected.tobytes()
    epsilon = 2.0 ** -(10 if actual.itemsize == 2 else 23 if actual.itemsize == 4 else 52)
    wide, wanted = actual.astype(np.float64), expected.astype(np.float64)
    return bool(
        np.allclose(wide, wanted, rtol=_ULPS * epsilon, atol=_ULPS * epsilon, equal_nan=True)
    )
