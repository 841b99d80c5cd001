"""Layers of well-known networks and the five operations of the engine benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import pooling_engine
from pooling_engine import PoolPlan, PoolSpec

FORWARD_MAX, FORWARD_AVERAGE = "forward max", "forward average"
FORWARD_INDICES = "forward max with indices"
BACKWARD_MAX, BACKWARD_AVERAGE = "backward max", "backward average"
MODEL_POOLS = "forward, all pools"  # of a whole model
OPERATIONS = (FORWARD_MAX, FORWARD_AVERAGE, FORWARD_INDICES, BACKWARD_MAX, BACKWARD_AVERAGE)
AVERAGES = (FORWARD_AVERAGE, BACKWARD_AVERAGE)
DTYPES = ("float32", "float16")
BYTES = "uint8"
RELATED_KERNEL = 9  # its time is compared with the time of large windows
LAYOUTS = {"NCHW": "channels_first", "NHWC": "channels_last"}


def _with_nans(x: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(2).random(x.shape) < 0.01, np.float32(np.nan), x)


# Kinds of input, each made from normal numbers. Hardswish turns 23 % of them into -0.0.
DATA: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "hardswish": lambda x: 4 * x * np.clip(4 * x + 3, 0, 6) / 6,
    "1 % NaN": _with_nans,
    "denormals": lambda x: x * np.float32(1e-40),
}


class Layer(NamedTuple):
    """Layer of a network: its input shape, channels first, its windows, and its data.

    Attributes:
        padding: before and after each axis, or two numbers if these differ.
        data: the kind of input, a key of `DATA`.
    """

    network: str
    shape: tuple[int, ...]
    kernel: int = 0
    stride: int = 0
    padding: int | tuple[int, int] = 0
    adaptive: int = 0
    operations: tuple[str, ...] = OPERATIONS
    data: str = "normal"
    counts_padding: bool = True

    @property
    def name(self) -> str:
        """Network, shape, windows and data in one line."""
        pads = "" if self.counts_padding else ", pads not counted"
        data = "" if self.data == "normal" else f", {self.data}"
        return f"{self._windows()}{pads}{data}"

    def _windows(self) -> str:
        shape = "x".join(map(str, self.shape))
        if not self.kernel:
            return f"{self.network} {shape}" + (f" to {self.adaptive}" if self.adaptive else "")
        before, after = self.pads()
        padding = f" p{before}" if before == after else f" p{before}+{after}"
        padding = padding if before + after else ""
        return f"{self.network} {shape} k{self.kernel} s{self.stride}{padding}"

    def pads(self) -> tuple[int, int]:
        """Return the padding before and after each axis."""
        return self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)

    def related(self) -> Layer | None:
        """Return the layer whose time a goal compares with that of this one, if any.

        It has normal data, counts its padding, or has a smaller kernel.
        """
        if self.data != "normal":
            return self._replace(data="normal")
        if not self.counts_padding:
            return self._replace(counts_padding=True)
        if self.network == "large window" and self.kernel > RELATED_KERNEL:
            return self._replace(kernel=RELATED_KERNEL, padding=RELATED_KERNEL // 2)
        return None

    def options(self) -> dict[str, Any]:
        """Return the window options of a `PoolSpec`."""
        if self.kernel:
            padding = [self.pads()] * (len(self.shape) - 2)
            return {"kernel": self.kernel, "stride": self.stride, "padding": padding}
        return {"adaptive_output": self.adaptive} if self.adaptive else {"global_window": True}


LAYERS = (
    Layer("LeNet", (10, 16, 14, 14), 3, 2),
    Layer("LeNet", (64, 6, 28, 28), 2, 2),
    Layer("AlexNet", (32, 64, 55, 55), 3, 2),
    Layer("VGG-16", (8, 64, 224, 224), 2, 2),
    Layer("VGG-16", (8, 128, 112, 112), 2, 2),
    Layer("VGG-16", (8, 256, 56, 56), 2, 2),
    Layer("VGG-16", (8, 512, 28, 28), 2, 2),
    Layer("VGG-16", (8, 512, 14, 14), 2, 2),
    Layer("ResNet", (32, 64, 112, 112), 3, 2, 1),
    Layer("GoogLeNet", (32, 192, 28, 28), 3, 1, 1),
    Layer("Inception", (32, 192, 28, 28), 3, 1, 1, operations=AVERAGES),
    Layer("DenseNet", (32, 128, 56, 56), 2, 2, operations=AVERAGES),
    Layer("global", (32, 2048, 7, 7)),
    Layer("global", (32, 512, 28, 28)),
    Layer("adaptive", (32, 256, 13, 13), adaptive=7),
    Layer("5x5 window", (32, 192, 28, 28), 5, 1, 2),
    Layer("7x7 window", (32, 64, 56, 56), 7, 2, 3),
    Layer("video", (4, 32, 16, 56, 56), 2, 2),
    Layer("audio", (32, 128, 16000), 4, 4),
)
SMALLEST = LAYERS[0]


class Tensors:
    """Tensors of one layer in one element type and layout, with reusable result arrays."""

    def __init__(self, layer: Layer, dtype: str, layout: str) -> None:
        self.layer, self.dtype, self.layout = layer, np.dtype(dtype), layout
        self.x = DATA[layer.data](self._normal(0, layer.shape))

    def spec(self, mode: str) -> PoolSpec:
        """Return the spec of the layer in this layout."""
        options = self.layer.options()
        if mode == "average":
            options["count_include_pad"] = self.layer.counts_padding
        return PoolSpec(mode, layout=LAYOUTS[self.layout], **options)

    @cached_property
    def plan(self) -> PoolPlan:
        """Plan of max pooling; average pooling has the same shapes."""
        return pooling_engine.plan(self.spec("max"), self.x.shape, self.dtype)

    @cached_property
    def dy(self) -> np.ndarray:
        """Gradient of the output."""
        shape = self.plan.output_shape
        channels = (shape[0], shape[-1], *shape[1:-1]) if self.layout == "NHWC" else shape
        return self._normal(1, channels)

    @cached_property
    def indices(self) -> np.ndarray:
        """Indices of the selected elements of max pooling."""
        return pooling_engine.forward(self.x, self.spec("max"), return_indices=True).indices

    @cached_property
    def y(self) -> np.ndarray:
        """Array for the output; an average of bytes is a float32."""
        return np.zeros_like(self.dy, np.float32 if self.dtype == BYTES else self.dtype)

    @cached_property
    def dx(self) -> np.ndarray:
        """Array for the gradient of the input."""
        dx = np.empty_like(self.x)
        dx.fill(0)  # map its pages
        return dx

    def _normal(self, seed: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return random numbers of a channels-first shape, the same in both layouts."""
        generator = np.random.default_rng(seed)
        if self.dtype == BYTES:
            return generator.integers(0, 256, shape, np.uint8)
        values = generator.standard_normal(shape, dtype=np.float32)
        if self.layout == "NHWC":
            values = np.moveaxis(values, 1, -1)
        return np.ascontiguousarray(values, dtype=self.dtype)


def mode_of(operation: str) -> str:
    """Return the pooling mode of an operation."""
    return "average" if operation in AVERAGES else "max"
