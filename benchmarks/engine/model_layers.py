"""Layers with large windows, special data, or a batch of one; float32, channels first.

The layers of published models are those on which ONNX Runtime was faster at some time.
"""

from __future__ import annotations

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

_SPP = tuple(
    Layer("SPP", shape, kernel, 1, kernel // 2, operations=_FORWARD)
    for shape in ((8, 256, 20, 20), (4, 96, 40, 40))
    for kernel in (5, 9, 13)
)
_LARGE_WINDOWS = tuple(
    Layer("large window", (2, 64, 112, 112), kernel, 1, kernel // 2, operations=_FORWARD)
    for kernel in (9, 31)
)
_DATA = (
    Layer("PP-OCR cls", (4, 200, 2, 96), 2, 2, operations=_SELECTIONS, data="hardswish"),
    *(
        Layer("ResNet", (32, 64, 112, 112), 3, 2, 1, operations=_SELECTIONS, data=data)
        for data in ("relu", "hardswish", "1 % NaN", "denormals")
    ),
    Layer("VGG-16", (8, 64, 224, 224), 2, 2, operations=_SELECTIONS, data="hardswish"),
    Layer("GoogLeNet", (32, 192, 28, 28), 3, 1, 1, operations=_SELECTIONS, data="hardswish"),
)
_GLOBAL_AVERAGES = tuple(
    Layer(network, shape, operations=_AVERAGE)
    for network, shape in (
        ("PP-OCR det", (1, 24, 136, 160)),
        ("PP-OCR det", (1, 96, 68, 80)),
        ("PP-OCR det", (1, 96, 136, 160)),
        ("PP-OCR rec", (3, 240, 6, 80)),
        ("SqueezeNet", (1, 1000, 13, 13)),
        ("PP-OCR cls", (4, 200, 2, 96)),
        ("DenseNet", (1, 1024, 7, 7)),
    )
)
_WHOLE_PLANE = (Layer("ResNet", (1, 2048, 7, 7), 7, 1, operations=_AVERAGE),)
_PADS_NOT_COUNTED = tuple(
    Layer("Inception", shape, 3, stride, 1, operations=AVERAGES, counts_padding=False)
    for shape, stride in (
        ((32, 192, 28, 28), 1),
        ((8, 64, 112, 112), 1),
        ((8, 64, 112, 112), 2),
        ((1, 576, 14, 14), 1),
    )
)
_BATCH_OF_ONE = (
    Layer("Inception", (1, 1024, 7, 7), 3, 2, 1, operations=_MAX),
    Layer("Inception", (1, 1024, 7, 7), 3, 2, operations=_MAX),
    Layer("Inception", (1, 576, 14, 14), 3, 2, 1, operations=_MAX),
    Layer("Inception", (1, 576, 14, 14), 3, 1, 1, operations=(FORWARD_MAX, FORWARD_AVERAGE)),
    Layer("MTCNN RNet", (64, 28, 22, 22), 3, 2, operations=_MAX),
)
MODEL_LAYERS = (
    *_SPP,
    *_LARGE_WINDOWS,
    *_DATA,
    *_GLOBAL_AVERAGES,
    *_WHOLE_PLANE,
    *_PADS_NOT_COUNTED,
    *_BATCH_OF_ONE,
)
