"""The arithmetic of one window, step by step, as text for a terminal.

    x -> View (_window) -> Worked (_arithmetic) -> Answer (_check) -> text (_forward, _backward)

Every number is worked out twice: here, in plain Python over the taps of the one window, and
by the engine. Where the two disagree, `InternalError` is raised and nothing is explained.
"""

from __future__ import annotations

from pooling_cli.explain.seed import explain_seed_example
from pooling_cli.explain.spec import explain_spec
from pooling_cli.explain.walk import explain_window

__all__ = ["explain_seed_example", "explain_spec", "explain_window"]
