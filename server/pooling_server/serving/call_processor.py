"""Processing of pooling calls: decode, check limits, borrow result buffers, compute, encode."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import pooling_engine
from pooling_engine import BackwardCall, DeadlineError, PoolingError, UnavailableError
from pooling_server.config import ServerConfig
from pooling_server.serving import duration
from pooling_server.serving.arena import Arena, Loan
from pooling_server.serving.error_replies import error_reply
from pooling_server.serving.limits import check_message_size, check_plan_limits
from pooling_wire import Method
from pooling_wire.shared_memory import NO_PLACES, NO_REGIONS, Placed, Regions, array_at


class PreparedCall(NamedTuple):
    """A decoded request.

    Attributes:
        predicted_us: upper bound of the duration in microseconds.
        answer: computes the call and returns the serialized response; its argument are the regions
            of shared memory that results may be written to.
    """

    predicted_us: float
    answer: Callable[[Regions], bytes]


class Item(NamedTuple):
    """A stream item as it was received.

    Attributes:
        message: the serialized item.
        received_at: time of `time.monotonic`.
        error: why the item is not to be computed; None if it is.
    """

    message: bytes
    received_at: float
    error: PoolingError | None = None


class CallProcessor:
    """Stateless processing of one request or stream item, the same for every method.

    Args:
        config: limits and backend.

    Attributes:
        arena: reusable buffers for results.
        backend: name of the backend for the next calls.
        never_waits: True if that backend computes on the CPU and never waits for a kernel.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.arena = Arena(config.arena_bytes)
        self.backend = config.backend
        self.never_waits = False

    def prepare(
        self, method: Method[Any, Any], request: bytes, regions: Regions = NO_REGIONS
    ) -> PreparedCall:
        """Decode a request and predict its duration.

        Args:
            method: row of the method table.
            request: serialized request; its tensors may be in shared memory.
            regions: regions of shared memory that the client may use.

        Raises:
            PoolingError: the request is invalid or exceeds a limit.
        """
        try:
            placed = method.decode_request(request, regions)
        except PoolingError as error:
            self._check_limits_of_invalid(method, error)
            raise
        answer = partial(self._answer, method, placed)
        return PreparedCall(_predicted_us(placed.call), answer)

    def prepare_item(self, method: Method[Any, Any], item: Item) -> PreparedCall:
        """Decode a stream item and predict its duration.

        The answer to an invalid or expired item is its error. `answer` ignores its argument,
        because items have no shared memory. It raises UnavailableError if the device is lost; the
        stream has to end then, so that the client continues on another server.

        Args:
            method: row of the method table.
            item: the item.
        """
        id_ = 0
        try:
            id_, call, timeout_us = method.decode_item(item.message)
            if item.error is not None:
                raise item.error
            if isinstance(call, PoolingError):
                self._check_limits_of_invalid(method, call)
                raise call
            check_message_size(item.message, self._config)
            deadline = item.received_at + timeout_us / 1e6 if timeout_us else math.inf
            answer = partial(self._answer_item, method, id_, call, deadline)
            return PreparedCall(_predicted_us(call), answer)
        except Exception as error:
            reply = method.encode_reply(id_, error_reply(error))
            return PreparedCall(-math.inf, lambda _: reply)

    def is_small(self, prepared: PreparedCall) -> bool:
        """Return True if a call may be answered in the polling thread."""
        return prepared.predicted_us <= duration.INLINE_US and self.never_waits

    def _answer(self, method: Method[Any, Any], placed: Placed[Any], regions: Regions) -> bytes:
        with self.arena.loan() as loan:
            result = self._compute(method, placed, loan, regions)
            return method.encode_response(result, placed.places)

    def _answer_item(
        self, method: Method[Any, Any], id_: int, call: Any, deadline: float, _: Regions
    ) -> bytes:
        try:
            if monotonic() >= deadline:
                raise DeadlineError("the timeout of the item passed before it could be computed")
            with self.arena.loan() as loan:
                result = self._compute(method, Placed(call, NO_PLACES), loan, NO_REGIONS)
                return method.encode_reply(id_, result)
        except UnavailableError:
            raise
        except Exception as error:
            return method.encode_reply(id_, error_reply(error))

    def _compute(
        self, method: Method[Any, Any], placed: Placed[Any], loan: Loan, regions: Regions
    ) -> Any:
        """Compute a call into the client's locations or, without one, into borrowed buffers."""
        call, places = placed
        specs = call.result_specs
        reply_bytes = sum(spec.nbytes for name, spec in specs.items() if name not in places)
        check_plan_limits(call.plan, reply_bytes, method.size_field, self._config)
        results = {
            name: array_at(places[name], spec.shape, spec.dtype, regions, f"{name}_place")
            if name in places
            else loan.array(spec.shape, spec.dtype)
            for name, spec in specs.items()
        }
        return pooling_engine.run(call, results, backend=self.backend)

    def _check_limits_of_invalid(self, method: Method[Any, Any], error: PoolingError) -> None:
        """Check the limits of a call that was planned, but rejected by its other checks.

        Such a call is reported as too large, because the client must fix that first.

        Raises:
            TensorTooLargeError: the call also exceeds a limit.
        """
        if error.plan is not None:
            check_plan_limits(error.plan, 0, method.size_field, self._config)


def _predicted_us(call: Any) -> float:
    is_backward = isinstance(call, BackwardCall)
    has_indices = call.indices is not None if is_backward else call.return_indices
    return duration.predicted_us(call.plan, is_backward=is_backward, has_indices=has_indices)
