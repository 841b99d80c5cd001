"""The command explain: the arithmetic of one window, as text or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pooling_cli.explain import Steps, as_json, render, seed_steps, spec_steps, window_steps
from pooling_cli.options import FILE, SHAPE, TYPE_NAMES, read_array, spec_from, spec_options

_EXAMPLES = """\b
Examples:
  pooling explain x.npy --at 0,0,1,1 --kernel 3 --stride 2
  pooling explain --shape 10,16,14,14 --kernel 3 --stride 2
  pooling explain --seed-example
"""


@click.command(short_help="Show the arithmetic of one window, step by step.", epilog=_EXAMPLES)
@click.argument("input", type=FILE, required=False, metavar="[INPUT.npy]")
@spec_options
@click.option("--at", type=SHAPE, metavar="N,C,I,J", help="Index of the output to explain.")
@click.option("--gradient", type=FILE, help="Gradient of the output, a .npy file.  [default: ones]")
@click.option(
    "--shape", type=SHAPE, help="Shape of an input, such as 10,16,14,14, instead of INPUT.npy."
)
@click.option(
    "--dtype",
    type=click.Choice(TYPE_NAMES),
    metavar="TYPE",
    help="Element type of that input, such as float16.  [default: float32]",
)
@click.option("--seed-example", is_flag=True, help="Explain a built-in example.")
@click.option("--json", "as_data", is_flag=True, help="Print the steps as JSON instead of text.")
def explain(
    input: Path | None,  # noqa: A002  the argument's name on the command line
    at: tuple[int, ...] | None,
    gradient: Path | None,
    shape: tuple[int, ...] | None,
    dtype: str | None,
    seed_example: bool,
    as_data: bool,
    **spec: Any,
) -> None:
    """Show the arithmetic of one window, step by step.

    Explains one output of the tensor in INPUT.npy, forward and backward, and
    checks every number against the engine. With --shape instead of INPUT.npy,
    shows the resolved parameters and the output size.

    With --json, infinities and NaN are the strings "Infinity", "-Infinity" and
    "NaN".
    """
    if seed_example:
        steps: Steps = seed_steps()
    elif shape is not None:
        if input is not None or at is not None or gradient is not None:
            raise click.UsageError(
                "--shape replaces INPUT.npy and cannot be combined with --at or --gradient"
            )
        steps = spec_steps(spec_from(spec), shape, dtype or "float32")
    elif input is None or at is None:
        raise click.UsageError("give INPUT.npy and --at N,C,I,J, or --shape, or --seed-example")
    elif dtype is not None:
        raise click.UsageError("--dtype requires --shape; INPUT.npy has its own element type")
    else:
        dy = None if gradient is None else read_array(gradient)
        steps = window_steps(read_array(input), spec_from(spec), at, dy)
    if as_data:
        click.echo(json.dumps(as_json(steps), indent=2, allow_nan=False))
    else:
        click.echo(render(steps))
