"""The program `pooling`. Exit code 2 for misuse, 1 for failure; never a traceback."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from pooling_cli.explain import render, seed_steps, spec_steps, window_steps
from pooling_cli.options import SHAPE, SIZES, read_array, spec_from, spec_options, write_array
from pooling_client import PoolingClient
from pooling_engine import InvalidSpecError, InvalidTensorError, PoolingError, UnsupportedError
from pooling_engine.dtypes import FLOATS, INTEGERS

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own log would stand beside our one line

_BAR_BYTES = 16 << 20  # less is done before a bar could be read
_ARRAY = click.Path(dir_okay=False, path_type=Path)


_INDEX_FORMAT = "window; plane, as PyTorch's; or tensor, as ONNX's."


def remote_options(command: Any) -> Any:
    """Adds what every command that calls a server takes."""
    for option in (
        click.option("--timeout", default=30.0, show_default=True, help="Seconds to wait."),
        click.option(
            "--target",
            default="127.0.0.1:50051",
            show_default=True,
            envvar="POOLING_TARGET",
            show_envvar=True,
            help="Which server.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pooling-service", message="pooling %(version)s")
def cli() -> None:
    """Pooling layers over gRPC: pooled outputs and input gradients."""


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.pass_context
def serve(context: click.Context) -> None:
    """Answer pooling requests until SIGINT or SIGTERM."""
    # The server is a program of its own: the client does not import it.
    os.execv(sys.executable, [sys.executable, "-m", "pooling_server", *context.args])


@cli.command()
@click.argument("input", type=_ARRAY)
@click.argument("output", type=_ARRAY)
@spec_options
@click.option("--indices", type=_ARRAY, help="Also write the selected taps to this file.")
@click.option("--index-format", default="window", show_default=True, help=_INDEX_FORMAT)
@remote_options
def forward(
    input: Path,  # noqa: A002  the argument's name on the command line
    output: Path,
    indices: Path | None,
    index_format: str,
    target: str,
    timeout: float,
    **spec: Any,
) -> None:
    """Pool the tensor in INPUT.npy into OUTPUT.npy."""
    if indices is None and index_format != "window":
        raise click.UsageError("--index-format goes with --indices, which names their file")
    x = read_array(input)
    with _client(target, timeout) as client, _bar(x) as progress:
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
    _say(x.shape, result.output.shape, took_ms, target, output)


@cli.command(short_help="Write the input gradient for an output gradient to a file.")
@click.argument("gradient", type=_ARRAY)
@click.argument("output", type=_ARRAY)
@spec_options
@click.option("--input-shape", type=SHAPE, help="Shape of the forward input, as 10,16,14,14.")
@click.option("--indices", type=_ARRAY, help="max, min: the indices of the forward call.")
@click.option(
    "--index-format",
    help=f"Of the indices: {_INDEX_FORMAT}  [default: by their type, window or plane]",
)
@click.option("--input", type=_ARRAY, help="lp, or max and min without indices: the input.")
@remote_options
def backward(
    gradient: Path,
    output: Path,
    input_shape: tuple[int, ...] | None,
    indices: Path | None,
    index_format: str | None,
    input: Path | None,  # noqa: A002  the option's name on the command line
    target: str,
    timeout: float,
    **spec: Any,
) -> None:
    """Write to OUTPUT.npy the input gradient for the output gradient in GRADIENT.npy."""
    dy = read_array(gradient)
    with _client(target, timeout) as client, _bar(dy) as progress:
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
    _say(dy.shape, dx.shape, took_ms, target, output)


@cli.command()
@remote_options
def info(target: str, timeout: float) -> None:
    """Say what a server is, what it computes and what it refuses."""
    with _client(target, timeout) as client:
        server = client.info()
    click.echo(f"pooling {server.version} at {target}")
    for place, backend in enumerate(server.backends):
        rest = ", for the rest" if place else ""
        click.echo(f"\nbackend {backend.name} on {', '.join(backend.devices)}{rest}")
        click.echo(f"  modes          {', '.join(backend.modes)}")
        click.echo(f"  element types  {', '.join(dtype.name for dtype in backend.dtypes)}")
        click.echo(f"  index formats  {', '.join(backend.index_formats)}")
    limits = server.limits
    click.echo("\nlimits")
    click.echo(f"  message        {limits.max_message_bytes:,} bytes")
    click.echo(f"  tensor         {limits.max_tensor_bytes:,} bytes")
    click.echo(f"  work           {limits.max_taps:,} taps a call")
    click.echo(f"  in flight      {limits.max_in_flight:,} calls")


@cli.command(short_help="Show the arithmetic of one window, step by step.")
@click.argument("input", type=_ARRAY, required=False)
@spec_options
@click.option("--at", type=SIZES, help="Which output, as n,c,i,j.")
@click.option("--gradient", type=_ARRAY, help="Output gradient in a .npy file; default: ones.")
@click.option(
    "--shape", type=SHAPE, help="Instead of INPUT.npy: show what the spec comes to, 10,16,14,14."
)
@click.option(
    "--dtype",
    type=click.Choice([dtype.name for dtype in FLOATS + INTEGERS]),
    metavar="TYPE",
    help="With --shape: the element type.  [default: float32]",
)
@click.option("--seed-example", is_flag=True, help="Walk through the example of the seed article.")
def explain(
    input: Path | None,  # noqa: A002  the argument's name on the command line
    at: Any,
    gradient: Path | None,
    shape: tuple[int, ...] | None,
    dtype: str | None,
    seed_example: bool,
    **spec: Any,
) -> None:
    """Show the arithmetic of one window of the tensor in INPUT.npy, step by step.

    With --shape instead: the effective parameters of the options, without a tensor.
    """
    if seed_example:
        click.echo(render(seed_steps()))
        return
    if shape is not None:
        if input is not None or at is not None or gradient is not None:
            raise click.UsageError(
                "--shape is in place of INPUT.npy; it takes no --at and no --gradient"
            )
        click.echo(render(spec_steps(spec_from(spec), shape, dtype or "float32")))
        return
    if input is None or at is None:
        raise click.UsageError("give INPUT.npy and --at n,c,i,j, or --shape, or --seed-example")
    if dtype is not None:
        raise click.UsageError("--dtype goes with --shape; INPUT.npy has a type of its own")
    dy = None if gradient is None else read_array(gradient)
    at = at if isinstance(at, tuple) else (at,)
    click.echo(render(window_steps(read_array(input), spec_from(spec), at, dy)))


@cli.command()
@click.option(
    "--output", type=_ARRAY, default=Path("demo.png"), show_default=True, help="The picture."
)
def demo(output: Path) -> None:
    """Send a photograph to a server of its own; draw what comes back."""
    from pooling_cli.demo.run import run_demo

    click.echo(run_demo(output))


def _client(target: str, timeout: float) -> PoolingClient:
    if timeout <= 0:
        raise click.UsageError(f"--timeout is {timeout}; it must be more than 0 seconds")
    return PoolingClient(target, timeout=timeout)


@contextmanager
def _bar(tensor: NDArray[Any]) -> Iterator[Callable[[int, int], None] | None]:
    """What shows the progress of a call on a large tensor, on a terminal; else nothing."""
    if tensor.nbytes < _BAR_BYTES or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=tensor.nbytes, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield progress


def _say(
    before: tuple[int, ...], after: tuple[int, ...], took_ms: float, target: str, path: Path
) -> None:
    click.echo(f"{before} -> {after} in {took_ms:.1f} ms from {target}; wrote {path}")


def main() -> None:
    """Runs the program; what goes wrong is one line on stderr."""
    misuse = (InvalidSpecError, InvalidTensorError, UnsupportedError)
    try:
        cli(prog_name="pooling")
    except PoolingError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, misuse) else 1)
    except (OSError, MemoryError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
