"""Layers with large windows, special data, bytes, or a batch of one, and whole models.

All are channels first, and float32 unless noted. The layers of published models are those on which
ONNX Runtime was faster at some time. Shapes were read from the model files.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.engine.suite import (
    AVERAGES,
    FORWARD_AVERAGE,
    FORWARD_INDICES,
    FORWARD_MAX,
    Layer,
)

_FORWARD = (FORWARD_MAX, FORWARD_AVERAGE, FORWARD_INDICES)
_SELECTIONS = (FORWARD_MAX, FORWARD_INDICES)
_MAX, _AVERAGE = (FORWARD_MAX,), (FORWARD_AVERAGE,)

SPP = tuple(
    Layer("SPP", shape, kernel, 1, kernel // 2, operations=_FORWARD)
    for shape in ((8, 256, 20, 20), (4, 96, 40, 40))
    for kernel in (5, 9, 13)
)
LARGE_WINDOWS = tuple(
    Layer("large window", (2, 64, 112, 112), kernel, 1, kernel // 2, operations=_FORWARD)
    for kernel in (9, 31)
)
DATA_LAYERS = (
    Layer("PP-OCR cls", (4, 200, 2, 96), 2, 2, operations=_SELECTIONS, data="hardswish"),
    *(
        Layer("ResNet", (32, 64, 112, 112), 3, 2, 1, operations=_SELECTIONS, data=data)
        for data in ("relu", "hardswish", "1 % NaN", "denormals")
    ),
    Layer("VGG-16", (8, 64, 224, 224), 2, 2, operations=_SELECTIONS, data="hardswish"),
    Layer("VGG-16", (8, 64, 224, 224), 2, 2, operations=_SELECTIONS, data="1 % NaN"),
    Layer("GoogLeNet", (32, 192, 28, 28), 3, 1, 1, operations=_SELECTIONS, data="hardswish"),
    Layer("GoogLeNet", (32, 192, 28, 28), 3, 1, 1, operations=_SELECTIONS, data="1 % NaN"),
)
# The last has a window that spans the plane.
GLOBAL_AVERAGES = (
    *(
        Layer(network, shape, operations=_AVERAGE)
        for network, shape in (
            ("PP-OCR det", (1, 24, 136, 160)),
            ("PP-OCR det", (1, 96, 68, 80)),
            ("PP-OCR det", (1, 96, 136, 160)),
            ("PP-OCR rec", (3, 240, 6, 80)),
            ("SqueezeNet", (1, 1000, 13, 13)),
            ("PP-OCR cls", (4, 200, 2, 96)),
            ("DenseNet", (1, 1024, 7, 7)),
            ("MobileNetV3", (1, 96, 14, 14)),
            ("MobileNetV3", (1, 120, 14, 14)),
            ("MobileNetV3", (1, 288, 7, 7)),
        )
    ),
    Layer("ResNet", (1, 2048, 7, 7), 7, 1, operations=_AVERAGE),
)
BYTE_LAYERS = tuple(
    Layer(network, shape, operations=_AVERAGE)
    for network, shape in (
        ("PP-OCR rec", (3, 480, 6, 80)),
        ("Inception", (1, 2048, 8, 8)),
        ("DenseNet", (1, 1024, 7, 7)),
    )
)
PADS_NOT_COUNTED = tuple(
    Layer("Inception", shape, 3, stride, 1, operations=AVERAGES, counts_padding=False)
    for shape, stride in (
        ((32, 192, 28, 28), 1),
        ((8, 64, 112, 112), 1),
        ((8, 64, 112, 112), 2),
        ((1, 576, 14, 14), 1),
    )
)
# Planes of at most 400 elements.
SMALL_PLANES = (
    Layer("Inception", (1, 1024, 7, 7), 3, 2, 1, operations=_MAX),
    Layer("Inception", (1, 1024, 7, 7), 3, 2, operations=_MAX),
    Layer("Inception v2", (1, 1024, 7, 7), 3, 1, 1, operations=_MAX),
    Layer("Inception", (1, 576, 14, 14), 3, 2, 1, operations=_MAX),
    Layer("Inception v2", (1, 576, 14, 14), 3, 2, (0, 1), operations=_MAX),
    Layer("Inception", (1, 576, 14, 14), 3, 1, 1, operations=(FORWARD_MAX, FORWARD_AVERAGE)),
    Layer("Inception v1", (1, 480, 13, 13), 3, 1, 1, operations=_MAX),
    Layer("Inception v1", (1, 832, 13, 13), 3, 2, operations=_MAX),
    Layer("Inception v1", (1, 832, 6, 6), 3, 1, 1, operations=_MAX),
    Layer("Inception v2", (1, 1024, 7, 7), 3, 1, 1, operations=_AVERAGE, counts_padding=False),
    Layer("ShuffleNet", (1, 272, 14, 14), 3, 2, 1, operations=_AVERAGE, counts_padding=False),
    Layer("DenseNet", (1, 512, 14, 14), 2, 2, operations=_AVERAGE),
)
MTCNN = Layer("MTCNN RNet", (64, 28, 22, 22), 3, 2, (0, 1), operations=_MAX)
MODEL_LAYERS = (
    *SPP,
    *LARGE_WINDOWS,
    *DATA_LAYERS,
    *GLOBAL_AVERAGES,
    *PADS_NOT_COUNTED,
    *SMALL_PLANES,
    MTCNN,
)


class Model(NamedTuple):
    """All pools of a model, in their order, each of one operation."""

    name: str
    pools: tuple[Layer, ...]


def _average(shape: tuple[int, ...], stride: int) -> Layer:
    return Layer("", shape, 3, stride, 1, operations=_AVERAGE, counts_padding=False)


def _largest(shape: tuple[int, ...], kernel: int, padding: int | tuple[int, int]) -> Layer:
    return Layer("", shape, kernel, 2, padding, operations=_MAX)


def _whole(shape: tuple[int, ...]) -> Layer:
    return Layer("", shape, operations=_AVERAGE)


MODELS = (
    Model(
        "PP-OCR cls",
        (
            *map(_whole, ((4, 8, 12, 96), (4, 32, 3, 96), (4, 88, 3, 96), (4, 88, 3, 96))),
            *map(_whole, ((4, 40, 3, 96), (4, 48, 3, 96), (4, 104, 2, 96))),
            *map(_whole, ((4, 200, 2, 96), (4, 200, 2, 96))),
            _largest((4, 200, 2, 96), 2, 0)._replace(data="hardswish"),
            _whole((4, 200, 1, 48)),
        ),
    ),
    Model(
        "Inception v2",
        (
            _largest((1, 64, 112, 112), 3, (0, 1)),
            _largest((1, 192, 56, 56), 3, (0, 1)),
            _average((1, 192, 28, 28), 1),
            _average((1, 256, 28, 28), 1),
            _largest((1, 320, 28, 28), 3, (0, 1)),
            *(_average((1, 576, 14, 14), 1) for _ in range(4)),
            _largest((1, 576, 14, 14), 3, (0, 1)),
            _average((1, 1024, 7, 7), 1),
            _largest((1, 1024, 7, 7), 3, 1)._replace(stride=1),
            Layer("", (1, 1024, 7, 7), 7, 1, operations=_AVERAGE),
        ),
    ),
    Model("MTCNN RNet", (MTCNN, _largest((64, 48, 9, 9), 3, 0))),
    Model(
        "ShuffleNet",
        (
            _largest((1, 24, 112, 112), 3, 1),
            _average((1, 24, 56, 56), 2),
            _average((1, 136, 28, 28), 2),
            _average((1, 272, 14, 14), 2),
            Layer("", (1, 544, 7, 7), 7, 1, operations=_AVERAGE),
        ),
    ),
)
