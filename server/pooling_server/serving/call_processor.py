"""Processing of pooling calls: decode, check limits, borrow result buffers, compute, encode."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

import pooling_engine
from pooling_engine import (
    BackwardCall,
    DeadlineError,
    ForwardAllCall,
    PermissionDeniedError,
    PoolingError,
    UnavailableError,
)
from pooling_server.config import ServerConfig
from pooling_server.serving import duration
from pooling_server.serving.arena import Arena, Loan
from pooling_server.serving.error_replies import error_reply
from pooling_server.serving.limits import check_message_size, check_plan_limits
from pooling_server.serving.rpcs import Work
from pooling_server.serving.small_regions import LargeRegionError
from pooling_wire.shared_memory import (
    NO_PLACES,
    NO_REGIONS,
    Placed,
    Places,
    Regions,
    array_at,
)


class CallCodec(Protocol):
    """Codec of a method, as `pooling_wire.Method`; other protocols have one per request."""

    @property
    def size_field(self) -> str:
        """Argument that determines the sizes of a call."""

    def decode_request(self, data: bytes, regions: Regions) -> Placed[Any]:
        """Return the call in a request."""

    def decode_item(self, data: bytes, regions: Regions) -> tuple[int, Any, int, Places]:
        """Return the id of a stream item, its call or error, its timeout in us, and its places."""

    def encode_response(self, result: Any, places: Places) -> bytes:
        """Return the bytes of a reply."""

    def encode_reply(self, id_: int, result: Any, places: Places) -> bytes:
        """Return the bytes of the reply to a stream item: a result or an error."""


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
        regions: regions of shared memory that the client may use.
    """

    message: bytes
    received_at: float
    error: PoolingError | None = None
    regions: Regions = NO_REGIONS


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
        self,
        method: CallCodec,
        work: Work,
        request: bytes,
        regions: Regions = NO_REGIONS,
    ) -> PreparedCall:
        """Decode a request and predict its duration.

        Args:
            method: row of the method table, or the codec of another protocol.
            work: the call, which was admitted.
            request: serialized request; its tensors may be in shared memory.
            regions: regions of shared memory that the client may use.

        Raises:
            PoolingError: the request is invalid or exceeds a limit.
        """
        start_s = time.perf_counter()
        try:
            placed = method.decode_request(request, regions)
        except PoolingError as error:
            self._check_limits_of_invalid(method, error)
            raise
        work.mode = placed.call.plan.mode
        work.decoded(start_s)
        answer = partial(self._answer, method, work, placed)
        return PreparedCall(_predicted_us(placed.call), answer)

    def prepare_item(self, method: CallCodec, work: Work, item: Item) -> PreparedCall:
        """Decode a stream item and predict its duration.

        The answer to an invalid or expired item is its error. `answer` raises UnavailableError if
        the device is lost; the stream has to end then, so that the client continues on another
        server.

        Args:
            method: row of the method table, or the codec of another protocol.
            work: the item, for authorization, times and metrics.
            item: the item.

        Raises:
            PermissionDeniedError: the token of the client is no longer valid.
            LargeRegionError: the lookup of a region raised it.
        """
        id_ = 0
        start_s = time.perf_counter()
        try:
            id_, call, timeout_us, places = method.decode_item(item.message, item.regions)
            work.authorize()
            if item.error is not None:
                raise item.error
            if isinstance(call, PoolingError):
                self._check_limits_of_invalid(method, call)
                raise call
            check_message_size(item.message, self._config)
            work.mode = call.plan.mode
            work.decoded(start_s)
            deadline = item.received_at + timeout_us / 1e6 if timeout_us else math.inf
            placed = Placed(call, places)
            answer = partial(self._answer_item, method, work, id_, placed, deadline)
            return PreparedCall(_predicted_us(call), answer)
        except (PermissionDeniedError, LargeRegionError):
            raise
        except Exception as error:
            reply = self._error_of_item(method, work, id_, error)
            return PreparedCall(-math.inf, lambda _: reply)

    def is_small(self, prepared: PreparedCall) -> bool:
        """Return True if a call may be answered in the polling thread."""
        return prepared.predicted_us <= duration.INLINE_US and self.never_waits

    def _answer(
        self, method: CallCodec, work: Work, placed: Placed[Any], regions: Regions
    ) -> bytes:
        start_s = time.perf_counter()
        with self.arena.loan() as loan:
            result = self._compute(method, work, placed, loan, regions)
            reply = method.encode_response(result, placed.places)
        work.computed(start_s)
        return reply

    def _answer_item(
        self,
        method: CallCodec,
        work: Work,
        id_: int,
        placed: Placed[Any],
        deadline: float,
        regions: Regions,
    ) -> bytes:
        start_s = time.perf_counter()
        try:
            if monotonic() >= deadline:
                raise DeadlineError("the timeout of the item passed before it could be computed")
            work.reserve(work.nbytes)
            with self.arena.loan() as loan:
                result = self._compute(method, work, placed, loan, regions)
                reply = method.encode_reply(id_, result, placed.places)
        except UnavailableError:
            raise
        except Exception as error:
            return self._error_of_item(method, work, id_, error)
        finally:
            work.release()
        work.computed(start_s)
        work.succeed(len(reply))
        return reply

    def _error_of_item(
        self, method: CallCodec, work: Work, id_: int, exception: Exception
    ) -> bytes:
        error = error_reply(exception, work.rpc.request_id)
        work.release()
        work.fail(error)
        return method.encode_reply(id_, error, NO_PLACES)

    def _compute(
        self,
        method: CallCodec,
        work: Work,
        placed: Placed[Any],
        loan: Loan,
        regions: Regions,
    ) -> Any:
        """Compute a call into the client's locations or, without one, into borrowed buffers."""
        call, places = placed
        specs = call.result_specs
        reply_bytes = 0
        for name, spec in specs.items():
            if name not in places:
                reply_bytes += spec.nbytes
        plans = [each.plan for each in _layers(call)]
        check_plan_limits(plans, reply_bytes, method.size_field, self._config)
        work.reserve(2 * reply_bytes)  # the results, and the reply that contains copies of them
        results = {
            name: array_at(places[name], spec.shape, spec.dtype, regions, f"{name}_place")
            if name in places
            else loan.array(spec.shape, spec.dtype)
            for name, spec in specs.items()
        }
        return pooling_engine.run(call, results, backend=self.backend)

    def _check_limits_of_invalid(self, method: CallCodec, error: PoolingError) -> None:
        """Check the limits of a call that was planned, but rejected by its other checks.

        Such a call is reported as too large, because the client must fix that first.

        Raises:
            TensorTooLargeError: the call also exceeds a limit.
        """
        if error.plan is not None:
            check_plan_limits([error.plan], 0, method.size_field, self._config)


def _layers(call: Any) -> tuple[Any, ...]:
    """Return the calls of the layers of a call."""
    return call.calls if isinstance(call, ForwardAllCall) else (call,)


def _predicted_us(call: Any) -> float:
    return sum(map(_predicted_us_of_layer, _layers(call)))


def _predicted_us_of_layer(call: Any) -> float:
    is_backward = isinstance(call, BackwardCall)
    has_indices = call.indices is not None if is_backward else call.return_indices
    return duration.predicted_us(call.plan, is_backward=is_backward, has_indices=has_indices)
