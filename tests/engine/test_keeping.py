"""What is worked out for plans takes bounded memory, however many and large they are."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

import pooling_engine
from pooling_engine import PoolSpec, backward, forward
from pooling_engine.plans import memo as keeping

SPEC = PoolSpec("max", 3, 2, 1)


def plans(count):
    return [pooling_engine.plan(SPEC, (1, 1, 10 + number), "float32") for number in range(count)]


class Sheet:
    """Works out so many bytes for each plan, and remembers how often it was asked to."""

    def __init__(self, nbytes):
        self.nbytes, self.asked = nbytes, []
        self.kept = keeping.Kept(self.work_out)

    def work_out(self, plan):
        self.asked.append(plan)
        return plan, np.empty(self.nbytes, np.uint8)


@pytest.mark.once
def test_an_answer_is_worked_out_once():
    sheet, (one, other) = Sheet(100), plans(2)
    assert sheet.kept(one) is sheet.kept(one)
    assert sheet.kept(other)[0] is other
    assert sheet.asked == [one, other]
    sheet.kept.cache_clear()
    sheet.kept(one)
    assert sheet.asked == [one, other, one]


@pytest.mark.once
def test_the_oldest_answers_make_room(monkeypatch):
    monkeypatch.setattr(keeping, "KEPT_BYTES", 250)
    sheet, (one, two, three) = Sheet(100), plans(3)
    for plan in (one, two, three, three, two, one, one):
        sheet.kept(plan)
    assert sheet.asked == [one, two, three, one]


@pytest.mark.once
def test_no_more_than_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(keeping, "KEPT_ANSWERS", 2)
    sheet, (one, two, three) = Sheet(0), plans(3)
    for plan in (one, two, three, two, one):
        sheet.kept(plan)
    assert sheet.asked == [one, two, three, one]


@pytest.mark.once
def test_what_is_too_large_is_not_kept_and_drives_nothing_out(monkeypatch):
    monkeypatch.setattr(keeping, "KEPT_BYTES", 250)
    sheet, (one, two) = Sheet(100), plans(2)
    sheet.kept(one)
    sheet.nbytes = 251
    for plan in (two, two, one):
        sheet.kept(plan)
    assert sheet.asked == [one, two, two]


@pytest.mark.parametrize("mode", ["max", "average"])
def test_rows_of_many_lengths_leave_little_behind(mode, monkeypatch):
    """Their tables are larger than the rows, and every length has its own."""
    monkeypatch.setattr(keeping, "KEPT_BYTES", 1 << 20)
    spec = PoolSpec(mode, 3, 2, 1)

    def both_ways(size):
        x = np.zeros((1, 1, size), np.float32)
        output, indices = forward(x, spec, return_indices=mode == "max")
        backward(output, spec, input_shape=x.shape, indices=indices)

    both_ways(60_000)
    gc.collect()
    tracemalloc.start()
    for number in range(1, 31):
        both_ways(60_000 + number)
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 8 << 20, "each length would leave some 2 MiB"
