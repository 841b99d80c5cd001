"""The commands that call a server: forward, backward, info."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from pooling_cli.connecting import remote_options
from pooling_cli.options import (
    FILE,
    INDEX_FORMATS,
    SHAPE,
    read_array,
    spec_from,
    spec_options,
    write_array,
)
from pooling_client import PoolingClient

Connect = Callable[[], PoolingClient]

_BAR_BYTES = 16 << 20  # smaller tensors finish before a progress bar can be read


@click.command(
    epilog="\b\nExample:\n  pooling forward x.npy y.npy --kernel 3 --stride 2 --indices i.npy"
)
@click.argument("input", type=FILE, metavar="INPUT.npy")
@click.argument("output", type=FILE, metavar="OUTPUT.npy")
@spec_options
@click.option(
    "--indices",
    type=FILE,
    help="max, min: also write the indices of the selected elements to this .npy file.",
)
@click.option(
    "--index-format",
    type=INDEX_FORMATS,
    default="window",
    show_default=True,
    help="Number elements within the window, the plane (PyTorch) or the tensor (ONNX).",
)
@remote_options
def forward(
    input: Path,  # noqa: A002  the argument's name on the command line
    output: Path,
    indices: Path | None,
    index_format: str,
    target: str,
    connect: Connect,
    **spec: Any,
) -> None:
    """Pool the tensor in INPUT.npy and write the result to OUTPUT.npy."""
    if indices is None and index_format != "window":
        raise click.UsageError(f"--index-format {index_format} requires --indices FILE")
    x = read_array(input)
    with connect() as client, _bar(x) as progress:
        start = time.perf_counter()
        result = client.forward(
            x,
            spec_from(spec),
            return_indices=indices is not None,
            index_format=index_format,
            progress=progress,
        )
        took_ms = (time.perf_counter() - start) * 1e3
    write_array(output, result.output)
    if indices is not None and result.indices is not None:
        write_array(indices, result.indices)
    _report(x.shape, result.output.shape, took_ms, target, output)


@click.command(
    short_help="Compute an input gradient from an output gradient.",
    epilog="\b\nExample:\n  pooling backward dy.npy dx.npy --kernel 3 --stride 2 \\\n"
    "      --input-shape 10,16,14,14 --indices i.npy",
)
@click.argument("gradient", type=FILE, metavar="GRADIENT.npy")
@click.argument("output", type=FILE, metavar="OUTPUT.npy")
@spec_options
@click.option("--input-shape", type=SHAPE, help="Shape of the forward input: 10,16,14,14.")
@click.option("--indices", type=FILE, help="max, min: the indices that forward wrote.")
@click.option(
    "--index-format",
    type=INDEX_FORMATS,
    help="Format of --indices.  [default: window or plane, by their element type]",
)
@click.option(
    "--input", type=FILE, help="The forward input: for lp, and for max and min without --indices."
)
@remote_options
def backward(
    gradient: Path,
    output: Path,
    input_shape: tuple[int, ...] | None,
    indices: Path | None,
    index_format: str | None,
    input: Path | None,  # noqa: A002  the option's name on the command line
    target: str,
    connect: Connect,
    **spec: Any,
) -> None:
    """Compute an input gradient from an output gradient.

    Reads the gradient of the output from GRADIENT.npy and writes the gradient
    of the input to OUTPUT.npy. The pooling options are those of the forward
    call.
    """
    dy = read_array(gradient)
    with connect() as client, _bar(dy) as progress:
        start = time.perf_counter()
        dx = client.backward(
            dy,
            spec_from(spec),
            input_shape=input_shape,
            indices=None if indices is None else read_array(indices),
            input=None if input is None else read_array(input),
            index_format=index_format,
            progress=progress,
        )
        took_ms = (time.perf_counter() - start) * 1e3
    write_array(output, dx)
    _report(dy.shape, dx.shape, took_ms, target, output)


@click.command()
@remote_options
def info(target: str, connect: Connect) -> None:
    """Show a server's version, backends and limits."""
    with connect() as client:
        server = client.info()
    click.echo(f"pooling {server.version} at {target}")
    for number, backend in enumerate(server.backends):
        rest = " (for everything else)" if number else ""
        click.echo(f"\nbackend {backend.name} on {', '.join(backend.devices)}{rest}")
        click.echo(f"  modes          {', '.join(backend.modes)}")
        click.echo(f"  element types  {', '.join(dtype.name for dtype in backend.dtypes)}")
        click.echo(f"  index formats  {', '.join(backend.index_formats)}")
    limits = server.limits
    click.echo("\nlimits")
    click.echo(f"  message        {limits.max_message_bytes:,} bytes")
    click.echo(f"  tensor         {limits.max_tensor_bytes:,} bytes")
    click.echo(f"  work           {limits.max_taps:,} window elements (taps) per call")
    click.echo(f"  concurrency    {limits.max_in_flight:,} calls")


@contextmanager
def _bar(tensor: NDArray[Any]) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar for a large tensor, if stderr is a terminal."""
    if tensor.nbytes < _BAR_BYTES or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=tensor.nbytes, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield progress


def _report(
    before: tuple[int, ...], after: tuple[int, ...], took_ms: float, target: str, path: Path
) -> None:
    click.echo(f"{before} -> {after} in {took_ms:.1f} ms from {target}; wrote {path}")
