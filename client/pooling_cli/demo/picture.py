"""The demo's picture: inputs and results of the calls, forward above, backward below."""

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

# Positions and sizes are pixels of the picture, from its upper left corner. The README shows it
# at half size, so no text is smaller than 8 points. Gradients are drawn pixel for pixel:
# scaling would fade their dots.
_DPI = 200
_WIDTH, _HEIGHT = 1800, 1524
_COLUMNS = (46, 482, 918, 1354)
_FORWARD_TOP, _BACKWARD_TOP = 260, 900
_PANEL = (400, 480)
_EYE = (148, 166, 40, 32)  # left, top, width, height in the photograph
_CLOSE_PIXEL = 5  # width of one of them in the inset

_INK, _GREY, _LINE, _MARK = "#1b1f24", "#646c75", "#c9ced4", "#0a84ff"
_SENT_LIMIT, _LIMITS = 2.5, {"max": 1.5, "average": 0.3, "min": 1.5}  # of the colour scales
_HEAT = ("#ffffff", "#f0764f", "#b01f5c", "#4a1061", "#1a0730")


class Reply(NamedTuple):
    """The server's reply to one call.

    Attributes:
        array: the pooled photograph or its gradient.
        ms: duration of the call in milliseconds, measured by the caller.
        indices: max and min, forward: the indices of the selected elements.
    """

    array: Array
    ms: float
    indices: Array | None = None


def draw(
    path: Path,
    photo: Array,
    pooled: dict[str, Reply],
    output_gradient: Array,
    gradients: dict[str, Reply],
) -> None:
    """Write the picture, a PNG 1800 pixels wide.

    Args:
        path: the file to write.
        photo: the input, of shape (1, 3, 480, 400), with values from 0 to 1.
        pooled: the replies to forward, by mode.
        output_gradient: the output gradient of the backward calls.
        gradients: the replies to backward, by mode.
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
        "float32, 8 × 8 windows, stride 3. The server computed every result; each is bit-identical "
        "to the local engine's."
    )
    _write(figure, left, 116, subtitle, color=_GREY)
    origin = (
        "Photograph: Grace Hopper (US Navy, public domain), cropped. Insets: blue box enlarged. "
        "Gradients: summed over colours. Times: round trip."
    )
    _write(figure, left, _HEIGHT - 30, origin, color=_GREY)


def _draw_forward(figure: Figure, photo: Array, pooled: dict[str, Reply]) -> None:
    _write_head(
        figure,
        _FORWARD_TOP,
        "Forward",
        "The client sends the photograph; the server returns the pooled image.",
    )
    place = (_COLUMNS[0], _FORWARD_TOP)
    _write_caption(figure, place, "photograph", photo)
    _show(figure, place, _as_image(photo), inset=True)
    for left, (mode, reply) in zip(_COLUMNS[1:], pooled.items(), strict=True):
        place = (left, _FORWARD_TOP)
        _write_caption(figure, place, mode, reply.array, reply.ms)
        _show(figure, place, _as_image(reply.array))


def _draw_backward(figure: Figure, output_gradient: Array, gradients: dict[str, Reply]) -> None:
    text = (
        "The output gradient is max − min. Each window passes it to its brightest pixel, to all "
        "pixels, or to its darkest; overlaps add up."
    )
    _write_head(figure, _BACKWARD_TOP, "Backward", text)
    place = (_COLUMNS[0], _BACKWARD_TOP)
    _write_caption(figure, place, "output gradient", output_gradient)
    _show_heat(figure, place, output_gradient, _SENT_LIMIT)
    for left, (mode, reply) in zip(_COLUMNS[1:], gradients.items(), strict=True):
        place = (left, _BACKWARD_TOP)
        _write_caption(figure, place, mode, reply.array, reply.ms)
        _show_heat(figure, place, reply.array, _LIMITS[mode], inset=True)


def _show_heat(
    figure: Figure, place: tuple[int, int], gradient: Array, limit: float, *, inset: bool = False
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    heat = gradient.sum(axis=(0, 1))
    colours = LinearSegmentedColormap.from_list("heat", _HEAT)
    image = _show(figure, place, heat, inset=inset, cmap=colours, vmin=0, vmax=limit)
    box = (place[0], place[1] + _PANEL[1] + 14, _PANEL[0], 12)
    figure.colorbar(image, cax=_axes(figure, *box), orientation="horizontal", ticks=[])
    _frame(figure.axes[-1])
    _write(figure, box[0], box[1] + 40, "0", color=_GREY)
    _write(figure, box[0] + box[2], box[1] + 40, f"≥ {limit:g}", color=_GREY, ha="right")


def _show(
    figure: Figure, place: tuple[int, int], image: Array, *, inset: bool = False, **colours: Any
) -> AxesImage:
    how = {"aspect": "auto", "interpolation": "nearest"} | colours
    axes = _axes(figure, *place, *_PANEL)
    shown = axes.imshow(image, **how)
    _frame(axes)
    if inset:
        left, top, width, height = _EYE
        axes.indicate_inset(
            (left - 0.5, top - 0.5, width, height), edgecolor=_MARK, alpha=1, linewidth=0.9
        )
        size = (width * _CLOSE_PIXEL, height * _CLOSE_PIXEL)
        corner = (place[0] + _PANEL[0] - size[0], place[1] + _PANEL[1] - size[1])
        close_up = _axes(figure, *corner, *size)
        close_up.imshow(image[top : top + height, left : left + width], **how)
        _frame(close_up, _MARK, 0.9)
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
