"""Layer arguments of the custom ops: a text of options and a list of sizes.

Custom ops take tensors, numbers, strings and lists of integers. Sizes stay integers, because they
may be symbolic under `torch.compile`; everything else is in the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from pooling_client import PoolSpec

_SIZES_PER_AXIS = 5  # kernel, stride, dilation, padding before, padding after
_INDEX_TYPES = {torch.uint8: 255, torch.uint16: 65_535, torch.uint32: 4_294_967_295}
_FLAGS = {"True": True, "False": False}
_READERS: dict[str, Any] = {
    "ceil_mode": _FLAGS.get,
    "count_include_pad": _FLAGS.get,
    "divisor_override": float,
    "norm_p": float,
}


@lru_cache(maxsize=1024)
def options_of(text: str) -> dict[str, Any]:
    """Return the options in a text such as ``mode=max;ceil_mode=True``."""
    words = (word.split("=", 1) for word in text.split(";"))
    return {name: _READERS.get(name, str)(value) for name, value in words}


@lru_cache(maxsize=1024)
def spec_of(text: str, sizes: tuple[int, ...]) -> PoolSpec:
    """Return the spec of a layer.

    Args:
        text: options of the layer.
        sizes: five sizes per spatial axis (`_SIZES_PER_AXIS`), or one size per axis for an
            adaptive layer.

    Raises:
        InvalidSpecError: an option or a size is invalid.
    """
    options = dict(options_of(text))
    if options.pop("window") == "adaptive":
        return PoolSpec(**options, adaptive_output=sizes)
    kernel, stride, dilation, before, after = zip(*_per_axis(sizes), strict=True)
    padding = options.pop("padding", tuple(zip(before, after, strict=True)))
    return PoolSpec(**options, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


def is_channels_last(text: str) -> bool:
    """Return whether the layer computes on the order (N, D1..Dn, C) in memory."""
    return options_of(text).get("layout") == "channels_last"


def needs_input(text: str) -> bool:
    """Return whether the gradient needs the input, not only its shape."""
    options = options_of(text)
    return options["mode"] in ("max", "min", "lp")


def selects_one(text: str) -> bool:
    """Return whether each window selects one element, whose index the gradient needs."""
    options = options_of(text)
    return options["mode"] in ("max", "min") and options.get("tie_policy", "first") == "first"


def sizes_per_axis(text: str) -> int:
    """Return the number of sizes of the layer along each axis."""
    return 1 if options_of(text)["window"] == "adaptive" else _SIZES_PER_AXIS


def _per_axis(sizes: Sequence[int]) -> list[Sequence[int]]:
    return [sizes[at : at + _SIZES_PER_AXIS] for at in range(0, len(sizes), _SIZES_PER_AXIS)]


def output_sizes(text: str, sizes: Sequence[int], inputs: Sequence[int]) -> list[int]:
    """Return the number of outputs along each spatial axis. Sizes may be symbolic.

    Args:
        text: options of the layer.
        sizes: sizes of the layer, as of `spec_of`.
        inputs: spatial sizes of the input.

    Raises:
        RuntimeError: a window does not fit.
    """
    options = options_of(text)
    if options["window"] == "adaptive":
        return list(sizes)
    outputs = []
    for size, window in zip(inputs, _per_axis(sizes), strict=True):
        count = _count_outputs(options, size, window)
        torch._check(count >= 1, _too_large)  # type: ignore[no-untyped-call]
        outputs.append(count)
    return outputs


def _count_outputs(options: dict[str, Any], size: int, window: Sequence[int]) -> int:
    kernel, stride, dilation, before, after = window
    if options.get("padding") in ("same_upper", "same_lower"):
        return -(-size // stride)
    room = size + before + after - (kernel - 1) * dilation - 1
    if not options.get("ceil_mode"):
        return room // stride + 1
    # The last window starts at an element or in the padding before it. No branch: a branch on a
    # symbolic size would restrict the sizes of a compiled graph.
    last = (size + before - 1) // stride + 1
    count: int = torch.sym_min(  # type: ignore[no-untyped-call]
        (room + stride - 1) // stride + 1, last
    )
    return count


def _too_large() -> str:
    return "kernel_size is larger than the padded input"


def kernel_sizes(text: str, sizes: Sequence[int], inputs: Sequence[int]) -> list[int]:
    """Return the number of elements of the largest window along each spatial axis."""
    if options_of(text)["window"] != "adaptive":
        return [window[0] for window in _per_axis(sizes)]
    return [_adaptive_kernel(int(size), int(n)) for size, n in zip(inputs, sizes, strict=True)]


def _adaptive_kernel(size: int, outputs: int) -> int:
    if size % outputs == 0:
        return size // outputs
    return -(-(outputs - math.gcd(size, outputs) + size) // outputs)


def index_dtype(text: str, sizes: Sequence[int], inputs: Sequence[int]) -> torch.dtype:
    """Return the element type of window indices: the smallest with a spare value for "none"."""
    taps = math.prod(kernel_sizes(text, sizes, inputs))
    return next((dtype for dtype, none in _INDEX_TYPES.items() if taps <= none), torch.uint32)


def plane_positions(
    indices: torch.Tensor, text: str, sizes: Sequence[int], inputs: Sequence[int]
) -> torch.Tensor:
    """Return window indices in PyTorch's format: int64, flat in the plane, -1 for none.

    Args:
        indices: window indices of shape (N, C, O1..On); int64 positions are returned unchanged.
        text: options of the layer.
        sizes: sizes of the layer, as of `spec_of`.
        inputs: spatial sizes of the input.
    """
    if indices.dtype is torch.int64:
        return indices
    numbers = indices.to(torch.int64)
    is_none = numbers == _INDEX_TYPES[indices.dtype]
    positions = torch.zeros_like(numbers)
    kernels = kernel_sizes(text, sizes, inputs)
    is_adaptive = options_of(text)["window"] == "adaptive"
    spec_windows = None if is_adaptive else _per_axis(sizes)
    step, rank = 1, len(inputs)
    for axis in reversed(range(rank)):
        count = indices.shape[axis + 2]
        start = torch.arange(count, device=indices.device)
        dilation = 1
        if spec_windows is None:
            start = start * inputs[axis] // count
        else:
            _, stride, dilation, before, _ = spec_windows[axis]
            start = start * stride - before
        number = numbers % kernels[axis]
        numbers = numbers // kernels[axis]
        start = start.reshape((-1,) + (1,) * (rank - axis - 1))
        positions += (start + number * dilation) * step
        step *= inputs[axis]
    return positions.masked_fill_(is_none, -1)
