"""A call in shared memory: its requests name locations instead of tensors."""

from __future__ import annotations

from typing import Generic

from pooling_client._calls.base import Array, Call, PreparedCall, Result, checked_reply
from pooling_client._copies import copy_into
from pooling_client._cutting.chunks import Chunk, whole_call
from pooling_client._limits import RequestLimits
from pooling_client._shared_memory import SharedArrays
from pooling_engine import ArraySpec, InvalidTensorError
from pooling_wire.shared_memory import INDICES


class SharedCall(Generic[Call, Result]):
    """A call whose tensors and results lie in shared memory.

    Args:
        prepared: the call.
        arrays: shared memory.
        chunks: one chunk of everything, or chunks of whole planes.
        tensors: the tensors of the request in shared memory, by name.
        results: arrays in shared memory for the results, by name.
    """

    def __init__(
        self,
        prepared: PreparedCall[Call, Result],
        arrays: SharedArrays,
        chunks: list[Chunk],
        tensors: dict[str, Array],
        results: dict[str, Array],
    ) -> None:
        self._prepared = prepared
        self.arrays = arrays
        self._chunks = chunks
        self._tensors = tensors
        self._results = results

    def requests(self) -> list[bytes]:
        """Encode the requests, one for each chunk."""
        return [self._request(chunk) for chunk in self._chunks]

    def _request(self, chunk: Chunk) -> bytes:
        named = self._tensors | self._results
        parts = {name: array[chunk.box(name)] for name, array in named.items()}
        places = {}
        for name, part in parts.items():
            place = self.arrays.place_of(part)
            assert place is not None, name
            places[name] = place
        call = self._prepared.with_tensors(chunk, parts)
        return self._prepared.method.encode_request(call, places)

    def detach(self, *, copies: bool) -> None:
        """Separate the results from the server, which may still write them.

        Args:
            copies: the caller gets the results; otherwise, only `out` has to be kept.
        """
        for array in self._results.values():
            self.arrays.detach(array, copies=copies or array is self._prepared.out)

    def result(self, reply: bytes, id_: int | None = None) -> Result | None:
        """Return the result of the call.

        Args:
            reply: the reply to the last request.
            id_: number of the item, if the call was sent as an item of a stream.

        Returns:
            The result; None if another call has detached the memory of the results meanwhile.

        Raises:
            PoolingError: the item failed, or the reply is malformed.
        """
        method = self._prepared.method
        try:
            if id_ is None:
                decoded = method.decode_response(reply, self.arrays)
            else:
                decoded = checked_reply(method.decode_reply(reply, self.arrays), id_)
        except InvalidTensorError:
            if self._is_attached:
                raise
            return None
        result = self._prepared.collected(self._results, decoded)
        return result if self._is_attached else None

    @property
    def _is_attached(self) -> bool:
        """True if the results lie in memory that the server still shares."""
        return all(self.arrays.place_of(array) is not None for array in self._results.values())


def share(
    prepared: PreparedCall[Call, Result], arrays: SharedArrays, limits: RequestLimits
) -> SharedCall[Call, Result] | None:
    """Bring a call into shared memory.

    Returns:
        The call in shared memory; None if there is not enough, or if the call is too large and
        cannot be split into whole planes.
    """
    chunks = _chunks(prepared, limits)
    if not chunks:
        return None
    specs = dict(prepared.call.result_specs)
    if prepared.has_positions:
        specs.pop(INDICES, None)  # they are sent: the server has no locations for them
    results, tensors = {}, {}
    for name, spec in specs.items():
        result = _result_array(arrays, None if name == INDICES else prepared.out, spec)
        if result is None:
            return None
        results[name] = result
    for name, tensor in prepared.tensors().items():
        shared = shared_copy(arrays, tensor)
        if shared is None:
            return None
        tensors[name] = shared
    return SharedCall(prepared, arrays, chunks, tensors, results)


def _chunks(prepared: PreparedCall[Call, Result], limits: RequestLimits) -> list[Chunk]:
    """Return chunks of whole planes; only their results are contiguous in those of the call."""
    spec, plan = prepared.call.spec, prepared.call.plan
    if max(plan.input_bytes, plan.output_bytes) <= limits.tensor_bytes:
        return [whole_call(spec, plan)]
    chunks = list(prepared.split(limits.tensor_bytes, limits.tensor_bytes))
    is_possible = not prepared.has_positions and all(chunk.spec is spec for chunk in chunks)
    return chunks if is_possible else []


def _result_array(arrays: SharedArrays, out: Array | None, spec: ArraySpec) -> Array | None:
    """Return an array for a result: `out` if it is in shared memory, or a new array."""
    if out is not None and arrays.place_of(out) is not None:
        return out
    return arrays.empty(*spec)


def shared_copy(arrays: SharedArrays, tensor: Array) -> Array | None:
    """Return a tensor in shared memory: the array of the caller, or a copy."""
    if arrays.place_of(tensor) is not None:
        return tensor
    copy = arrays.empty(tensor.shape, tensor.dtype)
    if copy is not None:
        copy_into(copy, tensor)
    return copy
