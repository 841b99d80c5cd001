"""Text of an explanation for a terminal, in lines of at most about 80 characters."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from pooling_cli.explain.layout import (
    count,
    heading,
    paragraph,
    place,
    plural,
    section,
    typed,
    unbroken,
)
from pooling_cli.explain.records import AxisWindow, SeedSteps, Steps, Sum, WindowSteps
from pooling_cli.explain.render_gradient import backward_lines, overlap_lines, shape_lines
from pooling_cli.explain.render_parameters import mode_name, parameter_lines, size_lines
from pooling_cli.explain.render_window import forward_lines, output_name, region_lines
from pooling_cli.explain.spec_records import SpecSteps

_MOST_POSITIONS = 6  # of one axis that are written out
_INTRODUCTION = (
    "This project started from an article that max-pools an activation of shape "
    "(10, 16, 14, 14), 10 items of 16 channels, with kernel 3 x 3 and stride 2 x 2. It shows "
    "one region of one plane, in float64, and the upstream gradient of that region's output. "
    "Here, rows and columns are counted from the region's upper left corner."
)
_OVERLAP = (
    "In the whole plane, the stride (2) is smaller than the kernel (3): neighboring windows "
    "share a row or a column with this one and add their gradients to the shared elements."
)
_TIES = (
    "The article makes its mask by comparison: region == max. If several elements held the "
    'maximum, each would receive all of g (tie_policy "all"). By default, only the first of '
    'them receives it (tie_policy "first"). This region has no tie, so both agree.'
)


def render(steps: Steps) -> str:
    """Return the text of an explanation."""
    match steps:
        case WindowSteps():
            lines = _window(steps)
        case SpecSteps():
            lines = _spec(steps)
        case SeedSteps():
            lines = _seed(steps)
    return "\n".join(lines)


def _window(steps: WindowSteps) -> Iterable[str]:
    forward, gradient = forward_lines(steps), steps.backward
    parts = [("The region", region_lines(steps)), ("Forward", forward)]
    if gradient is None:
        forward += ["", *paragraph("Integers have no gradient, so there is no backward step.")]
    else:
        backward = [
            *backward_lines(steps, gradient),
            "",
            *overlap_lines(steps, gradient),
            *shape_lines(steps.parameters),
        ]
        parts.append(("Backward", backward))
    parts.append(("Output size", size_lines(steps.parameters, steps.output_size)))
    numbered = (section(f"{i}. {title}", lines) for i, (title, lines) in enumerate(parts, 1))
    return [*_title(steps), *chain.from_iterable(numbered), "", *_check(steps)]


def _title(steps: WindowSteps) -> list[str]:
    region, inside = steps.region, len(steps.region.values)
    numbers = zip(steps.coordinates, steps.at, strict=True)
    where = ", ".join(unbroken(f"{name} {number}") for name, number in numbers)
    taps = "; ".join(unbroken(_positions(axis)) for axis in region.axes)
    positions = count(region.taps, "window position")
    on_elements = "all" if inside == region.taps else f"{inside} of them" if inside else "none"
    return [
        *heading(f"{mode_name(steps.parameters)}, one window step by step"),
        *parameter_lines(steps.parameters),
        *paragraph(f"{output_name(steps)}: {where}", "explains "),
        *paragraph(f"{positions}, {on_elements} on elements: {taps}", "taps     "),
    ]


def _positions(axis: AxisWindow) -> str:
    """Return where the taps are along an axis, such as "rows 2 to 4" or "rows 1, 3, 5"."""
    taps = axis.taps
    first, last = axis.position(0), axis.position(taps - 1)
    if taps == 1:
        return f"{axis.name} {first}"
    if axis.step == 1 and taps > 2:
        return f"{plural(axis.name)} {first} to {last}"
    listed = [str(axis.position(tap)) for tap in range(min(taps, _MOST_POSITIONS))]
    if taps > _MOST_POSITIONS:
        listed = [*listed[:3], "...", str(last)]
    return f"{plural(axis.name)} {', '.join(listed)}"


def _check(steps: WindowSteps) -> list[str]:
    """Return what was compared with the engine, and how closely."""
    check = steps.check
    closeness = "exactly"
    if check.tolerance:
        dtype = steps.parameters.output_dtype
        closeness = f"within the rounding of {dtype} ({check.tolerance:.1e})"
    *first, last = check.compared
    same = f"{', '.join(first)} and {last}" if first else last
    return paragraph(f"Checked against the engine: same {same}, {closeness}.")


def _spec(steps: SpecSteps) -> list[str]:
    return [
        *heading(f"{mode_name(steps.parameters)}, resolved parameters"),
        *parameter_lines(steps.parameters),
        *section("Output size", size_lines(steps.parameters, steps.output_size)),
        "",
        *paragraph("Checked against the engine's plan: same parameters."),
    ]


def _seed(steps: SeedSteps) -> list[str]:
    maximum, plane = steps.max, steps.plane
    assert maximum.backward is not None
    others = [*_seed_average(steps.average), *_seed_min(steps.min)]
    return [
        *heading("The example that this project started from"),
        *paragraph(_INTRODUCTION),
        *section("1. The region", region_lines(maximum)),
        *section("2. Forward", forward_lines(maximum)),
        *section("3. Backward", backward_lines(maximum, maximum.backward)),
        "",
        *paragraph(_OVERLAP),
        *section("4. The same window in average and in min pooling", others),
        *section("5. Ties", paragraph(_TIES)),
        *section("6. Output size", size_lines(plane.parameters, plane.output_size)),
        "",
        *shape_lines(plane.parameters),
        "",
        *paragraph("Checked against the engine: all three modes."),
    ]


def _seed_average(steps: WindowSteps) -> list[str]:
    step, gradient = steps.forward, steps.backward
    assert isinstance(step, Sum)
    assert gradient is not None
    assert gradient.shares is not None
    return paragraph(
        f"{step.total} / 9 = {typed(steps.output.value, 'float64')}; each of the nine elements "
        f"receives g / 9 = {gradient.shares[0]}.",
        "average: ",
    )


def _seed_min(steps: WindowSteps) -> list[str]:
    gradient = steps.backward
    assert gradient is not None
    assert gradient.receivers is not None
    where = place(steps.region.axes, steps.region.tap(gradient.receivers[0]))
    text = f"{steps.output.value}, at {where}; that element receives all of g, the others 0."
    return paragraph(text, "min:     ")
