"""Multi-threaded copies: every element exactly once, in any memory order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import pooling_engine
from pooling_client._copies import copy_into


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = pooling_engine.thread_count()
    pooling_engine.set_thread_count(3)
    yield
    pooling_engine.set_thread_count(before)


@pytest.mark.parametrize("count", [0, 1, 1000, 1_500_001])
def test_every_element_is_copied_and_nothing_else_is_written(count: int) -> None:
    source = np.random.default_rng(count).integers(0, 256, 4 * count, np.uint8).view(np.float32)
    around = np.full(count + 2, 7, np.float32)
    copy_into(around[1:-1], source)
    assert around[1:-1].tobytes() == source.tobytes()
    assert around[0] == around[-1] == 7


@pytest.mark.parametrize("is_contiguous", [(True, False), (False, True), (False, False)])
def test_arrays_in_any_memory_order(is_contiguous: tuple[bool, bool]) -> None:
    shape = (3, 5, 700, 211)
    target, source = (
        np.zeros(shape, np.int16) if plain else np.zeros(shape[::-1], np.int16).T
        for plain in is_contiguous
    )
    source[...] = np.random.default_rng(0).integers(-9, 9, shape, np.int16)
    copy_into(target, source)
    np.testing.assert_array_equal(target, source)


def test_an_unaligned_source() -> None:
    message = np.random.default_rng(0).integers(0, 256, 5_000_001, np.uint8).tobytes()
    source = np.frombuffer(message, np.float32, offset=1)
    assert not source.flags.aligned
    target = np.empty(source.shape, source.dtype)
    copy_into(target, source)
    assert target.tobytes() == message[1:]
