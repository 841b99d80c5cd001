"""What requests ask, in the engine's terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from pooling_engine import IndexFormat, PoolSpec
from pooling_wire.shared_memory.places import Places

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, slots=True)
class ForwardCall:
    """What a ForwardRequest asks: the arguments of `pooling_engine.forward`.

    Attributes:
        places: in shared memory: of results, where to put them; in a request to be encoded, also
            of tensors, which then are not sent.
    """

    input: Array
    spec: PoolSpec
    return_indices: bool = False
    index_format: IndexFormat = IndexFormat.WINDOW
    places: Places = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class BackwardCall:
    """What a BackwardRequest asks: the arguments of `pooling_engine.backward`.

    Attributes:
        places: as in `ForwardCall`.
    """

    output_gradient: Array
    spec: PoolSpec
    input_shape: tuple[int, ...] | None = None
    indices: Array | None = None
    input: Array | None = None
    index_format: IndexFormat | None = None
    places: Places = field(default_factory=dict)
