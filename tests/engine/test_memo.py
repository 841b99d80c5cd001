"""Memory of the tables that are remembered for plans: bounded, for any number and size."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from pooling_engine import PoolSpec, backward, forward
from pooling_engine.plans import memo


class Tables:
    """A memoised function that returns `nbytes` for any key, and records its computations."""

    def __init__(self, nbytes):
        self.nbytes, self.computed = nbytes, []
        self.get = memo.Memo(self._compute)

    def _compute(self, key):
        self.computed.append(key)
        return key, np.empty(self.nbytes, np.uint8)


@pytest.mark.once
def test_a_value_is_computed_once():
    tables = Tables(100)
    assert tables.get("one") is tables.get("one")
    assert tables.get("other")[0] == "other"
    assert tables.computed == ["one", "other"]
    tables.get.cache_clear()
    tables.get("one")
    assert tables.computed == ["one", "other", "one"]


@pytest.mark.once
def test_the_oldest_values_make_room(monkeypatch):
    monkeypatch.setattr(memo, "MAX_BYTES", 250)
    tables = Tables(100)
    for key in (1, 2, 3, 3, 2, 1, 1):
        tables.get(key)
    assert tables.computed == [1, 2, 3, 1]


@pytest.mark.once
def test_the_number_of_values_is_limited(monkeypatch):
    monkeypatch.setattr(memo, "MAX_ENTRIES", 2)
    tables = Tables(0)
    for key in (1, 2, 3, 2, 1):
        tables.get(key)
    assert tables.computed == [1, 2, 3, 1]


@pytest.mark.once
def test_a_value_that_is_too_large_is_not_stored_and_evicts_nothing(monkeypatch):
    monkeypatch.setattr(memo, "MAX_BYTES", 250)
    tables = Tables(100)
    tables.get(1)
    tables.nbytes = 251
    for key in (2, 2, 1):
        tables.get(key)
    assert tables.computed == [1, 2, 2]


@pytest.mark.parametrize("mode", ["max", "average"])
def test_rows_of_many_lengths_leave_little_memory(mode, monkeypatch):
    """The tables are larger than the rows, and every length has its own."""
    monkeypatch.setattr(memo, "MAX_BYTES", 1 << 20)
    spec = PoolSpec(mode, 3, 2, 1)

    def forward_and_backward(size):
        x = np.zeros((1, 1, size), np.float32)
        output, indices = forward(x, spec, return_indices=mode == "max")
        backward(output, spec, input_shape=x.shape, indices=indices)

    forward_and_backward(60_000)
    gc.collect()
    tracemalloc.start()
    for number in range(1, 31):
        forward_and_backward(60_000 + number)
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 8 << 20, "each length would leave about 2 MiB"
