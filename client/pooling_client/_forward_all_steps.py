"""Steps of a forward call of several layers: see `_call_steps`."""

from __future__ import annotations

from functools import partial
from typing import cast

from pooling_client import _limits
from pooling_client._call_steps import call_steps, fetch_limits, in_one_message
from pooling_client._calls.base import Array
from pooling_client._calls.forward import PreparedForward
from pooling_client._calls.forward_all import PreparedForwardAll, Results
from pooling_client._calls.shared import shared_copy
from pooling_client._shared_memory import SHARED_BYTES
from pooling_client._steps import Run, Session, Steps, Stream, left_s
from pooling_engine import ForwardAllCall, ForwardCall, TensorTooLargeError


def forward_all_steps(call: ForwardAllCall, session: Session, deadline: float) -> Steps[Results]:
    """Yield the steps of a call of several layers and return its results.

    The input is sent once, in one message or in parts of the batch. There is one call for each
    layer instead if the server ignores further layers, if one batch item exceeds the limits, or in
    shared memory, where the calls share the input.

    Args:
        call: the call.
        session: state of the client.
        deadline: time of `time.monotonic` at which the call fails.
    """
    prepared = PreparedForwardAll(call)
    total, layers = prepared.total_bytes, call.calls
    if total >= SHARED_BYTES and session.shared_memory.is_possible:
        shared: Array | None = yield Run(partial(_in_shared_memory, call, session))
        if shared is not None:
            layers = tuple(
                ForwardCall(shared, each.spec, each.return_indices, each.index_format)
                for each in layers
            )
            return (yield from _one_by_one(layers, session, deadline))
    if session.knows_layers and len(layers) > 1:
        try:
            results = yield from _together(prepared, session, deadline)
        except TensorTooLargeError:  # separate calls have smaller replies
            results = None
        if results is not None:
            return results
    return (yield from _one_by_one(layers, session, deadline))


def _in_shared_memory(call: ForwardAllCall, session: Session) -> Array | None:
    arrays = session.shared_memory.arrays()
    return None if arrays is None else shared_copy(arrays, call.input)


def _together(
    prepared: PreparedForwardAll, session: Session, deadline: float
) -> Steps[Results | None]:
    """Send the input once; return None if that is impossible."""
    if prepared.total_bytes > _limits.STREAM_BYTES and session.limits is _limits.UNKNOWN:
        yield from fetch_limits(session, deadline)
    if not session.limits.needs_chunks(prepared.total_bytes):
        results = yield from in_one_message(prepared, session, deadline)
    else:
        parts = prepared.in_parts(session.limits)
        if parts is None:
            return None
        method, window = prepared.method.stream_path, _limits.CHUNK_WINDOW
        yield Stream(method, parts.requests(), parts.receive, window, left_s(deadline))
        results = parts.result()
    session.knows_layers = results is not None
    return results


def _one_by_one(
    layers: tuple[ForwardCall, ...], session: Session, deadline: float
) -> Steps[Results]:
    results = []
    for layer in layers:
        result = yield from call_steps(PreparedForward(layer), session, None, deadline)
        results.append(result)
    return cast(Results, tuple(results))
