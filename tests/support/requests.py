"""Plain request messages, built from the generated classes; by default they are valid."""

from __future__ import annotations

from typing import Any

import numpy as np

from pooling_wire.v1 import pooling_pb2 as pb


def tensor(
    sizes: tuple[int, ...] = (1, 1, 4, 4), dtype: str = "float32", **changes: Any
) -> pb.Tensor:
    """Return a tensor message of ones, with some fields replaced."""
    number = pb.ElementType.Value(f"ELEMENT_TYPE_{dtype.upper()}")
    message = pb.Tensor(element_type=number, shape=sizes, data=np.ones(sizes, dtype).tobytes())
    return changed(message, changes)


def positions(*values: int) -> pb.Tensor:
    """Return four int64 plane indices."""
    return tensor((1, 1, 2, 2), "int64", data=np.array(values, "<i8").tobytes())


def window(**changes: Any) -> pb.Window:
    return changed(pb.Window(kernel=2), changes)


def sliding(
    axes: int = 2, ceil_mode: bool = False, named: int = 0, **changes: Any
) -> dict[str, Any]:
    """Return the windows of a spec: one record per axis, with changes in the last."""
    records = [window() for _ in range(axes - 1)] + [window(**changes)]
    return {
        "sliding_windows": pb.SlidingWindows(axes=records, ceil_mode=ceil_mode, named_padding=named)
    }


def adaptive(*sizes: int) -> dict[str, Any]:
    return {"adaptive_windows": pb.AdaptiveWindows(output_sizes=sizes)}


def spec(
    mode: int = pb.MODE_MAX, windows: dict[str, Any] | None = None, **options: Any
) -> pb.PoolSpec:
    return pb.PoolSpec(mode=mode, **(sliding() if windows is None else windows), **options)


def forward(**changes: Any) -> pb.ForwardRequest:
    return changed(pb.ForwardRequest(spec=spec(), input=tensor()), changes)


def backward(**changes: Any) -> pb.BackwardRequest:
    request = pb.BackwardRequest(
        spec=spec(),
        input_shape=(1, 1, 4, 4),
        indices=tensor((1, 1, 2, 2), "uint8"),
        output_gradient=tensor((1, 1, 2, 2)),
    )
    return changed(request, changes)


def changed(message: Any, changes: dict[str, Any]) -> Any:
    """Replace fields of the message; None clears a field."""
    for name, value in changes.items():
        message.ClearField(name)
        if value is None:
            continue
        if hasattr(value, "CopyFrom"):
            getattr(message, name).CopyFrom(value)
        elif isinstance(value, tuple):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message
