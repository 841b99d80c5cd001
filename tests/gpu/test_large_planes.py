"""Planes larger than a staging buffer: whole arrays, copied in segments, on the fake CuPy."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pooling_engine import DeviceMemoryError, PoolSpec, backward, forward
from pooling_engine.backends.cupy_backend.backend import CupyBackend
from pooling_engine.backends.cupy_backend.device.cupy_device import CupyStagingBuffer
from pooling_engine.backends.cupy_backend.transfers import staging
from pooling_engine.backends.cupy_backend.transfers.buffers import BUFFERS_PER_CALL
from tests.gpu.support import KINDS, Events, UseBackend
from tests.support import cases, oracle, pairs, palettes

BUFFER, SEGMENT = 3 << 10, 2 << 10
SHAPE = (1, 2, 40, 36)  # a plane of 5.6 KiB in float32
MAX = PoolSpec("max", 2)


@pytest.fixture
def backend(use_backend: UseBackend, monkeypatch: pytest.MonkeyPatch) -> CupyBackend:
    """The backend "cupy" with small buffers and smaller segments."""
    monkeypatch.setattr(staging, "SEGMENT_BYTES", SEGMENT)
    return use_backend(BUFFER)


@pytest.fixture
def new_events(backend: CupyBackend, events: Events) -> Events:
    """The events after the backend was made."""
    events.clear()
    return events


@pytest.mark.parametrize("dtype", palettes.DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("options", KINDS, ids=cases.name_of)
def test_results_are_bit_identical_to_numpy(
    new_events: Events, options: dict[str, Any], dtype: np.dtype[Any]
) -> None:
    x = cases.normal((2, 3, 40, 46), dtype)
    pairs.assert_same_calls("cupy", options, x, cases.normal, 1)
    assert len({stream for stream, what in new_events if what == "upload"}) > 1, "in segments"


@pytest.mark.parametrize("seed", range(8))
def test_streams_that_run_at_random_times(
    backend: CupyBackend, cuda: ModuleType, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(cuda, "CHANCE", random.Random(seed))
    options = {"mode": "max", "kernel": 2, "nan_policy": "error"}
    pairs.assert_same_calls("cupy", options, cases.normal(SHAPE), cases.normal, seed)


@pytest.mark.parametrize(
    "nbytes", [1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 4 * SEGMENT - 1, 5 * SEGMENT]
)
def test_any_number_of_segments_in_both_directions(backend: CupyBackend, nbytes: int) -> None:
    array = cases.integers((nbytes,), "uint8")
    copy = backend.to_device(array)
    assert bytes(copy._memory) == array.tobytes()
    assert backend.to_host(copy).tobytes() == array.tobytes()


def test_segments_overlap_and_the_kernel_waits_for_all(new_events: Events) -> None:
    x = cases.normal(SHAPE)
    forward(x, MAX, backend="cupy")  # allocates the buffers
    new_events.clear()
    forward(x, MAX, backend="cupy")
    kinds = [what for _, what in new_events]
    segments = -(-x.nbytes // SEGMENT)
    assert segments > BUFFERS_PER_CALL
    assert kinds[: kinds.index("upload") + 4] == ["wait", "upload", "upload", "upload", "wait"]
    before = new_events[: kinds.index("launch")]
    uploads = [stream for stream, what in before if what == "upload"]
    assert len(uploads) == segments
    assert len(set(uploads)) == BUFFERS_PER_CALL
    for stream in set(uploads):
        own = [what for each, what in before if each == stream]
        assert own == ["upload", "wait"] * (len(own) // 2), "a wait for each upload"
    after = kinds[kinds.index("launch") :]
    assert after[:4] == ["launch", "wait", "download", "download"]
    assert after[-1] == "wait"


def test_the_fake_detects_a_missing_wait(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = cases.normal(SHAPE)
    monkeypatch.setattr(CupyStagingBuffer, "wait", lambda self: None)
    ours, theirs = (forward(x, MAX, backend=name).output for name in ("cupy", "numpy"))
    assert not np.array_equal(ours, theirs)


def test_many_threads(backend: CupyBackend) -> None:
    x = [cases.normal(SHAPE, seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        outputs = list(pool.map(lambda x: forward(x, MAX, backend="cupy").output, x))
    for given, output in zip(x, outputs, strict=True):
        oracle.assert_same_bits(output, forward(given, MAX, backend="numpy").output)


def test_an_invalid_index_in_the_last_plane_is_found(backend: CupyBackend) -> None:
    x = cases.normal(SHAPE)
    output, indices = forward(x, MAX, return_indices=True, backend="cupy")
    assert indices is not None
    indices[0, -1, -1, -1] = 200
    with pytest.raises(ValueError, match="200"):
        backward(output, MAX, indices=indices, input_shape=SHAPE, backend="cupy")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_memory_for_few_buffers_or_none(cuda: ModuleType, new_events: Events, count: int) -> None:
    """The arrays are allocated first. Without memory for a buffer, copies are pageable."""
    x = cases.normal(SHAPE)
    cuda.MEMORY.total = x.nbytes * 5 // 4 + count * BUFFER + 100
    for _ in range(2):
        new_events.clear()
        output = forward(x, MAX, backend="cupy").output
        oracle.assert_same_bits(output, forward(x, MAX, backend="numpy").output)
        uploads = {stream for stream, what in new_events if what == "upload"}
        assert len(uploads) == max(1, count)


def test_a_call_without_memory_is_rejected_and_the_next_works(
    backend: CupyBackend, cuda: ModuleType, fault: Path
) -> None:
    x = cases.normal(SHAPE)
    expected = forward(x, MAX, backend="numpy").output
    forward(x, MAX, backend="cupy")
    for _ in range(2):
        cuda.MEMORY.total = x.nbytes
        with pytest.raises(DeviceMemoryError, match="the device is out of memory: Out of memory"):
            forward(x, MAX, backend="cupy")
        cuda.MEMORY.total = 1 << 20
        oracle.assert_same_bits(forward(x, MAX, backend="cupy").output, expected)
    fault.write_text("memory")
    with pytest.raises(DeviceMemoryError):
        forward(x, MAX, backend="cupy")
    fault.unlink()
    oracle.assert_same_bits(forward(x, MAX, backend="cupy").output, expected)


def test_after_a_failure_no_copy_is_unfinished(
    backend: CupyBackend, cuda: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, left = cuda.runtime.memcpyAsync, iter((1, 1, 0))
    with monkeypatch.context() as patch:
        patch.setattr(cuda.runtime, "memcpyAsync", lambda *a: copy(*a) if next(left) else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forward(cases.normal(SHAPE), MAX, backend="cupy")
    assert not cuda.UNDER_WAY
    assert backend.staging.buffers.count == backend.staging.buffers.idle_count
    pairs.assert_same_calls(
        "cupy", {"mode": "max", "kernel": 2}, cases.normal(SHAPE), cases.normal, 1
    )
