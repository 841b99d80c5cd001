"""The predicted duration of calls: slow calls never run in the polling thread."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pooling_engine import BackwardCall, ForwardCall, PoolSpec
from pooling_server import ServerConfig
from pooling_server.serving.call_processor import CallProcessor, PreparedCall
from pooling_server.serving.duration import INLINE_BYTES, INLINE_US
from pooling_server.serving.servicer import _prepare_plan
from pooling_wire import BACKWARD, FORWARD
from pooling_wire.shared_memory import NO_REGIONS
from pooling_wire.v1 import pooling_pb2 as pb
from tests.server.support import work
from tests.support.requests import adaptive, forward, sliding, spec, tensor

MOST_LINES = 5_000  # executed Python lines; a loop over all windows of a message takes 200,000


@pytest.fixture(autouse=True, scope="module")
def loaded() -> None:
    """Load the backend and build the parsers, which the first call of a process does."""
    prepare_forward(ones(1, 1, 4), PoolSpec("max", 2)).answer(NO_REGIONS)


def prepare_forward(x: np.ndarray, layer: PoolSpec, has_indices: bool = False) -> PreparedCall:
    call = ForwardCall(x, layer, has_indices)
    processor = CallProcessor(ServerConfig(backend="numpy"))
    return processor.prepare(FORWARD, work(), FORWARD.encode_request(call))


def prepare_backward(gradient: np.ndarray, layer: PoolSpec, **given: Any) -> PreparedCall:
    call = BackwardCall(gradient, layer, **given)
    processor = CallProcessor(ServerConfig(backend="numpy"))
    return processor.prepare(BACKWARD, work(), BACKWARD.encode_request(call))


def ones(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape, dtype)


def lines_of(action: Callable[[], object]) -> int:
    """Return the number of Python lines that an action executes, as a measure of its work."""
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return lines


SLOW = {
    "adaptive windows of many kinds": lambda: prepare_forward(
        ones(1, 1, 29782, dtype="int32"), PoolSpec("sum", adaptive_output=29781)
    ),
    "shared ties of many kinds of windows": lambda: prepare_backward(
        ones(1, 1, 16877, dtype="float16"),
        PoolSpec("min", adaptive_output=16877, tie_policy="all"),
        input=ones(1, 1, 46814, dtype="float16"),
    ),
    "norms": lambda: prepare_backward(
        ones(1, 1, 32000), PoolSpec("lp", 9, 1, 4, norm_p=2.5), input=ones(1, 1, 32000)
    ),
    "a wide window": lambda: prepare_forward(ones(1, 1, 2000), PoolSpec("max", 1999, 1, 999)),
    "sums of many planes": lambda: prepare_forward(
        ones(34849, 1, 2, dtype="float16"), PoolSpec("average", global_window=True)
    ),
    "indices with a large table": lambda: prepare_backward(
        ones(1, 1, 32, 32),
        PoolSpec("max", 31, 1, 15),
        input_shape=(1, 1, 32, 32),
        indices=np.full((1, 1, 32, 32), 480, np.uint16),
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_calls_are_left_to_threads(name: str) -> None:
    assert SLOW[name]().predicted_us > INLINE_US


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("mode", ["max", "min", "average", "sum"])
def test_layers_on_125_kilobytes_run_in_the_polling_thread(
    mode: str, kernel: int, stride: int, padding: int
) -> None:
    call = prepare_forward(ones(1, 10, 56, 56), PoolSpec(mode, kernel, stride, padding))
    assert call.predicted_us <= INLINE_US


def test_an_empty_batch_takes_little_work() -> None:
    call = prepare_forward(ones(0, 1, 32749), PoolSpec("max", adaptive_output=32719))
    assert call.predicted_us > 0
    assert lines_of(lambda: call.answer(NO_REGIONS)) < MOST_LINES


EXTREME = {
    "axes": forward(spec=spec(windows=sliding(INLINE_BYTES // 5))),
    "adaptive sizes": forward(spec=spec(windows=adaptive(*[1] * (INLINE_BYTES - 1000)))),
    "sizes": forward(input=tensor(shape=(1,) * (INLINE_BYTES - 1000))),
}


@pytest.mark.parametrize("name", EXTREME)
def test_a_message_with_too_many_entries_is_rejected_with_little_work(name: str) -> None:
    message = EXTREME[name].SerializeToString()
    assert len(message) <= INLINE_BYTES
    processor = CallProcessor(ServerConfig(backend="numpy"))

    def rejected() -> None:
        with pytest.raises(ValueError, match=r"sizes|axes"):
            processor.prepare(FORWARD, work(), message)

    assert lines_of(rejected) < MOST_LINES


def test_extreme_plans_take_little_work() -> None:
    request = pb.GetPlanRequest(
        spec=spec(windows=adaptive(65519, 65521, 65497)),
        input_shape=(1, 1, 3, 4, 5),
        element_type=pb.ELEMENT_TYPE_UINT8,
    )
    message = request.SerializeToString()
    assert lines_of(lambda: _prepare_plan(work(), message, NO_REGIONS)) < MOST_LINES
