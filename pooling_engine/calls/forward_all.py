"""One call of several layers that pool the same input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pooling_engine.calls.arrays import HOST, Arrays
from pooling_engine.calls.call import ArraySpec, ForwardCall
from pooling_engine.errors import InvalidSpecError, PoolingError
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import IndexFormat
from pooling_engine.specs.spec import PoolSpec

MAX_LAYERS = 64  # of one call


@dataclass(frozen=True, eq=False, slots=True)
class ForwardAllCall:
    """Checked arguments of `pooling_engine.forward_all`.

    Attributes:
        calls: one call for each layer, all with the same input array; at most `MAX_LAYERS`.

    Raises:
        InvalidSpecError: there is no layer, or too many.
    """

    calls: tuple[ForwardCall, ...]

    def __post_init__(self) -> None:
        check_layer_count(len(self.calls), "specs")

    @property
    def input(self) -> NDArray[Any]:
        """The input of all layers."""
        return self.calls[0].input

    @property
    def plan(self) -> PoolPlan:
        """The plan of the first layer."""
        return self.calls[0].plan

    @property
    def result_specs(self) -> dict[str, ArraySpec]:
        """Shape and element type of each result: "output" for the first layer, "more[0].output"."""
        return {
            result_prefix(number) + name: spec
            for number, call in enumerate(self.calls)
            for name, spec in call.result_specs.items()
        }


def result_prefix(number: int) -> str:
    """Return the prefix of the names of the results of a layer."""
    return f"more[{number - 1}]." if number else ""


def check_layer_count(count: int, field: str) -> None:
    """Check the number of layers of one call.

    Raises:
        InvalidSpecError: it is not 1 to `MAX_LAYERS`.
    """
    if not 1 <= count <= MAX_LAYERS:
        raise InvalidSpecError(
            f"{field} has {count} layers; 1 to {MAX_LAYERS} are legal", field=field
        )


def forward_all_call(
    x: ArrayLike,
    specs: Sequence[PoolSpec],
    return_indices: bool | Sequence[bool],
    index_format: str,
    arrays: Arrays = HOST,
) -> ForwardAllCall:
    """Return the call for the arguments of `forward_all`.

    Raises:
        PoolingError: an argument is invalid, with the errors of `ForwardCall`; the fields of a
            layer begin with its position in `specs`.
    """
    if not isinstance(specs, Sequence):
        raise InvalidSpecError(f"specs is {specs!r}; it must be a list of PoolSpec", field="specs")
    check_layer_count(len(specs), "specs")
    tensor = arrays.as_tensor(x, "input")
    is_single = isinstance(return_indices, bool | np.bool_)
    flags: Any = [return_indices] * len(specs) if is_single else return_indices
    if not isinstance(flags, Sequence) or len(flags) != len(specs):
        raise InvalidSpecError(
            f"return_indices is {return_indices!r}; it must be a bool, or one for each of the "
            f"{len(specs)} specs",
            field="return_indices",
        )
    formats = [index_format if flag else IndexFormat.WINDOW for flag in flags]
    layers = enumerate(zip(specs, flags, formats, strict=True))
    return ForwardAllCall(
        tuple(
            checked_layer(f"specs[{number}]", partial(ForwardCall, tensor, *layer, arrays=arrays))
            for number, layer in layers
        )
    )


def checked_layer(
    name: str,
    make: Callable[[], ForwardCall],
    path: Callable[[str], str] = str,
) -> ForwardCall:
    """Return the call of a layer; errors name the layer.

    Args:
        name: name of the layer, a prefix of the fields of errors.
        make: returns the call.
        path: returns the path of a field in the layer.

    Raises:
        PoolingError: the layer is invalid.
    """
    try:
        return make()
    except PoolingError as error:
        if error.field == "input":
            raise
        raised = type(error)(
            f"{name}: {error}", field=f"{name}.{path(error.field)}", facts=error.facts
        )
        raised.plan = error.plan
        raise raised from None
