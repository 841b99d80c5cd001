"""The picture of the demo: the pooled images, and where their gradients land."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]
Box = tuple[int, int, int, int]  # left, top, width, height

# Places and sizes are pixels of the picture. A README shows it at half its size, so
# the pixels of the photograph are drawn 2 and 5 wide, and no text is smaller than 7 points.
_DPI = 200
_WIDTH, _HEIGHT = 1800, 1622
_COLUMNS = (46, 482, 918, 1354)
_FORWARD_TOP, _BACKWARD_TOP = 152, 762
_SMALL, _LARGE, _TALL = (400, 469), (836, 670), (400, 670)
_CAPTION = 104  # from the top of a row to its images
_BAR_TOP = _BACKWARD_TOP + _CAPTION + _TALL[1] + 18
_PORTRAIT: Box = (8, 16, 418, 335)  # pixels of the photograph: the head, drawn 2 wide
_EYE: Box = (178, 122, 80, 134)  # the brow, the glasses and an eye, drawn 5 wide

_INK, _GREY, _MARK = "#1b1f24", "#646c75", "#ffb000"
_COLOURS = "RdBu_r"
_LIMIT = 3.0  # of the colours of the sparse gradients; a few pixels exceed it


@dataclass(frozen=True)
class Pooled:
    """What the server answered for one mode.

    Attributes:
        output: the pooled photograph, of shape (1, 3, H, W).
        gradient: the input gradient that came back for the output gradient.
        forward_ms: milliseconds that the pooling took, as the caller saw it.
        backward_ms: the same of the gradient.
    """

    output: Array
    gradient: Array
    forward_ms: float
    backward_ms: float


def draw(path: Path, photo: Array, windows: str, answers: dict[str, Pooled]) -> None:
    """Writes the picture, a PNG 1800 pixels wide.

    Args:
        path: where to.
        photo: of shape (1, 3, H, W), from 0 to 1.
        windows: the kernel and the stride in words.
        answers: by mode, "max", "mean" and "min"; all for the output gradient max - min.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {"font.family": "DejaVu Sans", "font.size": 7.5, "text.color": _INK}
    with matplotlib.rc_context(style):
        size = (_WIDTH / _DPI, _HEIGHT / _DPI)
        figure = Figure(figsize=size, dpi=_DPI, facecolor="white")
        _write_frame(figure, windows)
        _draw_forward(figure, photo, answers)
        _draw_backward(figure, photo, answers)
        figure.savefig(path, format="png", pil_kwargs={"optimize": True})


def _write_frame(figure: Figure, windows: str) -> None:
    left = _COLUMNS[0]
    _write(figure, left, 72, "Pooling a photograph over gRPC", size=15, weight="bold")
    _write(
        figure,
        left,
        112,
        f"{windows}. Every array came from the server, and is bit for bit what the engine "
        "computes in process.",
        color=_GREY,
    )
    _write(
        figure,
        left,
        _HEIGHT - 24,
        "Grace Hopper: US Navy photograph, public domain, as shipped with matplotlib. "
        "Times: what the client waited, a server process on the same machine.",
        color=_GREY,
        size=7,
    )


def _draw_forward(figure: Figure, photo: Array, answers: dict[str, Pooled]) -> None:
    _head(figure, _FORWARD_TOP, "Forward", "the photograph goes out, pooled images come back")
    top = _FORWARD_TOP + _CAPTION
    axes = _show(figure, _COLUMNS[0], top, _SMALL, _as_image(photo), interpolation="antialiased")
    _outline(axes, _PORTRAIT)
    _caption(figure, _COLUMNS[0], top, _SMALL, "photograph", f"{photo.shape}")
    for left, (mode, answer) in zip(_COLUMNS[1:], answers.items(), strict=True):
        _show(figure, left, top, _SMALL, _as_image(answer.output))
        facts = f"{answer.output.shape}  {answer.forward_ms:.1f} ms"
        _caption(figure, left, top, _SMALL, mode, facts)


def _draw_backward(figure: Figure, photo: Array, answers: dict[str, Pooled]) -> None:
    _head(
        figure,
        _BACKWARD_TOP,
        "Backward",
        "max − min, the contrast in a window, goes out as output gradient; "
        "what overlapping windows send back adds up",
    )
    top = _BACKWARD_TOP + _CAPTION
    sharp = _sum_colours(answers["max"].gradient) - _sum_colours(answers["min"].gradient)
    smooth = _sum_colours(answers["mean"].gradient)
    times = " + ".join(f"{answers[mode].backward_ms:.1f}" for mode in ("max", "min"))
    scale = {"cmap": _COLOURS, "vmin": -_LIMIT, "vmax": _LIMIT}
    axes = _show(figure, _COLUMNS[0], top, _LARGE, sharp, _PORTRAIT, **scale)
    _outline(axes, _EYE)
    facts = f"{photo.shape}  {times} ms"
    _caption(figure, _COLUMNS[0], top, _LARGE, "max: on the brightest pixel, min: on the darkest", facts)
    axes = _show(figure, _COLUMNS[2], top, _TALL, photo[0].mean(axis=0) * 0.5 + 0.5, _EYE, cmap="gray", vmin=0, vmax=1)
    strength = np.minimum(abs(sharp) / _LIMIT, 1)
    axes.imshow(sharp, alpha=strength, interpolation="nearest", **scale)
    _zoom(axes, _EYE)
    _caption(figure, _COLUMNS[2], top, _TALL, "the same, over the eye", "")
    limit = float(smooth.max())
    _show(figure, _COLUMNS[3], top, _TALL, smooth, _EYE, cmap=_COLOURS, vmin=-limit, vmax=limit)
    _caption(figure, _COLUMNS[3], top, _TALL, "mean: on all", f"{answers['mean'].backward_ms:.1f} ms")


def _show(figure: Figure, left: int, top: int, size: tuple[int, int], image: Array, box: Box | None = None, **how: Any) -> Axes:
    width, height = size
    axes = figure.add_axes(
        (left / _WIDTH, 1 - (top + height) / _HEIGHT, width / _WIDTH, height / _HEIGHT)
    )
    axes.imshow(image, **({"aspect": "auto", "interpolation": "nearest"} | how))
    if box:
        _zoom(axes, box)
    axes.set_axis_off()
    return axes


def _zoom(axes: Axes, box: Box) -> None:
    left, top, width, height = box
    axes.set_xlim(left - 0.5, left + width - 0.5)
    axes.set_ylim(top + height - 0.5, top - 0.5)


def _outline(axes: Axes, box: Box) -> None:
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=_MARK, linewidth=1.2))


def _head(figure: Figure, top: int, title: str, text: str) -> None:
    _write(figure, _COLUMNS[0], top + 40, title, size=10.5, weight="bold")
    _write(figure, _COLUMNS[0] + 200, top + 40, text, color=_GREY)


def _caption(figure: Figure, left: int, top: int, size: tuple[int, int], title: str, facts: str) -> None:
    _write(figure, left, top - 12, title, weight="bold")
    _write(figure, left + size[0], top - 12, facts, color=_GREY, size=7, ha="right")


def _write(figure: Figure, left: int, top: int, text: str, **style: Any) -> None:
    figure.text(left / _WIDTH, 1 - top / _HEIGHT, text, **style)


def _as_image(tensor: Array) -> Array:
    return np.moveaxis(tensor[0], 0, -1)


def _sum_colours(gradient: Array) -> Array:
    total: Array = gradient.sum(axis=(0, 1))
    return total
