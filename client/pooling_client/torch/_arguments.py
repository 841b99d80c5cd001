"""Arguments of the functions in the forms that `torch.nn.functional` accepts.

`torch.compile` traces these functions, so they use plain Python only.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch

Sizes = int | Sequence[int]
Padding = int | str | Sequence[int | Sequence[int]]


def integer(name: str, value: Any) -> Any:
    """Return an integer, which may be symbolic.

    Raises:
        TypeError: it is not an integer.
    """
    if not isinstance(value, bool):
        if isinstance(value, int | torch.SymInt):
            return value
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{name} must be an integer, not {value!r}")


def sizes(name: str, value: Any, rank: int) -> list[int]:
    """Return one size per axis. One integer, or a sequence of one, stands for all axes.

    Raises:
        TypeError: an item is not an integer.
        ValueError: there are sizes for another number of axes.
    """
    if not isinstance(value, list | tuple):
        return [integer(name, value)] * rank
    items = [integer(name, item) for item in value]
    if len(items) == 1:
        return items * rank
    check_length(name, items, rank)
    return items


def check_length(name: str, items: Sequence[Any], rank: int) -> None:
    """Check the number of items of a sequence, one per axis.

    Raises:
        ValueError: it is another one.
    """
    if len(items) != rank:
        raise ValueError(f"{name} has {len(items)} sizes; it must have one or {rank}")


def paddings(value: Any, rank: int) -> tuple[list[int], list[int]]:
    """Return the padding before and after each axis.

    Args:
        value: one size, or a size or a pair (before, after) per axis.
        rank: number of axes.

    Raises:
        TypeError: a size is not an integer.
        ValueError: there are sizes for another number of axes.
    """
    if not isinstance(value, list | tuple):
        return sizes("padding", value, rank), sizes("padding", value, rank)
    items = list(value) * rank if len(value) == 1 else value
    check_length("padding", items, rank)
    pairs = [sizes("padding", item, 2) for item in items]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def flag(name: str, value: Any) -> bool:
    """Return True or False.

    Raises:
        TypeError: it is another value.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {value!r}")


def text_of(options: dict[str, Any]) -> str:
    """Return options as the text of a layer (`_layer.options_of`)."""
    return ";".join([f"{name}={value}" for name, value in options.items()])


def number(name: str, value: Any) -> float:
    """Return a number.

    Raises:
        TypeError: it is not a number.
    """
    is_number = isinstance(value, int | float) or (
        isinstance(value, np.generic) and isinstance(value, Real)
    )
    if isinstance(value, bool) or not is_number:
        raise TypeError(f"{name} must be a number, not {value!r}")
    return float(value)


def adaptive_sizes(output_size: Any, input: torch.Tensor, rank: int) -> list[int]:  # noqa: A002
    """Return the number of outputs along each axis; None stands for the size of the input.

    Raises:
        TypeError: an item is not an integer or None.
        ValueError: there are sizes for another number of axes.
    """
    items = output_size if isinstance(output_size, list | tuple) else [output_size]
    items = list(items) * rank if len(items) == 1 else list(items)
    check_length("output_size", items, rank)
    for axis in range(rank):
        if items[axis] is None:
            items[axis] = input.shape[axis - rank]
    return [integer("output_size", item) for item in items]
