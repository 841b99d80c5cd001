"""Options and files of the command line: specs from options, arrays from .npy files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pooling_engine import IndexFormat, Layout, Mode, NanPolicy, PoolSpec, TiePolicy


class Sizes(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """``3``, or ``3,5`` for each axis; with `pairs` also ``1:2,0:1`` and names."""

    name = "sizes"

    def __init__(self, *, pairs: bool = False, always_tuple: bool = False) -> None:
        self._pairs = pairs
        self._always_tuple = always_tuple

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the size, the tuple of sizes or pairs, or the name."""
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
FILE = click.Path(dir_okay=False, path_type=Path)
INDEX_FORMATS = click.Choice([member.value for member in IndexFormat])
TYPE_NAMES = (
    *("float16", "bfloat16", "float32", "float64"),
    *("int8", "uint8", "int16", "int32", "int64"),
)

_SPEC_OPTIONS = (
    click.option(
        "--mode",
        type=click.Choice([member.value for member in Mode]),
        default="max",
        show_default=True,
        help="Pooling mode.",
    ),
    click.option("--kernel", type=SIZES, help="Size of a window: 3, or 3,5 for each axis."),
    click.option("--stride", type=SIZES, help="Step between windows.  [default: the kernel]"),
    click.option(
        "--padding",
        type=Sizes(pairs=True),
        default=0,
        show_default=True,
        help="Padding: 1 (every side), 1,2 (each axis), 1:2,0:1 (each axis, before:after), valid, "
        "same_upper or same_lower.",
    ),
    click.option(
        "--dilation",
        type=SIZES,
        default=1,
        show_default=True,
        help="Step between the elements of a window.",
    ),
    click.option("--ceil-mode", is_flag=True, help="Round the output size up."),
    click.option(
        "--count-include-pad/--count-exclude-pad",
        default=True,
        show_default=True,
        help="average: count padding in the divisor, or not.",
    ),
    click.option("--divisor-override", type=float, help="average: divide by this number instead."),
    click.option(
        "--norm-p",
        type=float,
        default=2.0,
        show_default=True,
        help="lp: p of the norm, from 1 to inf.",
    ),
    click.option(
        "--adaptive-output",
        type=SIZES,
        help="Size of the output: 7, or 7,5 for each axis (instead of --kernel).",
    ),
    click.option(
        "--global-window",
        is_flag=True,
        help="Pool each plane with one global window (instead of --kernel).",
    ),
    click.option(
        "--tie-policy",
        type=click.Choice([member.value for member in TiePolicy]),
        default="first",
        show_default=True,
        help="max, min: which tied elements receive the gradient; split divides it equally.",
    ),
    click.option(
        "--nan-policy",
        type=click.Choice([member.value for member in NanPolicy]),
        default="propagate",
        show_default=True,
        help="max, min: NaN is selected (propagate), skipped (ignore) or rejected (error).",
    ),
    click.option(
        "--layout",
        type=click.Choice([member.value for member in Layout]),
        default="channels_first",
        show_default=True,
        help="Axis order: N,C,D1..Dn or N,D1..Dn,C.",
    ),
)


SPEC_NAMES = tuple(field.name for field in dataclasses.fields(PoolSpec) if field.init)


def spec_options(command: Any) -> Any:
    """Add the options of a `PoolSpec`."""
    for option in reversed(_SPEC_OPTIONS):
        command = option(command)
    return command


def spec_from(options: dict[str, Any]) -> PoolSpec:
    """Return the spec that the options describe.

    Raises:
        InvalidSpecError: an option is illegal.
    """
    return PoolSpec(**options)


def read_array(path: Path) -> NDArray[Any]:
    """Return the array in a .npy file.

    Raises:
        click.UsageError: the file cannot be read, or is not a numeric .npy file.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError, SyntaxError) as error:
        raise click.UsageError(f"{path} is not a numeric .npy file: {error}") from None
    if not isinstance(array, np.ndarray):
        raise click.UsageError(f"{path} holds several arrays; give a .npy file with one")
    if array.dtype.kind == "V":
        raise click.UsageError(
            f"{path} holds elements of type {array.dtype.str}, not numbers; "
            "the .npy format has no bfloat16: convert to float32, or use the Python client"
        )
    return array


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array to a .npy file of exactly that name.

    Raises:
        OSError: the file cannot be written; the message names it and the reason.
    """
    try:
        with path.open("wb") as file:
            np.save(file, array)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None
