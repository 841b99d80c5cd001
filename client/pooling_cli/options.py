"""The command line's options and files: specs from flags, arrays from .npy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pooling_engine import PoolSpec


class Sizes(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """``3``, or ``3,5`` for each axis; with `pairs` also ``1:2,0:1`` and names."""

    name = "sizes"

    def __init__(self, *, pairs: bool = False, always_tuple: bool = False) -> None:
        self._pairs = pairs
        self._always_tuple = always_tuple

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The size, the tuple of sizes or pairs, or the name."""
        if not isinstance(value, str):
            return value
        if self._pairs and value.replace("_", "").isalpha():
            return value
        try:
            sizes = tuple(self._item(item) for item in value.split(","))
        except ValueError:
            example = "1, 1,2 or 1:2,0:1, or a name" if self._pairs else "3 or 3,5"
            self.fail(f"{value!r} is not of the form {example}", param, ctx)
        is_single = len(sizes) == 1 and not self._always_tuple and isinstance(sizes[0], int)
        return sizes[0] if is_single else sizes

    def _item(self, text: str) -> int | tuple[int, int]:
        before, colon, after = text.partition(":")
        if colon and self._pairs:
            return int(before), int(after)
        return int(text)


SIZES = Sizes()
SHAPE = Sizes(always_tuple=True)

_SPEC_OPTIONS = (
    click.option("--mode", default="max", show_default=True, help="max, min, average, sum or lp."),
    click.option("--kernel", type=SIZES, help="Taps per window: 3, or 3,5 for each axis."),
    click.option("--stride", type=SIZES, help="Step from window to window; default: the kernel."),
    click.option(
        "--padding",
        type=Sizes(pairs=True),
        default=0,
        show_default=True,
        help="1; 1,2 for each axis; 1:2,0:1 before and after; valid, same_upper or same_lower.",
    ),
    click.option(
        "--dilation", type=SIZES, default=1, show_default=True, help="Step from tap to tap."
    ),
    click.option("--ceil-mode", is_flag=True, help="Round the number of outputs up."),
    click.option(
        "--count-include-pad/--count-exclude-pad",
        default=True,
        show_default=True,
        help="average: whether padding counts in the divisor.",
    ),
    click.option("--divisor-override", type=float, help="average: a divisor instead of the count."),
    click.option(
        "--norm-p", type=float, default=2.0, show_default=True, help="lp: p, 1 to infinity (inf)."
    ),
    click.option(
        "--adaptive-output",
        type=SIZES,
        help="Instead of --kernel: the number of outputs, 7, or 7,5 for each axis.",
    ),
    click.option("--global-window", is_flag=True, help="Instead of --kernel: one over everything."),
    click.option(
        "--tie-policy",
        default="first",
        show_default=True,
        help="max, min: who of equals receives the gradient: first, all or split.",
    ),
    click.option(
        "--nan-policy",
        default="propagate",
        show_default=True,
        help="max, min: what a NaN does: propagate, ignore or error.",
    ),
    click.option(
        "--layout",
        default="channels_first",
        show_default=True,
        help="channels_first or channels_last.",
    ),
)


def spec_options(command: Any) -> Any:
    """Adds the options that say what to compute."""
    for option in reversed(_SPEC_OPTIONS):
        command = option(command)
    return command


def spec_from(options: dict[str, Any]) -> PoolSpec:
    """The spec that the options say.

    Raises:
        InvalidSpecError: they are illegal.
    """
    return PoolSpec(**options)


def read_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file.

    Raises:
        click.UsageError: the file is not there, or is no .npy file of numbers.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError) as error:
        raise click.UsageError(f"{path} is no .npy file of numbers: {error}") from None
    if not isinstance(array, np.ndarray):
        raise click.UsageError(f"{path} holds several arrays; give a .npy file with one")
    if array.dtype.kind == "V":
        raise click.UsageError(
            f"{path} holds elements of type {array.dtype.str}, not numbers; "
            ".npy files have no bfloat16: use Python for it, or float32"
        )
    return array


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array to a .npy file of exactly that name.

    Raises:
        OSError: it cannot be written; the text says where and why.
    """
    try:
        with path.open("wb") as file:
            np.save(file, array)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None
