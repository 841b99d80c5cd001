"""Vectors as JSON records: requests in protobuf's JSON form, reply tensors as hexadecimal bytes.

`docs/vectors.md` explains the format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import json_format

from pooling_wire.v1 import pooling_pb2 as pb
from tests.support import cases

Record = dict[str, Any]
_DIRECT = {"count_include_pad", "divisor_override", "norm_p"}
_ENUMS = {
    "layout": "LAYOUT",
    "tie_policy": "TIE_POLICY",
    "nan_policy": "NAN_POLICY",
}


def spec_message(options: Record, axes: int) -> pb.PoolSpec:
    """Return the message for the arguments of a `PoolSpec`."""
    message = pb.PoolSpec(mode=pb.Mode.Value(f"MODE_{options['mode'].upper()}"))
    for name in _DIRECT & options.keys():
        setattr(message, name, options[name])
    for name, prefix in _ENUMS.items():
        if name in options:
            value = getattr(pb, f"{prefix}_{options[name].upper()}")
            setattr(message, name, value)
    if options.get("global_window"):
        message.global_window.SetInParent()
    elif "adaptive_output" in options:
        sizes = cases.per_axis(options["adaptive_output"], axes)
        message.adaptive_windows.output_sizes.extend(sizes)
    else:
        message.sliding_windows.CopyFrom(_sliding(options, axes))
    return message


def _sliding(options: Record, axes: int) -> pb.SlidingWindows:
    padding = options.get("padding", 0)
    windows = pb.SlidingWindows(ceil_mode=options.get("ceil_mode", False))
    if isinstance(padding, str):
        windows.named_padding = getattr(pb, f"NAMED_PADDING_{padding.upper()}")
        padding = 0
    pads = cases.per_axis(padding, axes)
    for axis, kernel in enumerate(cases.per_axis(options["kernel"], axes)):
        window = windows.axes.add(kernel=kernel)
        for name in ("stride", "dilation"):
            if name in options:
                setattr(window, name, cases.per_axis(options[name], axes)[axis])
        pad = pads[axis]
        window.padding_before, window.padding_after = pad if isinstance(pad, tuple) else (pad, pad)
    return windows


def tensor_message(array: np.ndarray) -> pb.Tensor:
    """Return the message of an array."""
    return pb.Tensor(
        element_type=_element_type(array),
        shape=array.shape,
        data=np.ascontiguousarray(array).tobytes(),
    )


def tensor_record(array: np.ndarray) -> Record:
    """Return the record of an expected tensor."""
    return {
        "elementType": pb.ElementType.Name(_element_type(array)),
        "shape": list(array.shape),
        "hex": np.ascontiguousarray(array).tobytes().hex(),
    }


def request_record(message: Any) -> Record:
    """Return a request in protobuf's JSON form."""
    return json_format.MessageToDict(message)


def _element_type(array: np.ndarray) -> int:
    return pb.ElementType.Value(f"ELEMENT_TYPE_{array.dtype.name.upper()}")
