"""What is asked: `PoolSpec`. Options are validated here, and nowhere else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pooling_engine.errors import InvalidSpecError
from pooling_engine.specs.enums import (
    SELECTING_MODES,
    Layout,
    Mode,
    NamedPadding,
    NanPolicy,
    TiePolicy,
)
from pooling_engine.specs.options import choice, flag, number, optional, paddings, sizes
from pooling_engine.specs.window import Window

# The options that belong to some modes only; with another mode they are refused.
OPTION_MODES: dict[str, frozenset[Mode]] = {
    "count_include_pad": frozenset({Mode.AVERAGE}),
    "divisor_override": frozenset({Mode.AVERAGE}),
    "norm_p": frozenset({Mode.LP}),
    "tie_policy": SELECTING_MODES,
    "nan_policy": SELECTING_MODES,
}


Sizes = int | Sequence[int]
Paddings = int | str | Sequence[int | Sequence[int]]


@dataclass(frozen=True, init=False, repr=False)
class PoolSpec:
    """What to compute: a mode, the windows, and options; frozen and hashable.

    Sizes are given once for all spatial axes (``3``) or for each (``(3, 5)``).

    Args:
        mode: "max", "min", "average", "sum" or "lp".
        kernel: taps per window, at least 1. Exactly one of `kernel`, `adaptive_output`
            and `global_window` is given.
        stride: step from window to window, at least 1; default: the kernel.
        padding: positions added at the borders: one size, a size or a pair (before, after)
            for each axis, each less than ``(kernel - 1) * dilation + 1``; or "valid",
            "same_upper" or "same_lower". Padded taps never win and add nothing.
        dilation: step from tap to tap, at least 1.
        ceil_mode: round the number of outputs up; not with a named padding.
        count_include_pad: for "average": whether padded taps count in the divisor.
        divisor_override: for "average": a finite divisor, not zero, in place of the count.
        norm_p: for "lp": the p of the norm, at least 1, or infinity.
        adaptive_output: number of outputs along each axis, in place of a kernel.
        global_window: one window over all spatial axes, in place of a kernel.
        layout: "channels_first" or "channels_last".
        tie_policy: for "max" and "min": "first", "all" or "split".
        nan_policy: for "max" and "min": "propagate", "ignore" or "error".

    Raises:
        InvalidSpecError: an option is illegal, or does not apply to the mode.
    """

    mode: Mode
    kernel: int | tuple[int, ...] | None
    stride: int | tuple[int, ...] | None
    padding: int | tuple[tuple[int, int], ...] | NamedPadding
    dilation: int | tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: float | None
    norm_p: float
    adaptive_output: int | tuple[int, ...] | None
    global_window: bool
    layout: Layout
    tie_policy: TiePolicy
    nan_policy: NanPolicy

    def __init__(
        self,
        mode: str,
        kernel: Sizes | None = None,
        stride: Sizes | None = None,
        padding: Paddings = 0,
        dilation: Sizes = 1,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: float | None = None,
        norm_p: float = 2.0,
        adaptive_output: Sizes | None = None,
        global_window: bool = False,
        layout: str = "channels_first",
        tie_policy: str = "first",
        nan_policy: str = "propagate",
    ) -> None:
        values = {
            "mode": choice("mode", Mode, mode),
            "kernel": optional(sizes, "kernel", kernel),
            "stride": optional(sizes, "stride", stride),
            "padding": paddings(padding),
            "dilation": sizes("dilation", dilation),
            "ceil_mode": flag("ceil_mode", ceil_mode),
            "count_include_pad": flag("count_include_pad", count_include_pad),
            "divisor_override": optional(number, "divisor_override", divisor_override),
            "norm_p": number("norm_p", norm_p),
            "adaptive_output": optional(sizes, "adaptive_output", adaptive_output),
            "global_window": flag("global_window", global_window),
            "layout": choice("layout", Layout, layout),
            "tie_policy": choice("tie_policy", TiePolicy, tie_policy),
            "nan_policy": choice("nan_policy", NanPolicy, nan_policy),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._remember_hash()
        self._refuse_inapplicable_options()
        self._refuse_bad_numbers()
        self._refuse_contradictory_windows()
        if self.kernel is not None:
            self.windows(self._axes_named()[0] or 1)

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __repr__(self) -> str:
        """The spec as it would be written, without the options that have their defaults."""
        options = (field.name for field in dataclasses.fields(self)[1:])
        given = [
            f"{name}={(str(value) if isinstance(value, StrEnum) else value)!r}"
            for name in options
            if (value := getattr(self, name)) != _DEFAULTS.get(name)
        ]
        return f"PoolSpec({', '.join([repr(str(self.mode)), *given])})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remember_hash()  # another process has other hashes of strings

    def _remember_hash(self) -> None:
        """Plans are looked up by spec, and hashing every field took longer than the look-up."""
        fields = tuple(getattr(self, field.name) for field in dataclasses.fields(self))
        object.__setattr__(self, "_hash", hash(fields))

    def windows(self, spatial_axes: int) -> tuple[Window, ...]:
        """The window along each of `spatial_axes` axes; a named padding is left at zero.

        Raises:
            InvalidSpecError: the spec names another number of axes, has no kernel, or pads
                by a whole extent or more.
        """
        if self.kernel is None:
            raise InvalidSpecError(
                "only a spec with a kernel has windows of one size", field="kernel"
            )
        self._refuse_other_rank(spatial_axes)
        kernels = _per_axis(self.kernel, spatial_axes)
        strides = kernels if self.stride is None else _per_axis(self.stride, spatial_axes)
        dilations = _per_axis(self.dilation, spatial_axes)
        pairs = _pairs(self.padding, spatial_axes)
        windows = []
        for axis, (kernel, stride, dilation, pair) in enumerate(
            zip(kernels, strides, dilations, pairs, strict=True)
        ):
            window = Window(kernel, stride, dilation, *pair)
            if max(pair) >= window.extent:
                side = 0 if pair[0] >= window.extent else 1
                raise InvalidSpecError(
                    f"padding {pair} on spatial axis {axis} must be less than "
                    f"(kernel - 1) * dilation + 1 = {window.extent} on either side",
                    field=f"padding[{axis}][{side}]",
                )
            windows.append(window)
        return tuple(windows)

    def adaptive_outputs(self, spatial_axes: int) -> tuple[int, ...]:
        """The number of outputs along each of `spatial_axes` axes of an adaptive spec.

        Raises:
            InvalidSpecError: the spec names another number of axes, or is not adaptive.
        """
        if self.adaptive_output is None:
            raise InvalidSpecError("the spec is not adaptive", field="adaptive_output")
        self._refuse_other_rank(spatial_axes)
        return _per_axis(self.adaptive_output, spatial_axes)

    def _refuse_other_rank(self, spatial_axes: int) -> None:
        named, field = self._axes_named()
        if named not in (0, spatial_axes):
            raise InvalidSpecError(
                f"{field} gives sizes for {named} spatial axes, the tensor has {spatial_axes}",
                field=field,
            )

    def _axes_named(self) -> tuple[int, str]:
        """How many axes are named by sizes that were given one by one, or 0, and by which."""
        lengths = {
            name: len(value)
            for name in ("kernel", "stride", "padding", "dilation", "adaptive_output")
            if isinstance(value := getattr(self, name), tuple)
        }
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InvalidSpecError(
                f"sizes are given for different numbers of spatial axes: {said}",
                field=next(iter(lengths)),
            )
        return next(((length, name) for name, length in lengths.items()), (0, ""))

    def _refuse_inapplicable_options(self) -> None:
        for name, modes in OPTION_MODES.items():
            if self.mode not in modes and getattr(self, name) != _DEFAULTS[name]:
                raise option_error(name, self.mode)

    def _refuse_bad_numbers(self) -> None:
        divisor = self.divisor_override
        if divisor is not None and (divisor == 0 or not math.isfinite(divisor)):
            raise InvalidSpecError(
                f"divisor_override is {divisor}; it must be finite and not zero",
                field="divisor_override",
            )
        if not self.norm_p >= 1:
            raise InvalidSpecError(
                f"norm_p is {self.norm_p}; it must be at least 1, or infinity", field="norm_p"
            )

    def _refuse_contradictory_windows(self) -> None:
        given = [
            name
            for name, is_given in (
                ("kernel", self.kernel is not None),
                ("adaptive_output", self.adaptive_output is not None),
                ("global_window", self.global_window),
            )
            if is_given
        ]
        if len(given) != 1:
            raise InvalidSpecError(
                "exactly one of kernel, adaptive_output and global_window must be given, not "
                + (" and ".join(given) or "none"),
                field=given[1] if given else "kernel",
            )
        if self.kernel is None:
            for name in ("stride", "padding", "dilation", "ceil_mode"):
                if getattr(self, name) != _DEFAULTS[name]:
                    raise InvalidSpecError(f"{name} does not apply to {given[0]}", field=name)
        if self.ceil_mode and isinstance(self.padding, NamedPadding):
            raise InvalidSpecError(
                f'ceil_mode contradicts padding "{self.padding}", which counts the outputs',
                field="ceil_mode",
            )


_DEFAULTS: dict[str, Any] = dict(PoolSpec.__init__.__kwdefaults__ or {}) | {
    "stride": None,
    "padding": 0,
    "dilation": 1,
}


def option_error(name: str, mode: Mode) -> InvalidSpecError:
    """The refusal of an option that does not belong to the mode."""
    modes = " and ".join(f'"{legal}"' for legal in Mode if legal in OPTION_MODES[name])
    return InvalidSpecError(f'{name} applies to {modes} only, not to "{mode}"', field=name)


def _per_axis(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * axes


def _pairs(
    padding: int | tuple[tuple[int, int], ...] | NamedPadding, axes: int
) -> tuple[tuple[int, int], ...]:
    if isinstance(padding, NamedPadding):
        return ((0, 0),) * axes
    return padding if isinstance(padding, tuple) else ((padding, padding),) * axes
