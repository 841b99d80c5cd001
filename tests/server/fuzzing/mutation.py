"""Changes of requests: values of fields, number of entries, and tensors of the size of their shape.

Most changes of single bytes make a message that does not parse, or a tensor of the wrong length.
"""

from __future__ import annotations

import math
import random
from contextlib import suppress
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from pooling_server.oip.datatypes import DTYPES
from pooling_server.oip.models import MODELS
from pooling_wire.v1 import pooling_pb2 as pb

_SIZES = (0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 8, 16)
_LARGE = (-1, 127, 255, 256, 65535, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (1.0, 2.0, 1.5, 0.0, -1.0, 3.0, math.inf, math.nan, 1e300, 5e-324)
_ELEMENT_BYTES = dict(enumerate((0, 2, 2, 4, 8, 1, 1, 2, 2, 4, 4, 8)))  # by element type
_TEXTS = (
    *(*MODELS, *DTYPES),
    *("input", "output", "indices", "output_gradient", "input_gradient", "", "1"),
    *("2", "2,2", "0:1,1:0", "valid", "same_upper", "channels_last", "plane", "tensor", "split"),
    *("all", "ignore", "error", "inf", "1,1,4,4"),
)
_PARAMETERS = (
    *("kernel", "stride", "dilation", "padding", "adaptive_output", "ceil_mode", "global_window"),
    *("count_include_pad", "layout", "tie_policy", "nan_policy", "divisor_override", "norm_p"),
    *("index_format", "input_shape", "binary_data", "shared_memory_region"),
)


def mutated(message: Any, rng: random.Random) -> Any:
    """Change a message in place, and return it."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        with suppress(
            ValueError, TypeError, IndexError
        ):  # out of range, or a message without fields
            _change(message, rng)
    if rng.random() < 0.8:
        _fill_tensors(message, rng)
    return message


def mutated_json(text: bytes, class_: Any, rng: random.Random) -> bytes:
    """Return a changed request in JSON.

    Raises:
        json_format.ParseError: the text is no such request.
    """
    message = mutated(json_format.Parse(text, class_()), rng)
    return json_format.MessageToJson(message, indent=None).encode()


def _change(message: Any, rng: random.Random) -> None:
    field = rng.choice(message.DESCRIPTOR.fields)
    value, kind = getattr(message, field.name), field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        _change(value[rng.choice(_PARAMETERS)], rng)
    elif hasattr(value, "add"):
        _change_entries(value, lambda: _change(value.add(), rng), rng)
        if value:
            _change(rng.choice(value), rng)
    elif isinstance(value, Message):
        if message.HasField(field.name) and rng.random() < 0.1:
            message.ClearField(field.name)
        else:
            value.SetInParent()
            _change(value, rng)
    elif hasattr(value, "append"):
        _change_entries(value, lambda: value.append(_scalar(field, rng)), rng)
        if value:
            value[rng.randrange(len(value))] = _scalar(field, rng)
    else:
        setattr(message, field.name, _scalar(field, rng))


def _change_entries(values: Any, add: Any, rng: random.Random) -> None:
    chance = rng.random()
    if chance < 0.2:
        add()
    elif chance < 0.3 and values:
        del values[rng.randrange(len(values))]


def _scalar(field: Any, rng: random.Random) -> Any:
    if field.enum_type is not None:
        return rng.choice([*field.enum_type.values_by_number, 99])
    if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return rng.choice(_FLOATS)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.type == field.TYPE_BYTES:
        return rng.randbytes(rng.choice(_SIZES))
    if field.type == field.TYPE_STRING:
        return rng.choice(_TEXTS)
    return rng.choice(_LARGE if rng.random() < 0.1 else _SIZES)


def _fill_tensors(message: Any, rng: random.Random) -> None:
    """Give each tensor as many bytes as its shape takes."""
    if isinstance(message, pb.Tensor):
        size = _ELEMENT_BYTES.get(message.element_type, 1) * math.prod(message.shape)
        message.data = _resized(message.data, size, rng)
        return
    if hasattr(message, "raw_input_contents"):
        old = [*message.raw_input_contents]
        del message.raw_input_contents[:]
        for number, tensor in enumerate(message.inputs):
            dtype = DTYPES.get(tensor.datatype)
            size = math.prod(tensor.shape) * (dtype.itemsize if dtype else 1)
            data = old[number] if number < len(old) else b""
            message.raw_input_contents.append(_resized(data, size, rng))
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if hasattr(value, "add") else (value,):
            _fill_tensors(each, rng)


def _resized(data: bytes, size: int, rng: random.Random) -> bytes:
    if not 0 <= size <= 4096:
        return data
    data = data[:size] + rng.randbytes(max(0, size - len(data)))
    if data and rng.random() < 0.3:
        place = rng.randrange(len(data))
        data = data[:place] + rng.randbytes(1) + data[place + 1 :]
    return data
