"""The arithmetic of one window, step by step: records of the steps, and their text.

    tensor -> View (window) -> Expected (arithmetic) -> EngineResults (check) -> records (steps)
    records -> text (render), or JSON (as_json)

Every number is computed twice: in plain Python over the taps of the one window, and by the
engine. Where the two disagree, `InternalError` is raised and nothing is explained.
"""

from __future__ import annotations

from pooling_cli.explain.records import SeedSteps, Steps, WindowSteps, as_json
from pooling_cli.explain.render import render
from pooling_cli.explain.spec_records import SpecSteps
from pooling_cli.explain.steps import seed_steps, spec_steps, window_steps

__all__ = [
    "SeedSteps",
    "SpecSteps",
    "Steps",
    "WindowSteps",
    "as_json",
    "render",
    "seed_steps",
    "spec_steps",
    "window_steps",
]
