"""The arena: buffers are reused, bounded in size, and lent to one borrower at a time."""

from __future__ import annotations

import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pooling_server.serving.arena import ALIGNMENT, SMALL_BYTES, Arena, size_class

MIB = 1 << 20
SHAPE = (4, 8, 64, 64)  # 512 KiB of float32


def address_of(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def borrowed(arena: Arena, shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32) -> int:
    """Borrow, write and return an array; return its address."""
    with arena.borrow(shape, dtype) as array:
        array.fill(1)
        return address_of(array)


class Held:
    """Arrays that are borrowed at the same time."""

    def __init__(self, arena: Arena, *shapes: tuple[int, ...]) -> None:
        self._blocks = [arena.borrow(shape, np.uint8) for shape in shapes]

    def __enter__(self) -> list[np.ndarray]:
        return [block.__enter__() for block in self._blocks]

    def __exit__(self, *error: Any) -> None:
        for block in self._blocks:
            block.__exit__(*error)


def test_buffers_are_reused() -> None:
    arena = Arena(8 * MIB)
    first = borrowed(arena)
    assert arena.idle_bytes == 512 << 10
    assert [borrowed(arena) for _ in range(3)] == [first] * 3
    assert arena.idle_bytes == 512 << 10


def test_borrowed_buffers_are_not_idle() -> None:
    arena = Arena(8 * MIB)
    borrowed(arena)
    with arena.borrow(SHAPE, np.float32):
        assert arena.idle_bytes == 0
    assert arena.idle_bytes == 512 << 10


def test_a_buffer_fits_arrays_of_similar_size() -> None:
    arena = Arena(8 * MIB)
    first = borrowed(arena, (1, 1, 512, 512), np.float32)
    assert borrowed(arena, (1, 1, 512, 500), np.float32) == first
    assert borrowed(arena, (1, 1, 1024, 512), np.int16) == first
    assert borrowed(arena, (1, 1, 512, 1000), ml_dtypes.bfloat16) == first
    with arena.borrow((1, 1, 512, 300), np.float32) as smaller:
        assert address_of(smaller) != first


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.float16, ml_dtypes.bfloat16, np.float32, np.int64], ids=str
)
def test_arrays_have_the_requested_shape_and_type(dtype: Any) -> None:
    with Arena(MIB).borrow((3, 2, 200, 100), dtype) as array:
        assert (array.shape, array.dtype) == ((3, 2, 200, 100), np.dtype(dtype))
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array.fill(3)
        np.testing.assert_array_equal(array.astype(np.float64), 3.0)


@pytest.mark.parametrize("size", [SMALL_BYTES, SMALL_BYTES + 1, 100_001, MIB - 1, 3 * MIB + 7])
def test_alignment(size: int) -> None:
    with Held(Arena(8 * MIB), (size,), (size,), (size,)) as arrays:
        assert [address_of(array) % ALIGNMENT for array in arrays] == [0] * 3


@pytest.mark.parametrize("shape", [(0,), (0, 3, 8, 8), (5, 0, 1 << 40)])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    arena = Arena(MIB)
    with arena.borrow(shape, np.float64) as array:
        assert array.shape == shape
    assert arena.idle_bytes == 0


def test_small_buffers_are_not_kept() -> None:
    arena = Arena(MIB)
    borrowed(arena, (SMALL_BYTES - 1,), np.uint8)
    assert arena.idle_bytes == 0
    borrowed(arena, (SMALL_BYTES,), np.uint8)
    assert arena.idle_bytes == SMALL_BYTES


def test_the_least_recently_used_buffer_is_freed_first() -> None:
    arena = Arena(2 * MIB)
    old = borrowed(arena, (MIB,), np.uint8)
    borrowed(arena, (MIB // 2,), np.uint8)
    assert borrowed(arena, (MIB,), np.uint8) == old  # so that the smaller buffer is the older one
    borrowed(arena, (MIB * 3 // 4,), np.uint8)
    assert arena.idle_bytes == MIB + MIB * 3 // 4
    assert borrowed(arena, (MIB,), np.uint8) == old


def test_idle_buffers_never_exceed_the_limit() -> None:
    arena = Arena(2 * MIB)
    with Held(arena, *[(size,) for size in range(100_000, 900_000, 50_000)]):
        assert arena.idle_bytes == 0
    assert MIB < arena.idle_bytes <= 2 * MIB


def test_a_request_over_the_limit_is_served_and_freed() -> None:
    arena = Arena(MIB)
    kept = borrowed(arena)
    borrowed(arena, (4 * MIB,), np.uint8)
    assert arena.idle_bytes == 512 << 10
    assert borrowed(arena) == kept


def test_a_limit_of_0_disables_reuse() -> None:
    arena = Arena(0)
    borrowed(arena)
    assert arena.idle_bytes == 0


def test_a_negative_limit_is_rejected() -> None:
    with pytest.raises(ValueError, match="max_bytes is -1; it must be at least 0"):
        Arena(-1)


@pytest.mark.parametrize("shape", [(-1, 4), (-400, -400)])
def test_a_negative_size_is_rejected(shape: tuple[int, ...]) -> None:
    arena = Arena(MIB)
    with pytest.raises(ValueError, match="negative"), arena.borrow(shape, np.float32):
        pass
    with arena.borrow(SHAPE, np.float32) as array:
        array.fill(0)


def test_errors_return_their_buffers() -> None:
    arena = Arena(8 * MIB)

    def fail() -> int:
        try:
            with arena.borrow(SHAPE, np.float32) as array:
                raise KeyError(address_of(array))
        except KeyError as error:
            return int(error.args[0])

    first = fail()
    assert arena.idle_bytes == 512 << 10
    assert borrowed(arena) == first


def test_after_an_error_a_buffer_is_reused_once_no_view_is_left() -> None:
    """A thread of the failed computation may still write."""
    arena = Arena(8 * MIB)
    views = []

    def fail() -> None:
        with arena.borrow(SHAPE, np.float32) as array:
            views.append(array[1:])
            raise KeyError(address_of(array))

    with pytest.raises(KeyError) as caught:
        fail()
    first = caught.value.args[0]
    del caught  # its frames refer to the array
    with arena.borrow(SHAPE, np.float32) as array:
        assert not np.may_share_memory(array, views[0])
    del array
    views.clear()
    with arena.borrow(SHAPE, np.float32) as one, arena.borrow(SHAPE, np.float32) as other:
        assert first in (address_of(one), address_of(other))


def test_threads_never_share_a_borrowed_buffer() -> None:
    arena = Arena(2 * MIB)
    shapes = [(100_000 + 13_000 * step,) for step in range(9)]
    start = threading.Barrier(6)
    wrong: list[int] = []

    def borrow_and_check(number: int) -> None:
        start.wait()
        for step in range(300):
            with arena.borrow(shapes[(step * number) % 9], np.uint8) as array:
                array.fill(number)
                with arena.borrow(shapes[step % 9], np.uint8) as other:
                    other.fill(100 + number)
                    if not (array == number).all() or not (other == 100 + number).all():
                        wrong.append(number)

    threads = [threading.Thread(target=borrow_and_check, args=(n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert 0 < arena.idle_bytes <= 2 * MIB


@pytest.mark.parametrize("size", [*range(SMALL_BYTES - 9, SMALL_BYTES + 9), 10**6, 10**9 + 7])
def test_size_classes(size: int) -> None:
    """There are four sizes per power of two; each is at most a quarter more than requested."""
    kept = size_class(size)
    assert size <= kept < size * 1.25
    assert size_class(kept) == kept
    assert kept % (1 << (kept.bit_length() - 3)) == 0
    assert len({size_class(n) for n in range(1 << 20, 1 << 21, 1000)}) == 5
