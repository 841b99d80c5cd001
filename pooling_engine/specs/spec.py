"""`PoolSpec`: the options of a pooling layer, validated at construction."""

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
from pooling_engine.specs.torch_modules import torch_options
from pooling_engine.specs.window import Window

# Options that apply to some modes only; other modes accept only the default value.
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
    """Options of a pooling layer: mode, windows and details. Frozen and hashable.

    A size is one number for all spatial axes (``3``) or one per axis (``(3, 5)``).

    Args:
        mode: "max", "min", "average", "sum" or "lp".
        kernel: size of a window, at least 1. Exactly one of `kernel`, `adaptive_output`
            and `global_window` must be given.
        stride: step from window to window, at least 1; by default the kernel.
        padding: positions added at the borders: one size, or a size or a pair (before, after)
            per axis, each less than ``(kernel - 1) * dilation + 1``; or "valid",
            "same_upper" or "same_lower". Padding is never selected and adds nothing to a sum.
        dilation: step between neighbouring elements of a window, at least 1.
        ceil_mode: round the number of outputs up; not with a named padding.
        count_include_pad: for "average": whether padding counts in the divisor.
        divisor_override: for "average": a finite divisor other than zero that replaces the count.
        norm_p: for "lp": the p of the norm, at least 1, or infinity.
        adaptive_output: number of outputs along each axis, instead of a kernel.
        global_window: one window over all spatial axes, instead of a kernel.
        layout: "channels_first" or "channels_last".
        tie_policy: for "max" and "min": "first", "all" or "split".
        nan_policy: for "max" and "min": "propagate", "ignore" or "error".

    Raises:
        InvalidSpecError: an option is invalid, or does not apply to the mode.
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
        self._store_hash()
        self._check_applicable()
        self._check_numbers()
        self._check_windows()
        if self.kernel is not None:
            self.windows(self._sized_axes()[0] or 1)

    @classmethod
    def from_torch(cls, module: Any) -> PoolSpec:
        """Return the spec of a pooling module of `torch.nn` or `pooling_client.torch`.

        The module's attributes are read; PyTorch is not imported. The spec has one size per axis,
        so it fits only tensors of the module's rank, with a batch axis.

        Args:
            module: ``MaxPool``, ``AvgPool``, ``AdaptiveMaxPool`` or ``AdaptiveAvgPool`` over one to
                three axes; of `pooling_client.torch` also ``MinPool``, ``SumPool`` and ``LPPool``.

        Raises:
            UnsupportedError: no spec computes the same as the module.
            InvalidSpecError: it is not a pooling module, or its arguments are invalid.
        """
        return cls(**torch_options(module))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __repr__(self) -> str:
        """Return the expression that creates the spec, without options that have defaults."""
        options = (field.name for field in dataclasses.fields(self)[1:])
        given = [
            f"{name}={(str(value) if isinstance(value, StrEnum) else value)!r}"
            for name in options
            if (value := getattr(self, name)) != _DEFAULTS.get(name)
        ]
        return f"PoolSpec({', '.join([repr(str(self.mode)), *given])})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._store_hash()  # hashes of strings differ between processes

    def _store_hash(self) -> None:
        # Plans are looked up by spec, and hashing every field took longer than the look-up.
        fields = tuple(getattr(self, field.name) for field in dataclasses.fields(self))
        object.__setattr__(self, "_hash", hash(fields))

    def windows(self, spatial_axes: int) -> tuple[Window, ...]:
        """Return the window along each of `spatial_axes` axes; named padding is left at zero.

        Raises:
            InvalidSpecError: the spec has sizes for another number of axes, has no kernel, or
                its padding is not less than the extent of the window.
        """
        if self.kernel is None:
            raise InvalidSpecError("windows() needs a spec with a kernel", field="kernel")
        self._check_rank(spatial_axes)
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
        """Return the number of outputs along each of `spatial_axes` axes of an adaptive spec.

        Raises:
            InvalidSpecError: the spec has sizes for another number of axes, or is not adaptive.
        """
        if self.adaptive_output is None:
            raise InvalidSpecError("the spec is not adaptive", field="adaptive_output")
        self._check_rank(spatial_axes)
        return _per_axis(self.adaptive_output, spatial_axes)

    def _check_rank(self, spatial_axes: int) -> None:
        named, field = self._sized_axes()
        if named not in (0, spatial_axes):
            raise InvalidSpecError(
                f"{field} has sizes for {named} spatial axes, but the tensor has {spatial_axes}",
                field=field,
            )

    def _sized_axes(self) -> tuple[int, str]:
        """Return the number of axes with sizes of their own (or 0), and the option with them."""
        lengths = {
            name: len(value)
            for name in ("kernel", "stride", "padding", "dilation", "adaptive_output")
            if isinstance(value := getattr(self, name), tuple)
        }
        if len(set(lengths.values())) > 1:
            given = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InvalidSpecError(
                f"sizes are given for different numbers of spatial axes: {given}",
                field=next(iter(lengths)),
            )
        return next(((length, name) for name, length in lengths.items()), (0, ""))

    def _check_applicable(self) -> None:
        for name, modes in OPTION_MODES.items():
            if self.mode not in modes and getattr(self, name) != _DEFAULTS[name]:
                raise option_error(name, self.mode)

    def _check_numbers(self) -> None:
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

    def _check_windows(self) -> None:
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
                f'ceil_mode contradicts padding "{self.padding}", '
                "which determines the number of outputs",
                field="ceil_mode",
            )


_DEFAULTS: dict[str, Any] = dict(PoolSpec.__init__.__kwdefaults__ or {}) | {
    "stride": None,
    "padding": 0,
    "dilation": 1,
}


def option_error(name: str, mode: Mode) -> InvalidSpecError:
    """Return the error for an option that does not apply to the mode."""
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
