"""The picture of the demo: what was sent and what came back, forward above, backward below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Array = NDArray[Any]

# Places and sizes are pixels of the picture, from its upper left corner. A README shows it
# at half its size, so no text is smaller than 8 points. A gradient is drawn pixel for pixel,
# or its dots would fade.
_DPI = 200
_WIDTH, _HEIGHT = 1800, 1524
_COLUMNS = (46, 482, 918, 1354)
_FORWARD_TOP, _BACKWARD_TOP = 260, 900
_PANEL = (400, 480)
_EYE = (148, 166, 40, 32)  # left, top, width, height in the photograph
_CLOSE_PIXEL = 5  # how wide the close look draws one of them

_INK, _GREY, _LINE, _MARK = "#1b1f24", "#646c75", "#c9ced4", "#0a84ff"
_SENT_LIMIT, _LIMITS = 2.5, {"max": 1.5, "mean": 0.3, "min": 1.5}  # where the colours end
_HEAT = ("#ffffff", "#f0764f", "#b01f5c", "#4a1061", "#1a0730")


class Answer(NamedTuple):
    """What the server answered to one call.

    Attributes:
        array: the pooled photograph or its gradient.
        ms: milliseconds that the call took, as the caller saw it.
        indices: max and min, forward: the selected taps.
    """

    array: Array
    ms: float
    indices: Array | None = None


def draw(
    path: Path,
    photo: Array,
    pooled: dict[str, Answer],
    output_gradient: Array,
    gradients: dict[str, Answer],
) -> None:
    """Writes the picture, a PNG 1800 pixels wide.

    Args:
        path: where to.
        photo: what was pooled, of shape (1, 3, 480, 400) and from 0 to 1.
        pooled: the answers to forward, by mode.
        output_gradient: what was sent back.
        gradients: the answers to backward, by mode.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "text.color": _INK}):
        size = (_WIDTH / _DPI, _HEIGHT / _DPI)
        figure = Figure(figsize=size, dpi=_DPI, facecolor="white")
        _write_frame(figure)
        _draw_forward(figure, photo, pooled)
        _draw_backward(figure, output_gradient, gradients)
        figure.savefig(path, format="png", pil_kwargs={"optimize": True})


def _write_frame(figure: Figure) -> None:
    left = _COLUMNS[0]
    _write(figure, left, 74, "Pooling a photograph over gRPC", size=15, weight="bold")
    subtitle = (
        "float32, windows of 8 × 8, stride 3. Every array came from the server, and is bit for "
        "bit what the engine computes in process."
    )
    _write(figure, left, 116, subtitle, color=_GREY)
    origin = (
        "Photograph: Grace Hopper, US Navy, public domain, shipped with matplotlib; cropped. "
        "Gradients: summed over colours. Times: there and back."
    )
    _write(figure, left, _HEIGHT - 30, origin, color=_GREY)


def _draw_forward(figure: Figure, photo: Array, pooled: dict[str, Answer]) -> None:
    _write_head(
        figure, _FORWARD_TOP, "Forward", "The photograph goes out, pooled images come back."
    )
    place = (_COLUMNS[0], _FORWARD_TOP)
    _write_caption(figure, place, "photograph", photo)
    _show(figure, place, _as_image(photo), close=True)
    for left, (mode, answer) in zip(_COLUMNS[1:], pooled.items(), strict=True):
        place = (left, _FORWARD_TOP)
        _write_caption(figure, place, mode, answer.array, answer.ms)
        _show(figure, place, _as_image(answer.array))


def _draw_backward(figure: Figure, output_gradient: Array, gradients: dict[str, Answer]) -> None:
    text = (
        "max − min goes out: max hands it to each window's brightest pixel, mean to all, "
        "min to the darkest; overlaps add up."
    )
    _write_head(figure, _BACKWARD_TOP, "Backward", text)
    place = (_COLUMNS[0], _BACKWARD_TOP)
    _write_caption(figure, place, "output gradient", output_gradient)
    _show_heat(figure, place, output_gradient, _SENT_LIMIT)
    for left, (mode, answer) in zip(_COLUMNS[1:], gradients.items(), strict=True):
        place = (left, _BACKWARD_TOP)
        _write_caption(figure, place, mode, answer.array, answer.ms)
        _show_heat(figure, place, answer.array, _LIMITS[mode], close=True)


def _show_heat(
    figure: Figure, place: tuple[int, int], gradient: Array, limit: float, *, close: bool = False
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    heat = gradient.sum(axis=(0, 1))
    colours = LinearSegmentedColormap.from_list("heat", _HEAT)
    image = _show(figure, place, heat, close=close, cmap=colours, vmin=0, vmax=limit)
    box = (place[0], place[1] + _PANEL[1] + 14, _PANEL[0], 12)
    figure.colorbar(image, cax=_axes(figure, *box), orientation="horizontal", ticks=[])
    _frame(figure.axes[-1])
    _write(figure, box[0], box[1] + 40, "0", color=_GREY)
    _write(figure, box[0] + box[2], box[1] + 40, f"{limit:g} and more", color=_GREY, ha="right")


def _show(
    figure: Figure, place: tuple[int, int], image: Array, *, close: bool = False, **colours: Any
) -> AxesImage:
    how = {"aspect": "auto", "interpolation": "nearest"} | colours
    axes = _axes(figure, *place, *_PANEL)
    shown = axes.imshow(image, **how)
    _frame(axes)
    if close:
        left, top, width, height = _EYE
        axes.indicate_inset(
            (left - 0.5, top - 0.5, width, height), edgecolor=_MARK, alpha=1, linewidth=0.9
        )
        size = (width * _CLOSE_PIXEL, height * _CLOSE_PIXEL)
        corner = (place[0] + _PANEL[0] - size[0], place[1] + _PANEL[1] - size[1])
        inset = _axes(figure, *corner, *size)
        inset.imshow(image[top : top + height, left : left + width], **how)
        _frame(inset, _MARK, 0.9)
    return shown


def _axes(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    bottom = _HEIGHT - top - height
    return figure.add_axes(
        (left / _WIDTH, bottom / _HEIGHT, width / _WIDTH, height / _HEIGHT), xticks=[], yticks=[]
    )


def _frame(axes: Axes, colour: str = _LINE, width: float = 0.6) -> None:
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=width)


def _write_head(figure: Figure, top: int, title: str, text: str) -> None:
    _write(figure, _COLUMNS[0], top - 64, title, size=11, weight="bold")
    _write(figure, _COLUMNS[0] + 212, top - 64, text, color=_GREY)


def _write_caption(
    figure: Figure, place: tuple[int, int], title: str, array: Array, ms: float | None = None
) -> None:
    left, top = place
    facts = "×".join(map(str, array.shape)) + ("" if ms is None else f"  {ms:.1f} ms")
    _write(figure, left, top - 13, title, weight="bold")
    _write(figure, left + _PANEL[0], top - 13, facts, color=_GREY, ha="right")


def _write(figure: Figure, left: int, bottom: int, text: str, **style: Any) -> None:
    figure.text(left / _WIDTH, 1 - bottom / _HEIGHT, text, **style)


def _as_image(tensor: Array) -> Array:
    return np.moveaxis(tensor[0], 0, -1)
