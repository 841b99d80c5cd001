"""All-pairs selection: a few combinations that contain every pair of values of two parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

_Pair = tuple[int, int, int, int]


def pairwise(*parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return combinations that together contain every pair of values of two parameters.

    Each step takes the combination with the most pairs that are still missing. The result is
    therefore small, and the same in every run.

    Args:
        parameters: values of each parameter.
    """
    rows = list(product(*map(range, map(len, parameters))))
    missing = set().union(*map(_pairs, rows))
    chosen = []
    while missing:
        best = max(rows, key=lambda row: len(_pairs(row) & missing))
        missing -= _pairs(best)
        chosen.append(tuple(values[i] for values, i in zip(parameters, best, strict=True)))
    return chosen


def _pairs(row: tuple[int, ...]) -> set[_Pair]:
    return {(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)}
