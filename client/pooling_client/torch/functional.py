"""Pooling functions with the arguments of `torch.nn.functional`, computed on a server.

They take a tensor of shape (N, C, D1..Dn) or (C, D1..Dn), on any device and in any memory format,
and return one of the same device and format. Gradients are computed on the server too.

Arguments have the meaning that they have in PyTorch. These are added, all by keyword:

- `server`: target of the server (``HOST:PORT``, ``unix:/PATH``); by default the variable
  ``POOLING_TARGET``, or else ``127.0.0.1:50051``.
- `tie_policy`, `nan_policy`: see `PoolSpec`; for max and min.
- `padding` may also be a pair (before, after) per axis, or "valid", "same_upper" or "same_lower".

Raises:
    TypeError: an argument has the wrong type.
    ValueError, RuntimeError: options or a tensor are invalid: `InvalidOptionError` and
        `InvalidInputError` are both. Nothing is sent then, unless an entry of `indices` is invalid.
    PoolingError: the server cannot answer; see `PoolingClient.forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from pooling_client.torch import _arguments
from pooling_client.torch._arguments import Padding, Sizes
from pooling_client.torch._calling import pool, pool_with_indices, sliding
from pooling_client.torch._unpooling import unpool

Function = TypeVar("Function", bound=Callable[..., Any])

# Signatures differ between ranks by the name alone, so each is written once.


def _named(function: Function, name: str, what: str) -> Function:
    """Return a function with a name and a docstring."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{what}. See the module for `server` and the other additions."
    return function


def _selecting(mode: str, rank: int) -> Callable[..., Any]:
    def function(
        input: Tensor,  # noqa: A002  PyTorch's name, here and below
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Padding = 0,
        dilation: Sizes = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        server: str | None = None,
        tie_policy: str = "first",
        nan_policy: str = "propagate",
    ) -> Any:
        options = {
            "mode": mode,
            "ceil_mode": _arguments.flag("ceil_mode", ceil_mode),
            "tie_policy": tie_policy,
            "nan_policy": nan_policy,
        }
        options, sizes = sliding(options, rank, kernel_size, stride, padding, dilation)
        run = pool_with_indices if _arguments.flag("return_indices", return_indices) else pool
        return run(input, rank, options, sizes, server)

    what = f"Return the {mode} of each window along {rank} axes"
    return _named(function, f"{mode}_pool{rank}d", f"{what}, and its index if asked for")


def _averaging(rank: int) -> Callable[..., Tensor]:
    def function(
        input: Tensor,  # noqa: A002
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: float | None = None,
        *,
        server: str | None = None,
    ) -> Tensor:
        options = {
            "mode": "average",
            "ceil_mode": _arguments.flag("ceil_mode", ceil_mode),
            "count_include_pad": _arguments.flag("count_include_pad", count_include_pad),
        }
        if divisor_override is not None:
            options["divisor_override"] = _arguments.number("divisor_override", divisor_override)
        options, sizes = sliding(options, rank, kernel_size, stride, padding)
        return pool(input, rank, options, sizes, server)

    what = f"Return the average of each window along {rank} axes"
    return _named(function, f"avg_pool{rank}d", what)


def _summing(rank: int) -> Callable[..., Tensor]:
    def function(
        input: Tensor,  # noqa: A002
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        *,
        server: str | None = None,
    ) -> Tensor:
        options = {"mode": "sum", "ceil_mode": _arguments.flag("ceil_mode", ceil_mode)}
        options, sizes = sliding(options, rank, kernel_size, stride, padding)
        return pool(input, rank, options, sizes, server)

    what = f"Return the sum of each window along {rank} axes"
    return _named(function, f"sum_pool{rank}d", what)


def _norming(rank: int) -> Callable[..., Tensor]:
    def function(
        input: Tensor,  # noqa: A002
        norm_type: float,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        ceil_mode: bool = False,
        *,
        server: str | None = None,
    ) -> Tensor:
        options = {
            "mode": "lp",
            "ceil_mode": _arguments.flag("ceil_mode", ceil_mode),
            "norm_p": _arguments.number("norm_type", norm_type),
        }
        options, sizes = sliding(options, rank, kernel_size, stride, 0)
        return pool(input, rank, options, sizes, server)

    what = f"Return the norm (sum of abs(x)^p)^(1/p) of each window along {rank} axes"
    return _named(function, f"lp_pool{rank}d", f"{what}; PyTorch sums x^p instead")


def _adaptive(mode: str, name: str, rank: int) -> Callable[..., Any]:
    def function(
        input: Tensor,  # noqa: A002
        output_size: int | Sequence[int | None] | None,
        return_indices: bool = False,
        *,
        server: str | None = None,
    ) -> Any:
        sizes = _arguments.adaptive_sizes(output_size, input, rank)
        options = {"mode": mode, "window": "adaptive"}
        run = pool_with_indices if _arguments.flag("return_indices", return_indices) else pool
        return run(input, rank, options, sizes, server)

    what = f"Return the {mode} of windows that divide {rank} axes among `output_size` outputs"
    return _named(function, f"adaptive_{name}_pool{rank}d", what)


def _unpooling(rank: int) -> Callable[..., Tensor]:
    def function(
        input: Tensor,  # noqa: A002
        indices: Tensor,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        output_size: Sequence[int] | None = None,
        *,
        server: str | None = None,
    ) -> Tensor:
        return unpool(input, indices, rank, kernel_size, stride, padding, output_size, server)

    what = f"Place values at the indices of max pooling along {rank} axes, zeros elsewhere"
    return _named(function, f"max_unpool{rank}d", f"{what}; equal indices add up")


max_pool1d = _selecting("max", 1)
max_pool2d = _selecting("max", 2)
max_pool3d = _selecting("max", 3)
min_pool1d = _selecting("min", 1)
min_pool2d = _selecting("min", 2)
min_pool3d = _selecting("min", 3)
avg_pool1d = _averaging(1)
avg_pool2d = _averaging(2)
avg_pool3d = _averaging(3)
sum_pool1d = _summing(1)
sum_pool2d = _summing(2)
sum_pool3d = _summing(3)
lp_pool1d = _norming(1)
lp_pool2d = _norming(2)
lp_pool3d = _norming(3)
adaptive_avg_pool1d = _adaptive("average", "avg", 1)
adaptive_avg_pool2d = _adaptive("average", "avg", 2)
adaptive_avg_pool3d = _adaptive("average", "avg", 3)
adaptive_max_pool1d = _adaptive("max", "max", 1)
adaptive_max_pool2d = _adaptive("max", "max", 2)
adaptive_max_pool3d = _adaptive("max", "max", 3)
max_unpool1d = _unpooling(1)
max_unpool2d = _unpooling(2)
max_unpool3d = _unpooling(3)
