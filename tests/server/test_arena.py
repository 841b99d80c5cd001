"""The arena: buffers come back, are bounded, and never belong to two borrowers at once."""

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
    """Where an array lies that is borrowed, written and given back."""
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


def test_the_same_memory_comes_back() -> None:
    arena = Arena(8 * MIB)
    first = borrowed(arena)
    assert arena.idle_bytes == 512 << 10
    assert [borrowed(arena) for _ in range(3)] == [first] * 3
    assert arena.idle_bytes == 512 << 10


def test_what_is_lent_is_not_idle() -> None:
    arena = Arena(8 * MIB)
    borrowed(arena)
    with arena.borrow(SHAPE, np.float32):
        assert arena.idle_bytes == 0
    assert arena.idle_bytes == 512 << 10


def test_a_buffer_fits_other_shapes_and_types_of_about_its_size() -> None:
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
def test_arrays_are_as_asked(dtype: Any) -> None:
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
def test_shapes_of_nothing(shape: tuple[int, ...]) -> None:
    arena = Arena(MIB)
    with arena.borrow(shape, np.float64) as array:
        assert array.shape == shape
    assert arena.idle_bytes == 0


def test_small_requests_are_not_kept() -> None:
    arena = Arena(MIB)
    borrowed(arena, (SMALL_BYTES - 1,), np.uint8)
    assert arena.idle_bytes == 0
    borrowed(arena, (SMALL_BYTES,), np.uint8)
    assert arena.idle_bytes == SMALL_BYTES


def test_the_longest_unused_goes_first() -> None:
    arena = Arena(2 * MIB)
    old = borrowed(arena, (MIB,), np.uint8)
    borrowed(arena, (MIB // 2,), np.uint8)
    assert borrowed(arena, (MIB,), np.uint8) == old  # so that the half is the older
    borrowed(arena, (MIB * 3 // 4,), np.uint8)
    assert arena.idle_bytes == MIB + MIB * 3 // 4
    assert borrowed(arena, (MIB,), np.uint8) == old


def test_the_bound_holds_whatever_is_given_back() -> None:
    arena = Arena(2 * MIB)
    with Held(arena, *[(size,) for size in range(100_000, 900_000, 50_000)]):
        assert arena.idle_bytes == 0
    assert MIB < arena.idle_bytes <= 2 * MIB


def test_a_request_beyond_the_bound_is_served_and_freed() -> None:
    arena = Arena(MIB)
    kept = borrowed(arena)
    borrowed(arena, (4 * MIB,), np.uint8)
    assert arena.idle_bytes == 512 << 10
    assert borrowed(arena) == kept


def test_nothing_is_kept_where_nothing_may_be() -> None:
    arena = Arena(0)
    borrowed(arena)
    assert arena.idle_bytes == 0


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="max_bytes is -1; it must be at least 0"):
        Arena(-1)


@pytest.mark.parametrize("shape", [(-1, 4), (-400, -400)])
def test_a_negative_size_is_refused(shape: tuple[int, ...]) -> None:
    arena = Arena(MIB)
    with pytest.raises(ValueError, match="negative"), arena.borrow(shape, np.float32):
        pass
    with arena.borrow(SHAPE, np.float32) as array:
        array.fill(0)


def test_errors_give_the_memory_back() -> None:
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


def test_after_an_error_memory_waits_for_the_last_view_of_it() -> None:
    """A thread with a part in the failed work may still write."""
    arena = Arena(8 * MIB)
    views = []

    def fail() -> None:
        with arena.borrow(SHAPE, np.float32) as array:
            views.append(array[1:])
            raise KeyError(address_of(array))

    with pytest.raises(KeyError) as caught:
        fail()
    first = caught.value.args[0]
    del caught  # its frames know the array
    with arena.borrow(SHAPE, np.float32) as array:
        assert not np.may_share_memory(array, views[0])
    del array
    views.clear()
    with arena.borrow(SHAPE, np.float32) as one, arena.borrow(SHAPE, np.float32) as other:
        assert first in (address_of(one), address_of(other))


def test_threads_never_share_what_is_lent() -> None:
    arena = Arena(2 * MIB)
    shapes = [(100_000 + 13_000 * step,) for step in range(9)]
    start = threading.Barrier(6)
    wrong: list[int] = []

    def borrow_and_check(number: int) -> None:
        start.wait()
        for turn in range(300):
            with arena.borrow(shapes[(turn * number) % 9], np.uint8) as array:
                array.fill(number)
                with arena.borrow(shapes[turn % 9], np.uint8) as other:
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
    """Powers of two with quarter steps: at most a quarter more than was asked for."""
    kept = size_class(size)
    assert size <= kept < size * 1.25
    assert size_class(kept) == kept
    assert kept % (1 << (kept.bit_length() - 3)) == 0
    assert len({size_class(n) for n in range(1 << 20, 1 << 21, 1000)}) == 5
