"""Messages like one before: they differ in nothing but the elements of their tensors.

Training sends the same few layers again and again. All that such a message says beside its elements
is known after the first, and to compare those bytes is a tenth of the work of decoding them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from pooling_wire.payloads.parsing import Buffer, payload_spans

T = TypeVar("T")
Array = NDArray[Any]
# How to make a call or a result like one that was decoded, of other tensors, by their names.
Likeness = tuple[Callable[..., T], Mapping[str, Array | None]]

MAX_REST_BYTES = 512  # of a message without its elements; ours take some 60
MAX_FORMS_OF_A_SIZE = 4
MAX_SIZES = 128


class _Tensor(NamedTuple):
    name: str
    begin: int  # of its elements, in the message
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class _Form(NamedTuple, Generic[T]):
    rest: tuple[
        tuple[int, int, bytes], ...
    ]  # what is between the elements, and from where to where
    tensors: tuple[_Tensor, ...]
    make: Callable[..., T]


class Forms(Generic[T]):
    """What the messages of one type said that were decoded last. For many threads at once.

    Where the elements are depends on the other bytes alone. So a message of the same size with the
    same other bytes has its elements in the same places, and says the same of them.

    Args:
        type_: the type of the messages.
        likeness: of what was decoded from one; None if others cannot be like it.
    """

    def __init__(self, type_: type[Message], likeness: Callable[[T], Likeness[T] | None]) -> None:
        self._type, self._likeness = type_, likeness
        self._by_size: dict[int, tuple[_Form[T], ...]] = {}

    def decoded(self, data: Buffer, decode: Callable[[], T]) -> T:
        """What a message says: like one before, or else decoded and kept."""
        known = self.find(data, 0, len(data))
        if known is None:
            known = decode()
            self.keep(data, 0, len(data), known)
        return known

    def find(self, data: Buffer, begin: int, end: int) -> T | None:
        """What the message from `begin` to `end` says, if one before was like it.

        Its tensors are read-only views of `data`.
        """
        if not isinstance(data, bytes):
            data = memoryview(data).toreadonly().cast("B")
        for form in self._by_size.get(end - begin, ()):
            for start, stop, rest in form.rest:
                if data[begin + start : begin + stop] != rest:
                    break
            else:
                arrays = {}
                for name, start, dtype, shape in form.tensors:
                    arrays[name] = np.ndarray(shape, dtype, data, begin + start)
                return form.make(**arrays)
        return None

    def keep(self, data: Buffer, begin: int, end: int, decoded: T) -> None:
        """Notes what the message from `begin` to `end` was decoded to."""
        likeness = self._likeness(decoded)
        spans = None if likeness is None else payload_spans(self._type, data, begin, end)
        if likeness is None or spans is None:
            return
        make, arrays = likeness
        tensors = {name: array for name, array in arrays.items() if array is not None}
        if spans.keys() != tensors.keys():  # one is empty, or in shared memory
            return
        form = _Form(
            _between(data, begin, end, sorted(spans.values())),
            tuple(
                _Tensor(name, spans[name][0] - begin, array.dtype, array.shape)
                for name, array in tensors.items()
            ),
            make,
        )
        if sum(stop - start for start, stop, _ in form.rest) > MAX_REST_BYTES:
            return
        if len(self._by_size) >= MAX_SIZES:
            self._by_size.clear()
        others = self._by_size.get(end - begin, ())
        self._by_size[end - begin] = (form, *others[: MAX_FORMS_OF_A_SIZE - 1])


def _between(
    data: Buffer, begin: int, end: int, spans: list[tuple[int, int]]
) -> tuple[tuple[int, int, bytes], ...]:
    """The bytes that are in no span, and from where to where, counted from `begin`."""
    starts = [begin, *(stop for _, stop in spans)]
    stops = [*(start for start, _ in spans), end]
    return tuple(
        (start - begin, stop - begin, bytes(data[start:stop]))
        for start, stop in zip(starts, stops, strict=True)
        if start < stop
    )
