"""Plans: a spec resolved to integers for one shape and element type."""

from pooling_engine.plans.geometry import MAX_STEPS_PER_AXIS, AdaptiveAxis, Axis, SlidingAxis
from pooling_engine.plans.indices import NO_POSITION, check_window_indices
from pooling_engine.plans.plan import MAX_INDEXED_TAPS, PlannedAxis, PoolPlan
from pooling_engine.plans.planning import make_plan
from pooling_engine.plans.row_bands import band_step, least_band_outputs

__all__ = [
    "MAX_INDEXED_TAPS",
    "MAX_STEPS_PER_AXIS",
    "NO_POSITION",
    "AdaptiveAxis",
    "Axis",
    "PlannedAxis",
    "PoolPlan",
    "SlidingAxis",
    "band_step",
    "check_window_indices",
    "least_band_outputs",
    "make_plan",
]
