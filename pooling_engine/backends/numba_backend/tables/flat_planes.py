"""Windows of small planes that are pooled as one row of elements, as the kernels take them."""

from __future__ import annotations

import numpy as np

from pooling_engine.backends.numba_backend.language.arguments import (
    FlatSizes,
    FlatTables,
    Integers,
)
from pooling_engine.plans.geometry import Axis, SlidingAxis
from pooling_engine.plans.plan import PoolPlan
from pooling_engine.specs.enums import NanPolicy

GROUP = 512  # elements of a group of planes, at most, unless one plane has more
LANES = 16


def begins_inside(axis: Axis) -> bool:
    """Return whether the windows along an axis begin at no more positions than it has."""
    if not isinstance(axis, SlidingAxis):
        return False
    return (axis.outputs - 1) * axis.window.stride < axis.size


def flat_tables(plan: PoolPlan) -> FlatTables:
    """Return the tables of a plan of MAX or MIN whose windows all `begins_inside`."""
    first, last = plan.axes
    assert isinstance(first, SlidingAxis)
    assert isinstance(last, SlidingAxis)
    plane = first.size * last.size
    planes = min(plan.outer, max(1, GROUP // plane))
    size, vectors = planes * plane, -(-planes * plane // LANES)
    positions = np.arange(vectors * LANES) % last.size
    column_step, taps = first.dilation * last.size, first.kernel
    before, above = last.window.padding_before, first.window.padding_before * last.size
    places, masks = _outputs(first, last, planes)
    reach = int(places[-1, 0]) + (taps - 1) * column_step + LANES - size
    return FlatTables(
        sizes=FlatSizes(
            size=size,
            out_size=planes * first.outputs * last.outputs,
            row_step=last.dilation,
            before=before,
            column_step=column_step,
            taps=taps,
            vectors=vectors,
            out_vectors=len(places),
            margin=max(before, reach, 2 * LANES + last.window.extent),
            above=above,
        ),
        row_masks=_bits(_taps_inside(last, positions - before).reshape(-1, LANES, last.kernel)),
        places=places.reshape(-1),
        column_masks=_bits(masks),
        rejects_nan=plan.nan_policy is NanPolicy.ERROR,
        tiles=-(-plan.outer // planes),
    )


def _outputs(first: SlidingAxis, last: SlidingAxis, planes: int) -> tuple[Integers, np.ndarray]:
    """Return the places of the vectors that have outputs, and their masks as booleans."""
    numbers = np.arange(planes)[:, None, None] * first.size * last.size
    rows = first.starts()[:, None]
    columns = np.arange(last.outputs) * last.window.stride
    begins = (numbers + rows * last.size + columns).reshape(-1)
    inside = _taps_inside(first, np.broadcast_to(rows, (planes, len(rows), len(columns))))
    inside = inside.reshape(-1, first.kernel)
    places, masks, output = [], [], 0
    while output < len(begins):
        end = int(np.searchsorted(begins, begins[output] + LANES))
        lanes = begins[output:end] - begins[output]
        mask = np.zeros((LANES, first.kernel + 1), bool)
        mask[lanes, :-1], mask[lanes, -1] = inside[output:end], True
        places.append((begins[output], output))
        masks.append(mask)
        output = end
    return np.array(places, np.int64), np.array(masks)


def _taps_inside(axis: SlidingAxis, begins: np.ndarray) -> np.ndarray:
    """Return whether each tap of windows that begin at positions is on an element."""
    positions = begins[..., None] + axis.dilation * np.arange(axis.kernel)
    return (positions >= 0) & (positions < axis.size)


def _bits(masks: np.ndarray) -> np.ndarray:
    """Return masks of shape (vectors, lanes, taps) as integers, those of a vector together."""
    weights = 1 << np.arange(LANES)
    return (masks * weights[:, None]).sum(1).astype(np.uint16).reshape(-1)
