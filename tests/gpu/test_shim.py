"""The shim ends or spoils what a card would not forgive."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
import shim

from pooling_engine import PoolSpec, forward
from pooling_engine.backends.cupy_kernels.launches import forward_launch

SPEC, SHAPE = PoolSpec("sum", kernel=(8, 70), stride=9), (1, 5, 8, 200)
BARRIER = "    __syncthreads();\n"


def summed():
    """By teams of 32 threads, which go three times over their columns."""
    x, plan = cases.normal(SHAPE), SPEC.plan(SHAPE, "float32")
    output = np.zeros(plan.output_shape, np.float32)
    launch = forward_launch(plan, False, True)
    assert launch.name == "sum_by_teams<float, 32>"
    shim.run(launch, x, output)
    return output, forward(x, SPEC, backend="numpy").output


@pytest.mark.parametrize("left_out", [None, 0, 1])
def test_a_barrier_that_is_not_there_spoils_the_result(monkeypatch, left_out):
    def source_of(file):
        head, kernel, tail = shim_source(file).partition("void sum_by_teams")
        parts = tail.split(BARRIER)
        assert len(parts) == 3
        if left_out is not None:
            parts[left_out : left_out + 2] = ["".join(parts[left_out : left_out + 2])]
        return head + kernel + BARRIER.join(parts)

    shim_source = shim.source_of
    monkeypatch.setattr(shim, "source_of", source_of)
    monkeypatch.setattr(shim, "_kernels", {})
    ours, theirs = summed()
    if left_out is None:
        oracle.assert_same_bits(ours, theirs)
    else:
        assert not np.array_equal(ours, theirs)
