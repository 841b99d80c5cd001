"""Arguments of the functions in the forms that Flax accepts."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pooling_engine import InvalidSpecError, InvalidTensorError

Sizes = Sequence[int]
Padding = str | Sequence[tuple[int, int]]

NAMES = {"kernel": "window_shape", "stride": "strides"}  # in errors
_PADDINGS = {"VALID": "valid", "SAME": "same_upper", "SAME_LOWER": "same_lower"}
_LEGAL = ["float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64"]


def sizes(name: str, value: Any, rank: int | None = None) -> tuple[int, ...]:
    """Return one size per spatial axis.

    Args:
        name: name of the argument, for errors.
        value: sequence of integers.
        rank: number of spatial axes, or None for any number.

    Raises:
        TypeError: it is not a sequence of integers.
        InvalidSpecError: it is empty, or has another number of sizes.
    """
    wrong = TypeError(f"{name} must be a sequence of integers, not {value!r}{_advice(value)}")
    if not isinstance(value, list | tuple) or any(isinstance(item, bool) for item in value):
        raise wrong
    try:
        items = tuple(operator.index(item) for item in value)
    except TypeError:
        raise wrong from None
    if not items or rank not in (None, len(items)):
        needed = "at least 1" if rank is None else rank
        raise InvalidSpecError(f"{name} has {len(items)} sizes; it must have {needed}", field=name)
    return items


def _advice(value: Any) -> str:
    items = value if isinstance(value, list | tuple) else [value]
    if not any(isinstance(item, jax.core.Tracer) for item in items):
        return ""
    return "; name it in static_argnames or static_argnums of the transform"


def paddings(value: Any, rank: int) -> Any:
    """Return the padding as `PoolSpec` takes it.

    Raises:
        TypeError: it is neither a string nor a sequence of pairs of integers.
        InvalidSpecError: the string has another value, or there are pairs for other axes.
    """
    if isinstance(value, str):
        if value.upper() not in _PADDINGS:
            legal = ", ".join(_PADDINGS)
            raise InvalidSpecError(
                f"padding is {value!r}; it must be one of {legal}, or a pair per spatial axis",
                field="padding",
            )
        return _PADDINGS[value.upper()]
    if not isinstance(value, list | tuple):
        raise TypeError(f"padding must be a string or a sequence of pairs, not {value!r}")
    if len(value) != rank:
        raise InvalidSpecError(
            f"padding has {len(value)} pairs; it must have {rank}", field="padding"
        )
    return tuple(sizes(f"padding[{axis}]", pair, 2) for axis, pair in enumerate(value))


def as_array(inputs: Any, rank: int) -> jax.Array:
    """Return the input as an array of JAX.

    Raises:
        TypeError: it is not an array, or has an element type without a kernel.
        InvalidTensorError: it has too few axes.
    """
    if not isinstance(inputs, jax.Array | np.ndarray):
        raise TypeError(f"inputs must be an array, not {type(inputs).__name__}")
    x = jnp.asarray(inputs)
    if x.dtype.name not in _LEGAL:
        raise TypeError(f"inputs is {x.dtype.name}; it must be one of {', '.join(_LEGAL)}")
    if x.ndim < rank + 1:
        axes = ", ".join(f"D{axis + 1}" for axis in range(rank))
        raise InvalidTensorError(
            f"inputs has the shape {x.shape}; it must have the shape (..., {axes}, C)",
            field="inputs",
        )
    if 0 in x.shape[-1 - rank :]:
        raise InvalidTensorError(
            f"inputs has the shape {x.shape}; spatial axes and channels must not be empty",
            field="inputs",
        )
    return x


def check_output(dtype: np.dtype[Any], mode: str, x: jax.Array) -> None:
    """Check that JAX has the element type of the output.

    Raises:
        TypeError: it is enabled by `jax_enable_x64` only.
    """
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise TypeError(
            f'inputs is {x.dtype.name}, and the mode "{mode}" returns {dtype.name}: '
            "convert inputs to float32, or enable jax_enable_x64"
        )
