"""Records of an explanation: every step of one window's arithmetic, as plain data.

Records hold integers, floats, strings, tuples and other records, and no layout: a terminal, a
web page or another language can show the same steps. `as_json` turns any of them into JSON data.

    WindowSteps               one window of a tensor
      parameters              the spec with every default resolved, and its axes
      region                  the window: its taps, and the input elements under them
      forward                 Selection (max, min, p = inf), Sum (average, sum) or Norm (lp)
      output                  the value of the output, before and after rounding
      backward                the gradient that each element receives
      output_size             the formula of the output size, for each spatial axis
      check                   the comparison with the engine
    SpecSteps                 the parameters and output sizes of a spec, without a tensor
    SeedSteps                 the example of the article that this project started from

A tap is one position of the window. It lies on an input element, in the padding, or, in ceil
mode, beyond the padding. An element number is an index into `Region.values`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from pooling_cli.explain.numbering import ravel, unravel
from pooling_cli.explain.spec_records import OutputSize, Parameters, SpecSteps

Number = int | float
Extreme = Literal["largest", "smallest", "largest_magnitude"]
Outcome = Literal["passed", "no_elements", "none_selected", "undefined"]
Taps = tuple[int, ...]  # the number of a tap along each of some axes
Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisWindow:
    """The taps of one window along one spatial axis. Positions count from the first element.

    Attributes:
        name: the name of the axis.
        output: the coordinate of the output along the axis.
        start: position of tap 0; negative in the padding.
        step: step from tap to tap.
        taps: number of taps.
        taps_within_padding: number of taps on elements or in the padding; later taps are beyond.
        first_on_element: the first tap on an element.
        elements: positions of the elements under the taps.
    """

    name: str
    output: int
    start: int
    step: int
    taps: int
    taps_within_padding: int
    first_on_element: int
    elements: tuple[int, ...]

    def position(self, tap: int) -> int:
        """Return the position of a tap."""
        return self.start + tap * self.step

    @property
    def on_elements(self) -> range:
        """The taps on elements."""
        return range(self.first_on_element, self.first_on_element + len(self.elements))


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One window: its taps, and the input elements under them.

    Attributes:
        axes: the window along each spatial axis.
        taps: number of taps.
        taps_within_padding: number of taps on elements or in the padding.
        shape: the number of elements along each axis.
        values: the elements in row-major order, exact.
    """

    axes: tuple[AxisWindow, ...]
    taps: int
    taps_within_padding: int
    shape: tuple[int, ...]
    values: tuple[Number, ...]

    def tap(self, element: int) -> Taps:
        """Return the tap on an element, as its number along each axis."""
        places = unravel(element, self.shape)
        return tuple(a.on_elements[place] for a, place in zip(self.axes, places, strict=True))

    def element(self, tap: Taps) -> int | None:
        """Return the number of the element under a tap, or None in the padding."""
        if not all(t in axis.on_elements for axis, t in zip(self.axes, tap, strict=True)):
            return None
        places = [t - axis.first_on_element for axis, t in zip(self.axes, tap, strict=True)]
        return ravel(places, self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Forward step of "max", "min" and "lp" with p = inf: the output is one element's value.

    Attributes:
        extreme: the element sought: "largest", "smallest" or "largest_magnitude".
        skipped: number of NaNs skipped by nan_policy "ignore".
        tied: the elements that hold the extreme, or every NaN if one is selected.
        selected: the first of them; None if the window has no element, or skips them all.
        position: its position along each axis.
        tap: its index, the row-major number of the tap in a window of the sizes `counted_in`.
        counted_in: taps along each axis of the largest window.
    """

    kind: Literal["selection"] = "selection"
    extreme: Extreme
    skipped: int
    tied: tuple[int, ...]
    selected: int | None
    position: tuple[int, ...] | None
    tap: int | None
    counted_in: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divisor:
    """The divisor of an average.

    Attributes:
        value: the divisor.
        rule: "padded_taps", "valid_taps" or "override".
        on_elements: number of taps on elements.
        in_padding: number of taps in the padding.
        beyond_padding: number of taps beyond it.
    """

    value: Number
    rule: str
    on_elements: int
    in_padding: int
    beyond_padding: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Forward step of "sum" and "average": the elements are added, then divided.

    Attributes:
        total: the sum.
        divisor: "average": the divisor.
        result: the output in float64, or the exact integer.
    """

    kind: Literal["sum"] = "sum"
    total: Number
    divisor: Divisor | None
    result: Number


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """Forward step of "lp" for finite p: ``scale * (sum of powers)^(1/p)``.

    Attributes:
        p: the p of the norm.
        scale: the divisor of the magnitudes; 1 unless a power would leave float64's range.
        powers: ``(|x| / scale)^p`` of each element.
        total: the sum of the powers.
        result: the output in float64.
    """

    kind: Literal["norm"] = "norm"
    p: float
    scale: float
    powers: tuple[float, ...]
    total: float
    result: float


Forward = Selection | Sum | Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The value of the output.

    Attributes:
        value: the engine's value, in the output's element type.
        unrounded: the result of the forward step, in float64 or as an exact integer.
        depends_on_order: partial sums overflow float64, so the order of addition decides.
    """

    value: Number
    unrounded: Number
    depends_on_order: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """Backward step: the gradient that the elements of the region receive.

    Attributes:
        upstream: the gradient of the output.
        is_upstream_given: the caller gave it; otherwise it is 1.
        outcome: "passed"; "no_elements" (none in the window); "none_selected" (none to receive
            it); "undefined" (the output is not finite and has no slope).
        receivers: the elements that receive a selection's gradient; None: every element.
        parts: the number of parts that the upstream gradient is split into.
        shares: the gradient of each element, in its element type; None unless "passed".
        other_windows: for each element, the number of other windows that contain it and add
            their own shares.
    """

    upstream: float
    is_upstream_given: bool
    outcome: Outcome
    receivers: tuple[int, ...] | None
    parts: int
    shares: tuple[float, ...] | None
    other_windows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The comparison of the explanation with the engine, which found no difference.

    Attributes:
        compared: the compared results: "index", "output", "gradient".
        tolerance: the relative difference allowed; 0 if the results are equal.
    """

    compared: tuple[str, ...]
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSteps:
    """Every step of one window's arithmetic.

    Attributes:
        parameters: the spec with every default resolved.
        at: the output that is explained, an index into the output.
        coordinates: the names of its coordinates, such as ("n", "c", "row", "column").
        region: the window.
        forward: the steps from its elements to the output.
        output: the value of the output.
        backward: the gradient of its elements; None for integers, which have none.
        output_size: the derivation of the output size, for each spatial axis.
        check: the comparison with the engine.
    """

    parameters: Parameters
    at: tuple[int, ...]
    coordinates: tuple[str, ...]
    region: Region
    forward: Forward
    output: Output
    backward: Gradient | None
    output_size: tuple[OutputSize, ...]
    check: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSteps:
    """Example of the article that this project started from: one region in three modes.

    Attributes:
        max: the region in max pooling, as in the article.
        average: the same region in average pooling.
        min: the same region in min pooling.
        plane: the article's activation, from which the output size follows.
    """

    max: WindowSteps
    average: WindowSteps
    min: WindowSteps
    plane: SpecSteps


Steps = WindowSteps | SpecSteps | SeedSteps


def as_json(value: Any) -> Json:
    """Return a record as JSON data: objects, arrays, strings, numbers, booleans and null.

    JSON has no infinities and no NaN: they become the strings "Infinity", "-Infinity" and
    "NaN", as in protobuf's JSON. Integers stay exact, also beyond 2^53.
    """
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    plain: Json = value
    return plain
