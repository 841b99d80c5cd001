"""Fields that several messages have: specs, tensors and locations of results."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from pooling_engine import InvalidSpecError, InvalidTensorError, PoolSpec
from pooling_wire.messages.specs import decode_spec
from pooling_wire.payloads.parsing import Parsed
from pooling_wire.payloads.tensors import decode_shared_tensor, decode_tensor
from pooling_wire.shared_memory.places import INDICES, RESULTS, Places, decode_place

Array = NDArray[Any]


def required_spec(request: Any) -> PoolSpec:
    """Return the spec of a request.

    Raises:
        InvalidSpecError: the spec is missing or invalid.
    """
    if not request.HasField("spec"):
        raise InvalidSpecError("spec is missing", field="spec")
    return decode_spec(request.spec)


def required_tensor(parsed: Parsed[Any], field: str) -> Array:
    """Return a tensor of a request, as a read-only view.

    Raises:
        InvalidTensorError: the tensor is missing or invalid.
        UnsupportedError: it is in shared memory, which this connection does not have.
    """
    if not parsed.message.HasField(field):
        raise InvalidTensorError(f"{field} is missing", field=field)
    return tensor(parsed, field)


def tensor(parsed: Parsed[Any], field: str) -> Array:
    """Return a tensor of a message, as a read-only view; empty if the field is not set.

    Raises:
        InvalidTensorError: the tensor is invalid.
        UnsupportedError: it is in shared memory, which this connection does not have.
    """
    message, payload = getattr(parsed.message, field), parsed.payloads.get(field)
    if not message.HasField("shared"):
        return decode_tensor(message, field, payload)
    array = decode_shared_tensor(message, field, payload, parsed.regions)
    # Indices are checked before they are used; the client could change them in between.
    return array.copy() if field == INDICES else array


def encode_places(type_: Any, places: Places) -> bytes:
    """Return the fields of a request that say where to write its results."""
    if not places:
        return b""
    fields = type_.DESCRIPTOR.fields_by_name
    named = {f"{name}_place": places[name].message() for name in RESULTS if name in places}
    here = {name: place for name, place in named.items() if name in fields}
    return type_(**here).SerializeToString() if here else b""


def decode_places(request: Any) -> Places:
    """Return where to write the results of a request."""
    return {
        name: decode_place(getattr(request, f"{name}_place"))
        for name in RESULTS
        if f"{name}_place" in request.DESCRIPTOR.fields_by_name
        and request.HasField(f"{name}_place")
    }
