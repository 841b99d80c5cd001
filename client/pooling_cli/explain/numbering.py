"""Row-major numbers of places in an array."""

from __future__ import annotations


def ravel(numbers: tuple[int, ...] | list[int], sizes: tuple[int, ...] | list[int]) -> int:
    """Return the row-major number of a place in an array of those sizes."""
    total = 0
    for number, size in zip(numbers, sizes, strict=True):
        total = total * size + number
    return total


def unravel(number: int, sizes: tuple[int, ...] | list[int]) -> tuple[int, ...]:
    """Return the place in an array of those sizes with that row-major number."""
    places = []
    for size in reversed(sizes):
        number, place = divmod(number, size)
        places.append(place)
    return tuple(reversed(places))
