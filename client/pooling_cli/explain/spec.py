"""What a spec comes to for a shape and an element type, without a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pooling_cli.explain.overview import mode_name, overview_lines
from pooling_cli.explain.parameters import work_out_parameters
from pooling_cli.explain.resolve import resolve_axes
from pooling_cli.explain.sizes import size_lines
from pooling_cli.explain.text import heading, paragraph, section
from pooling_engine import PoolSpec


def explain_spec(spec: PoolSpec, shape: Sequence[int], dtype: Any) -> str:
    """The effective parameters of a spec, and the formula of the output's size.

    Args:
        spec: what would be computed.
        shape: the shape of the input.
        dtype: its element type.

    Returns:
        The text, in lines of at most about 80 characters.

    Raises:
        InvalidSpecError: the windows do not fit the shape.
        InvalidTensorError: the shape or the element type is illegal.
        UnsupportedError: legal, but not built.
        InternalError: the explanation and the engine's plan disagree.
    """
    plan = spec.plan(shape, dtype)
    parameters = work_out_parameters(spec, plan)
    axes = resolve_axes(spec, plan.sizes)
    return "\n".join(
        [
            *heading(f"{mode_name(spec)}, the effective parameters"),
            *overview_lines(plan, spec, parameters, axes),
            *section("Output size", size_lines(axes, spec, of_every_window=True)),
            "",
            *paragraph("Checked against the engine's plan: the same parameters."),
        ]
    )
