"""Specs: `PoolSpec` encoded to its message and decoded."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pooling_engine import (
    InvalidSpecError,
    Layout,
    NamedPadding,
    NanPolicy,
    PoolSpec,
    TiePolicy,
)
from pooling_engine.specs import OPTION_MODES, check_length, option_error
from pooling_wire.enums import LAYOUTS, MODES, NAMED_PADDINGS, NAN_POLICIES, TIE_POLICIES
from pooling_wire.v1 import pooling_pb2 as pb

_MAX_CACHED_BYTES = 256  # size of a spec message whose decoded spec is cached; ours take about 40


@lru_cache(maxsize=512)  # building the message takes longer than pooling a small tensor
def encode_spec(spec: PoolSpec, spatial_axes: int) -> pb.PoolSpec:
    """Return the message of a spec for a tensor with `spatial_axes` spatial axes.

    The message is cached and must not be changed.

    Raises:
        InvalidSpecError: the spec has another number of axes.
    """
    message = pb.PoolSpec(mode=MODES.number(spec.mode), layout=LAYOUTS.number(spec.layout))
    if spec.global_window:
        message.global_window.SetInParent()
    elif spec.adaptive_output is not None:
        message.adaptive_windows.output_sizes.extend(spec.adaptive_outputs(spatial_axes))
    else:
        message.sliding_windows.CopyFrom(_encode_windows(spec, spatial_axes))
    if _applies("count_include_pad", spec):
        message.count_include_pad = spec.count_include_pad
    if spec.divisor_override is not None:
        message.divisor_override = spec.divisor_override
    if _applies("norm_p", spec):
        message.norm_p = spec.norm_p
    if _applies("tie_policy", spec):
        message.tie_policy = TIE_POLICIES.number(spec.tie_policy)
    if _applies("nan_policy", spec):
        message.nan_policy = NAN_POLICIES.number(spec.nan_policy)
    return message


def decode_spec(message: pb.PoolSpec) -> PoolSpec:
    """Return the spec in a message.

    Raises:
        InvalidSpecError: an option is missing, illegal, or does not apply to the mode.
    """
    data = message.SerializeToString(deterministic=True)
    return _decode_cached(data) if len(data) <= _MAX_CACHED_BYTES else _decode(message)


@lru_cache(maxsize=512)  # every request has a spec, and few of them differ
def _decode_cached(data: bytes) -> PoolSpec:
    return _decode(pb.PoolSpec.FromString(data))


def _decode(message: pb.PoolSpec) -> PoolSpec:
    mode = MODES.name(message.mode, "mode")
    options: dict[str, Any] = {}
    for name, modes in OPTION_MODES.items():
        if message.HasField(name):
            if mode not in modes:
                raise option_error(name, mode)
            options[name] = getattr(message, name)
    if "tie_policy" in options:
        options["tie_policy"] = TIE_POLICIES.name(message.tie_policy, "tie_policy", TiePolicy.FIRST)
    if "nan_policy" in options:
        options["nan_policy"] = NAN_POLICIES.name(
            message.nan_policy, "nan_policy", NanPolicy.PROPAGATE
        )
    layout = LAYOUTS.name(message.layout, "layout", Layout.CHANNELS_FIRST)
    return PoolSpec(mode, layout=layout, **_decode_windows(message), **options)


def _applies(option: str, spec: PoolSpec) -> bool:
    return spec.mode in OPTION_MODES[option]


def _encode_windows(spec: PoolSpec, spatial_axes: int) -> pb.SlidingWindows:
    message = pb.SlidingWindows(ceil_mode=spec.ceil_mode)
    if isinstance(spec.padding, NamedPadding):
        message.named_padding = NAMED_PADDINGS.number(spec.padding)
    for window in spec.windows(spatial_axes):
        message.axes.add(
            kernel=window.kernel,
            stride=window.stride,
            dilation=window.dilation,
            padding_before=window.padding_before,
            padding_after=window.padding_after,
        )
    return message


def _decode_windows(message: pb.PoolSpec) -> dict[str, Any]:
    kind = message.WhichOneof("windows")
    if kind == "global_window":
        return {"global_window": True}
    if kind == "adaptive_windows":
        return {"adaptive_output": tuple(message.adaptive_windows.output_sizes)}
    if kind is None or not message.sliding_windows.axes:
        raise InvalidSpecError(
            "the spec has no windows; it needs one entry per spatial axis", field="kernel"
        )
    return _decode_sliding(message.sliding_windows)


def _decode_sliding(message: pb.SlidingWindows) -> dict[str, Any]:
    axes = message.axes
    check_length("kernel", axes)  # before lists are made of what may be 100,000 entries
    padding: Any = tuple((axis.padding_before, axis.padding_after) for axis in axes)
    if message.named_padding:
        for number, pair in enumerate(padding):
            if pair != (0, 0):
                raise InvalidSpecError(
                    f"named_padding contradicts the padding {pair} of spatial axis {number}",
                    field=f"padding[{number}][{0 if pair[0] else 1}]",
                )
        padding = NAMED_PADDINGS.name(message.named_padding, "padding")
    return {
        "kernel": tuple(axis.kernel for axis in axes),
        "stride": tuple(axis.stride if axis.HasField("stride") else axis.kernel for axis in axes),
        "dilation": tuple(axis.dilation if axis.HasField("dilation") else 1 for axis in axes),
        "padding": padding,
        "ceil_mode": message.ceil_mode,
    }
