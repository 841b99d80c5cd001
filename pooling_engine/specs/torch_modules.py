"""Translation of PyTorch's pooling modules to the options of a spec, without importing PyTorch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pooling_engine.errors import InvalidSpecError, UnsupportedError

_PACKAGES = ("torch.nn.", "pooling_client.torch.")
_MODES = {
    "MaxPool": "max",
    "MinPool": "min",
    "AvgPool": "average",
    "SumPool": "sum",
    "LPPool": "lp",
    "AdaptiveMaxPool": "max",
    "AdaptiveAvgPool": "average",
}
_UNSUPPORTED = {
    "LPPool": 'it sums signed powers, mode "lp" powers of absolute values',
    "FractionalMaxPool": "its windows are random",
    "MaxUnpool": "unpooling is the backward call of the max pooling layer",
}
_SIZES = ("kernel_size", "stride", "padding", "dilation")
_NAMES = {"kernel_size": "kernel", "norm_type": "norm_p"}
_OPTIONS = (
    "ceil_mode",
    "count_include_pad",
    "divisor_override",
    "norm_type",
    "tie_policy",
    "nan_policy",
)


def torch_options(module: Any) -> dict[str, Any]:
    """Return the arguments of `PoolSpec` for a module.

    Raises:
        UnsupportedError: no spec computes the same as the module.
        InvalidSpecError: it is not a pooling module, or has sizes for another number of axes.
    """
    family, rank, package = _kind(module)
    is_foreign_norm = family == "LPPool" and package == "torch.nn."
    if is_foreign_norm or family not in _MODES:
        why = _UNSUPPORTED[family]
        raise UnsupportedError(f"{family}{rank}d of PyTorch has no spec: {why}", field="module")
    options: dict[str, Any] = {"mode": _MODES[family]}
    if family.startswith("Adaptive"):
        options["adaptive_output"] = _adaptive_sizes(module.output_size, rank)
        return options
    for name in _SIZES:
        value = getattr(module, name, None)
        if value is not None:
            options[_NAMES.get(name, name)] = _sizes(name, value, rank)
    for name in _OPTIONS:
        if hasattr(module, name):
            options[_NAMES.get(name, name)] = getattr(module, name)
    return options


def _kind(module: Any) -> tuple[str, int, str]:
    """Return the family of a module or of a base class, its rank and its package."""
    for class_ in type(module).__mro__:
        name = re.fullmatch(r"(\w+?)([123])d", class_.__name__)
        package = next((p for p in _PACKAGES if class_.__module__.startswith(p)), None)
        if name and package and name[1] in _MODES | _UNSUPPORTED:
            return name[1], int(name[2]), package
    raise InvalidSpecError(
        f"module is of type {type(module).__name__}; it must be a pooling module of torch.nn "
        "or pooling_client.torch",
        field="module",
    )


def _sizes(name: str, value: Any, rank: int) -> Any:
    """Return one size, or one pair of paddings, per axis; a named padding is returned as it is."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        return (value,) * rank
    if len(value) == 1:
        return tuple(value) * rank
    if len(value) != rank:
        raise InvalidSpecError(f"{name} has {len(value)} sizes; it must have {rank}", field=name)
    return tuple(value)


def _adaptive_sizes(value: Any, rank: int) -> Any:
    sizes = _sizes("output_size", value, rank)
    if None in sizes:
        raise UnsupportedError(
            "output_size has None, which keeps the size of the input; a spec needs the number",
            field="output_size",
        )
    return sizes
