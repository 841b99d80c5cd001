"""Host arrays in chunks through staging buffers, on the fake CuPy."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import pooling_engine
from pooling_engine import (
    DeviceMemoryError,
    InvalidTensorError,
    PoolSpec,
    backward,
    forward,
)
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyStagingBuffer
from pooling_engine.backends.cupy_backend.planning.chunks import ChunkLayout, LaunchStep
from pooling_engine.backends.cupy_backend.planning.launches import Launch, forward_launch
from pooling_engine.backends.cupy_backend.transfers import staging
from pooling_engine.backends.cupy_backend.transfers.buffers import BUFFERS_PER_CALL
from pooling_engine.plans.plan import PoolPlan
from tests.gpu.support import KINDS, Events, UseBackend
from tests.support import cases, oracle, pairs, palettes
from tests.support.waiting import LIMIT_S

SHAPE = (3, 7, 9, 8)
MANY = (1, 40, 16, 16)  # planes for several chunks
BUFFER = 8 << 10  # bytes: some planes of either shape
MAX = PoolSpec("max", 2)


def assert_right(x: np.ndarray, spec: PoolSpec = MAX) -> None:
    """Check that the forward pass is bit-identical to NumPy's."""
    ours, theirs = (forward(x, spec, backend=name).output for name in ("cupy", "numpy"))
    oracle.assert_same_bits(ours, theirs)


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("options", KINDS, ids=cases.name_of)
def test_chunks_are_bit_identical_to_one_call(
    use_backend: UseBackend, events: Events, options: dict[str, Any], dtype: np.dtype[Any]
) -> None:
    nbytes = (1 + dtype.itemsize) << 10  # for some planes; channels last, for one item
    spec, x = PoolSpec(**options), cases.to_layout(options, cases.normal(SHAPE, dtype))
    use_backend(nbytes)
    events.clear()
    staged = forward(x, spec, backend="cupy").output
    assert len({stream for stream, _ in events}) > 1, "several chunks"
    use_backend(0)
    oracle.assert_same_bits(staged, forward(x, spec, backend="cupy").output)
    use_backend(nbytes)
    pairs.assert_same_calls("cupy", options, cases.normal(SHAPE, dtype), cases.normal, 1)


@pytest.mark.parametrize("seed", range(8))
def test_streams_that_run_at_random_times(
    use_backend: UseBackend, cuda: ModuleType, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(cuda, "CHANCE", random.Random(seed))
    use_backend(3 << 10)
    options = {"mode": "max", "kernel": 2, "nan_policy": "error"}
    pairs.assert_same_calls("cupy", options, cases.normal((1, 31, 14, 14)), cases.normal, seed)


@pytest.mark.parametrize("planes", [1, 2, 3, 4, 5, 6, 7, 11, 12, 13])
def test_any_number_of_chunks(use_backend: UseBackend, planes: int) -> None:
    use_backend(3 << 10)  # room for three planes
    pairs.assert_same_calls(
        "cupy", {"mode": "max", "kernel": 2}, cases.normal((1, planes, 14, 14)), cases.normal, 1
    )


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 1, 8, 8)])
def test_an_empty_batch(use_backend: UseBackend, shape: tuple[int, ...]) -> None:
    use_backend(BUFFER)
    x = np.zeros(shape, np.float32)
    assert forward(x, MAX, backend="cupy").output.shape == (*shape[:2], 4, 4)


def test_buffers_overlap(use_backend: UseBackend, events: Events) -> None:
    use_backend(BUFFER)
    x = np.zeros(MANY, np.float32)
    forward(x, MAX, backend="cupy")  # allocates the buffers
    events.clear()
    forward(x, MAX, backend="cupy")
    first = [stream for stream, _ in events[:9:3]]
    assert len(set(first)) == BUFFERS_PER_CALL, "chunks that begin before the first wait"
    chunk = ["upload", "launch", "download"]
    assert [what for _, what in events[:10]] == [*chunk, *chunk, *chunk, "wait"]
    for stream in first:
        own = [what for each, what in events if each == stream]
        assert own == [*chunk, "wait"] * (len(own) // 4), "one wait per chunk"


def test_a_small_call_waits_once_and_allocates_nothing(
    use_backend: UseBackend,
    events: Events,
    cuda: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_backend(staging.BUFFER_BYTES)
    x = cases.normal(SHAPE)
    output, indices = forward(x, MAX, return_indices=True, backend="cupy")
    monkeypatch.setattr(cuda.MEMORY, "take", None)  # any allocation fails
    calls: tuple[Callable[[], object], ...] = (
        lambda: forward(x, MAX, return_indices=True, backend="cupy"),
        lambda: backward(output, MAX, indices=indices, input_shape=SHAPE, backend="cupy"),
    )
    for call in calls:
        events.clear()
        call()
        kinds = [what for what, _ in itertools.groupby(what for _, what in events)]
        assert kinds == ["upload", "launch", "download", "wait"]
        assert [what for _, what in events].count("upload") == 1


def twice(plan: PoolPlan, is_aligned: bool = True) -> list[LaunchStep]:
    """Return two launches: the maxima, and the maximum of each of them alone."""
    again = pooling_engine.plan(PoolSpec("max", 1), plan.output_shape, plan.dtype)
    first, second = (forward_launch(each, False, is_aligned) for each in (plan, again))
    assert first is not None
    assert second is not None
    return [
        LaunchStep(first, ("x", "middle", "indices", "null")),
        LaunchStep(second, ("middle", "y", "indices", "null")),
    ]


@pytest.mark.parametrize("buffer_bytes", [0, BUFFER, staging.BUFFER_BYTES])
def test_a_kernel_reads_the_scratch_array_of_another(
    use_backend: UseBackend, buffer_bytes: int
) -> None:
    backend = use_backend(buffer_bytes)
    x, plan = cases.normal(SHAPE), pooling_engine.plan(MAX, SHAPE, "float32")
    output = np.empty(plan.output_shape, np.float32)
    scratch = {"middle": output.dtype, "wide": np.dtype(np.float64)}
    assert not backend.run_steps(plan, twice, {"x": x}, {"y": output}, scratch)
    oracle.assert_same_bits(output, forward(x, MAX, backend="numpy").output)


def test_scratch_arrays_are_not_copied(
    use_backend: UseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = use_backend(staging.BUFFER_BYTES)
    moved: list[int] = []
    for name in ("upload", "download"):
        copy = getattr(CupyStagingBuffer, name)

        def counted(*arguments: Any, copy: Callable[..., None] = copy) -> None:
            moved.append(arguments[3])
            copy(*arguments)

        monkeypatch.setattr(CupyStagingBuffer, name, counted)
    x, plan = cases.normal(SHAPE), pooling_engine.plan(MAX, SHAPE, "float32")
    output = forward(x, MAX, backend="cupy").output
    backend.run_steps(plan, twice, {"x": x}, {"y": output}, {"middle": output.dtype})
    assert len(moved) == 4
    assert moved[:2] == moved[2:], "as without a scratch array"


def test_the_arrays_of_a_chunk_are_adjacent_and_fit_in_the_buffer() -> None:
    plan = pooling_engine.plan(MAX, SHAPE, "float32")
    nbytes = {"x": plan.input_bytes}, {"y": plan.output_bytes}
    layout = ChunkLayout(plan, *nbytes, {"wide": np.dtype(np.float64)}, ())
    names, outputs = ("x", "flag", "y", "wide"), 4 * 4
    assert layout.plane_bytes == 4 * 9 * 8 + 4 * outputs + 8 * outputs
    for size in range(1000, 20_000, 100):
        planes = layout.planes_within(size)
        chunk = layout.chunk(planes, lambda plan: [LaunchStep(Launch("", "", 0, ()), names)])
        ((_, (x, flag, y, wide)),) = chunk.launches
        assert (chunk.upload, chunk.download) == ((x, flag + 4), (flag, y + 4 * outputs * planes))
        assert x + plan.input_bytes // plan.outer * planes <= flag
        assert chunk.download[1] <= wide <= size - 8 * outputs * planes


def test_a_buffer_computes_on_its_own_device(use_backend: UseBackend, cuda: ModuleType) -> None:
    use_backend(BUFFER)
    x = cases.normal(SHAPE)
    expected = forward(x, MAX, backend="cupy").output
    with cuda.Device(1):
        oracle.assert_same_bits(forward(x, MAX, backend="cupy").output, expected)


def test_the_fake_detects_a_missing_wait(
    use_backend: UseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_backend(BUFFER)
    x = cases.normal(MANY)
    expected = forward(x, MAX, backend="numpy").output
    monkeypatch.setattr(CupyStagingBuffer, "wait", lambda self: None)
    assert not np.array_equal(forward(x, MAX, backend="cupy").output, expected)


def test_the_fake_detects_a_write_before_the_upload(use_backend: UseBackend) -> None:
    buffer = use_backend(BUFFER).device.staging_buffer(BUFFER)
    buffer.upload(buffer.host_address, buffer.device_address, 100)
    buffer.host[99] += 1
    with pytest.raises(AssertionError, match="written before it was uploaded"):
        buffer.wait()


def test_large_calls_leave_buffers_to_small_ones(use_backend: UseBackend) -> None:
    borrow = use_backend(BUFFER).staging.buffers.borrow
    with borrow(3) as first, borrow(3) as second, borrow(3) as third:
        assert [len(buffers) for buffers in (first, second, third)] == [3, 3, 1]
        with borrow(1) as fourth:
            assert len(fourth) == 1
    with borrow(3) as again:
        assert len(again) == 3


def test_many_threads_share_few_buffers(use_backend: UseBackend, events: Events) -> None:
    use_backend(BUFFER, max_buffers=4)
    x = [cases.normal(MANY, seed=seed) for seed in range(12)]
    spec = PoolSpec("average", 3, 2, 1)
    with ThreadPoolExecutor(6) as pool:
        outputs = list(pool.map(lambda x: forward(x, spec, backend="cupy").output, x))
    for given, output in zip(x, outputs, strict=True):
        oracle.assert_same_bits(output, forward(given, spec, backend="numpy").output)
    assert len({stream for stream, _ in events}) <= 4


def test_errors_in_the_last_plane_are_found(use_backend: UseBackend) -> None:
    use_backend(BUFFER)
    x = cases.normal(MANY)
    spec = PoolSpec("max", 2, nan_policy="error")
    output, indices = forward(x, spec, return_indices=True, backend="cupy")
    assert indices is not None
    x[0, -1, -1, -1] = np.nan
    with pytest.raises(InvalidTensorError, match='nan_policy "error" rejects it'):
        forward(x, spec, backend="cupy")
    indices[0, -1, 3, 2] = 200
    with pytest.raises(InvalidTensorError, match="200") as caught:
        backward(output, spec, indices=indices, input_shape=x.shape, backend="cupy")
    assert caught.value.field == "indices"
    indices[0, -1, 3, 2] = 0
    backward(output, spec, indices=indices, input_shape=x.shape, backend="cupy")


def test_after_a_failure_the_buffers_are_idle_and_the_next_call_works(
    use_backend: UseBackend, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = use_backend(BUFFER)
    x = cases.normal(MANY)
    kernel, left = backend.device.kernel, iter((True, True, False))
    with monkeypatch.context() as patch:
        patch.setattr(backend.device, "kernel", lambda launch: next(left) and kernel(launch))
        with pytest.raises(TypeError, match="'bool' object is not callable"):
            forward(x, MAX, backend="cupy")
    assert [what for _, what in events[-3:]] == ["wait"] * 3, "one for each buffer"
    assert_right(x)
    assert backend.staging.buffers.count == backend.staging.buffers.idle_count == BUFFERS_PER_CALL


def test_one_buffer_is_enough_if_there_is_no_memory_for_more(
    use_backend: UseBackend, cuda: ModuleType
) -> None:
    backend = use_backend(BUFFER)
    cuda.MEMORY.total = BUFFER + 100
    x = cases.normal(MANY)
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: forward(x, MAX, backend="cupy").output, range(8)))
    for output in outputs:
        oracle.assert_same_bits(output, forward(x, MAX, backend="numpy").output)
    assert backend.staging.buffers.count == backend.staging.buffers.idle_count == 1


def test_a_call_without_any_memory_is_rejected_and_the_next_works(
    use_backend: UseBackend, fault: Path
) -> None:
    use_backend(BUFFER)
    x = cases.normal(SHAPE)
    fault.write_text("memory")
    for _ in range(2):
        with pytest.raises(DeviceMemoryError, match="the device is out of memory: Out of memory"):
            forward(x, MAX, backend="cupy")
    fault.unlink()
    assert_right(x)


def test_idle_buffers_are_freed_for_a_call_that_needs_their_memory(
    use_backend: UseBackend, cuda: ModuleType
) -> None:
    backend = use_backend(BUFFER)
    small, large = cases.normal(MANY), cases.normal((1, 1, 80, 80))  # a plane exceeds a buffer
    forward(small, MAX, backend="cupy")
    cuda.MEMORY.total = large.nbytes * 5 // 4 + 100
    assert cuda.MEMORY.used == 3 * BUFFER
    assert_right(large)
    assert backend.staging.buffers.count == 0
    assert_right(small)


def test_a_call_gets_the_buffer_of_a_call_that_failed(use_backend: UseBackend) -> None:
    backend = use_backend(BUFFER, max_buffers=1)
    taken, release = threading.Event(), threading.Event()

    def hold_and_fail() -> None:
        with backend.staging.buffers.borrow(1):
            taken.set()
            release.wait(LIMIT_S)
            raise ZeroDivisionError

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(hold_and_fail)
        assert taken.wait(LIMIT_S)
        waiting = pool.submit(assert_right, cases.normal(SHAPE))
        release.set()
        with pytest.raises(ZeroDivisionError):
            holding.result(LIMIT_S)
        waiting.result(LIMIT_S)


def test_the_number_of_cached_schedules_is_limited(
    use_backend: UseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "MAX_SCHEDULES", 3)
    backend = use_backend(BUFFER)
    for size in range(4, 14):
        assert_right(cases.normal((1, 1, size, size)))
        assert 1 <= backend.staging.schedule_count <= 3


def test_arrays_and_results_are_not_cached(use_backend: UseBackend) -> None:
    use_backend(BUFFER)
    x = cases.normal(MANY)
    result = forward(x, MAX, return_indices=True, backend="cupy")
    references = [weakref.ref(array) for array in (x, *result)]
    del x, result
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]
