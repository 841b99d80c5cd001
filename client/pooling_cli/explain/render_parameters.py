"""Text of a spec's parameters, and of the output-size formula with its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pooling_cli.explain.layout import INDENT, WIDTH, by, paragraph, plain, plural
from pooling_cli.explain.spec_records import AdaptiveWindow, Axis, Indices, OutputSize, Parameters

_TIES = {
    "first": "the first tied element receives the gradient",
    "all": "every tied element receives the whole gradient",
    "split": "tied elements share the gradient equally",
}
_NANS = {
    "propagate": "NaN outranks every number",
    "ignore": "NaN is skipped",
    "error": "a NaN in any window is rejected",
}
_MOST_WINDOWS = 6  # of one axis that are written out
_ROOM = WIDTH - len(INDENT) - len("positions: ")


def mode_name(parameters: Parameters) -> str:
    """Return the name of the mode in a heading."""
    name = f"{parameters.mode.capitalize()} pooling"
    p = parameters.norm_p
    return name if p is None else f"{name} with p = {plain(p)}"


def parameter_lines(parameters: Parameters) -> list[str]:
    """Return the lines of the input, the windows, the output, and the rules of the mode."""
    p = parameters
    layout = p.layout.replace("_", " ")
    lines = [
        *paragraph(f"{p.input_shape} {p.input_dtype}, {layout}", "input    "),
        *paragraph(_windows(p), "windows  "),
        *paragraph(_padding(p), "padding  "),
        *paragraph(f"{p.output_shape} {p.output_dtype}", "output   "),
    ]
    if p.divisor_rule is not None:
        lines += paragraph(f'rule "{p.divisor_rule}": {_divisor(p)}', "divisor  ")
    if p.indices is not None:
        lines += paragraph(_indices(p.indices, p.taps), "indices  ")
    if p.tie_policy is not None and p.nan_policy is not None:
        lines += paragraph(f'tie_policy "{p.tie_policy}": {_TIES[p.tie_policy]}', "ties     ")
        lines += paragraph(f'nan_policy "{p.nan_policy}": {_NANS[p.nan_policy]}', "NaNs     ")
    return lines


def size_lines(parameters: Parameters, sizes: Sequence[OutputSize]) -> list[str]:
    """Return the formula of the output size, and what it gives for each axis."""
    axes = parameters.axes
    is_dilated = any(axis.dilation > 1 for axis in axes)
    lines = [INDENT + line for line in _formulas(parameters, sizes[0].rule, is_dilated)] + [""]
    width = max(len(plural(axis.name)) for axis in axes)
    for axis, size in zip(axes, sizes, strict=True):
        steps = _steps(axis, size, is_dilated)
        labels = [f"{plural(axis.name)}:", *[""] * (len(steps) - 1)]
        lines += [
            f"{INDENT}{label:>{width + 1}} {step}"
            for label, step in zip(labels, steps, strict=True)
        ]
    return lines


def _windows(parameters: Parameters) -> str:
    axes = parameters.axes
    largest = by([axis.kernel for axis in axes])
    if parameters.windows == "global":
        return f"global: one window per plane, kernel {largest}"
    if parameters.windows == "adaptive":
        most = "" if all(axis.stride for axis in axes) else "up to "
        return f"adaptive: output size {by([a.outputs for a in axes])}, kernel {most}{largest}"
    parts = [
        f"kernel {largest}",
        f"stride {by([axis.stride for axis in axes])}",
        f"dilation {by([axis.dilation for axis in axes])}",
    ]
    return ", ".join(parts + ["ceil mode"] * parameters.ceil_mode)


def _padding(parameters: Parameters) -> str:
    """Return the padding in numbers, after its name if it has one."""
    axes = parameters.axes
    name = "" if parameters.padding is None else f'"{parameters.padding}": '
    pads = {pad for axis in axes for pad in (axis.padding_before, axis.padding_after)}
    if len(pads) == 1:
        (pad,) = pads
        return f"{name}{pad} on every side" if pad else f"{name}none"
    sides = (f"{plural(a.name)} {a.padding_before} before, {a.padding_after} after" for a in axes)
    return name + "; ".join(sides)


def _divisor(parameters: Parameters) -> str:
    match parameters.divisor_rule:
        case "override":
            return f"{plain(parameters.divisor_override or 0)}, instead of the number of taps"
        case "valid_taps":
            return "the number of taps on elements"
        case _:
            return "the number of taps on elements or in the padding"


def _indices(indices: Indices, taps: int) -> str:
    if indices.dtype is None:
        return f"none: a window has {taps} taps; an index numbers at most {indices.most_taps}"
    return (
        f'{indices.dtype} in format "window" ({indices.none}: none); int64 in "plane" and "tensor"'
    )


def _formulas(parameters: Parameters, rule: str, is_dilated: bool) -> list[str]:
    if rule == "global":
        return ["a global window covers the whole plane, so each axis has one output"]
    if rule == "adaptive":
        return [
            "the output size is given; along an axis, window i starts at element",
            "floor(i * size / outputs) and ends before ceil((i + 1) * size / outputs)",
        ]
    extent = "e" if is_dilated else "kernel"
    lines = ["e = (kernel - 1) * dilation + 1, the extent of a window"] * is_dilated
    if rule == "same":
        side = "after" if parameters.padding == "same_upper" else "before"
        return [
            *lines,
            "outputs = ceil(size / stride)",
            f"padding = max(0, (outputs - 1) * stride + {extent} - size), in two halves;",
            f'{" " * 10}if it is odd, the larger half goes {side} ("{parameters.padding}")',
        ]
    if parameters.padding == "valid":
        lines.append('padding "valid": none; every window lies inside the input')
    return [*lines, f"outputs = {rule}((size + pad before + pad after - {extent}) / stride) + 1"]


def _steps(axis: Axis, size: OutputSize, is_dilated: bool) -> list[str]:
    """Return the formula of one axis with its numbers."""
    match size.rule:
        case "global":
            return [f"1 output, from elements 0 to {axis.size - 1}"]
        case "adaptive":
            return [_adaptive_step(axis, window) for window in _shown(size.windows)]
    a = axis
    extent = [f"e = ({a.kernel} - 1) * {a.dilation} + 1 = {a.extent}"] * is_dilated
    if size.rule == "same":
        return [
            *extent,
            f"ceil({a.size} / {a.stride}) = {a.outputs}",
            f"padding max(0, ({a.outputs} - 1) * {a.stride} + {a.extent} - {a.size}) = "
            f"{size.padding}: {a.padding_before} before, {a.padding_after} after",
        ]
    pads = f"{a.padding_before} + {a.padding_after}"
    formula = f"{size.rule}(({a.size} + {pads} - {a.extent}) / {a.stride}) + 1"
    result = f"= {size.rule}({size.room} / {a.stride}) + 1 = {size.by_formula}"
    is_short = len(formula) + len(result) < _ROOM
    steps = [f"{formula} {result}"] if is_short else [formula, result]
    return [*extent, *steps, *_drop(axis, size)]


def _drop(axis: Axis, size: OutputSize) -> list[str]:
    """Return why ceil mode has one output fewer than the formula gives, if so."""
    if size.dropped_start is None:
        return []
    return [
        f"but the last would start at ({size.by_formula} - 1) * {axis.stride} - "
        f"{axis.padding_before} = {size.dropped_start}, past the last",
        f"element ({axis.size - 1}), so it is dropped: {axis.outputs} remain",
    ]


def _shown(windows: Sequence[AdaptiveWindow]) -> list[AdaptiveWindow | None]:
    """Return the first windows and the last; None stands for those left out."""
    if len(windows) <= _MOST_WINDOWS:
        return list(windows)
    return [*windows[: _MOST_WINDOWS - 2], None, windows[-1]]


def _adaptive_step(axis: Axis, window: AdaptiveWindow | None) -> str:
    if window is None:
        return "..."
    i, size, outputs = window.output, axis.size, axis.outputs
    return (
        f"window {i} from floor({i} * {size} / {outputs}) = {window.start} "
        f"up to ceil({i + 1} * {size} / {outputs}) = {window.stop}"
    )
