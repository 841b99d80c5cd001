"""Records of a spec: its parameters with every default resolved, and the output size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Windows = Literal["sliding", "adaptive", "global"]
SizeRule = Literal["global", "adaptive", "same", "floor", "ceil"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The windows along one spatial axis, with the padding resolved; all sizes in elements.

    Attributes:
        name: the name of the axis, such as "row".
        size: size of the input.
        outputs: size of the output.
        kernel: taps per window; of the largest window where sizes differ.
        stride: step from window to window; 0 where it differs.
        dilation: step from tap to tap.
        padding_before: positions added before the first element.
        padding_after: positions added after the last element.
    """

    name: str
    size: int
    outputs: int
    kernel: int
    stride: int
    dilation: int = 1
    padding_before: int = 0
    padding_after: int = 0

    @property
    def extent(self) -> int:
        """Positions from the first tap of a window to the last."""
        return (self.kernel - 1) * self.dilation + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Indices:
    """The indices that max and min return.

    Attributes:
        dtype: element type of indices in format "window"; None if the windows have more than
            `most_taps` taps and so no indices.
        none: the index of an output without a selected element.
        most_taps: the number of taps that an index can tell apart.
    """

    dtype: str | None
    none: int | None
    most_taps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """A spec with every default, name and type resolved for one input.

    Attributes:
        mode: "max", "min", "average", "sum" or "lp".
        norm_p: mode "lp": the p of the norm.
        windows: "sliding", "adaptive" or "global".
        padding: "valid", "same_upper" or "same_lower"; None if it was given as numbers.
        ceil_mode: the number of outputs is rounded up.
        layout: "channels_first" or "channels_last".
        input_shape: shape of the input, in that layout.
        input_dtype: element type of the input.
        output_shape: shape of the output, in the same layout.
        output_dtype: element type of the output.
        axes: the spatial axes, outermost first.
        taps: taps per window, of the largest window where sizes differ.
        divisor_rule: mode "average": "padded_taps", "valid_taps" or "override".
        divisor_override: mode "average": the divisor that replaces the count, if given.
        indices: modes "max" and "min": their indices.
        tie_policy: "max" and "min" of floating-point numbers: "first", "all" or "split".
        nan_policy: the same: "propagate", "ignore" or "error".
    """

    mode: str
    norm_p: float | None
    windows: Windows
    padding: str | None
    ceil_mode: bool
    layout: str
    input_shape: tuple[int, ...]
    input_dtype: str
    output_shape: tuple[int, ...]
    output_dtype: str
    axes: tuple[Axis, ...]
    taps: int
    divisor_rule: str | None
    divisor_override: float | None
    indices: Indices | None
    tie_policy: str | None
    nan_policy: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveWindow:
    """The elements of one adaptive window along one axis.

    Attributes:
        output: the number of the window.
        start: its first element, ``floor(output * size / outputs)``.
        stop: the element after its last, ``ceil((output + 1) * size / outputs)``.
    """

    output: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSize:
    """The derivation of the number of outputs along one axis, whose operands `Axis` has.

    Attributes:
        axis: the name of the axis.
        rule: "global" (one output); "adaptive" (given); "same" (``ceil(size / stride)``, from
            which the padding follows); "floor" or "ceil" (of ``room / stride``, plus 1).
        outputs: the number of outputs.
        padding: "same": the padding on both sides together.
        room: "floor" and "ceil": ``size + padding_before + padding_after - extent``.
        by_formula: "floor" and "ceil": the result of the formula.
        dropped_start: "ceil": the start of the last window if it lies past the last element;
            the window is dropped, and `outputs` is one less than `by_formula`.
        windows: "adaptive": the window that is explained, or all windows of a spec.
    """

    axis: str
    rule: SizeRule
    outputs: int
    padding: int | None = None
    room: int | None = None
    by_formula: int | None = None
    dropped_start: int | None = None
    windows: tuple[AdaptiveWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecSteps:
    """A spec resolved for a shape and an element type, and checked against the engine's plan.

    Attributes:
        parameters: the spec with every default resolved.
        output_size: the derivation of the output size, for each spatial axis.
    """

    parameters: Parameters
    output_size: tuple[OutputSize, ...]
