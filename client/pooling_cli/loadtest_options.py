"""Options of `pooling loadtest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pooling_cli.connecting import SECURITY_OPTIONS
from pooling_cli.options import SHAPE, TYPE_NAMES, spec_options


class Parameter(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """``NAME=VALUE``; the value is a number, true, false, or a text."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name and the value."""
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = text
        return name, parsed if isinstance(parsed, bool | int | float) else text


class _Folder(click.Path):
    """Path of a folder; an empty text, as of a variable that is not set, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("'' is no folder", param, ctx)
        return super().convert(value, param, ctx)


LOAD_OPTIONS = (
    click.option("--rate", type=float, help="Calls/s of the open loop.  [default: 100]"),
    click.option("--duration", type=float, help="Duration in seconds.  [default: 10]"),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "poisson", "step", "ramp", "sweep"]),
        help="Arrivals of the open loop.  [default: poisson]",
    ),
    click.option("--to-rate", type=float, help="step, ramp, sweep: the last rate, in calls/s."),
    click.option("--steps", type=int, help="step, sweep: number of rates.  [default: 5]"),
    click.option(
        "--callers", type=int, help="Closed loop: callers that each wait for their replies."
    ),
    click.option(
        "--find-capacity",
        is_flag=True,
        help="Search for the highest rate that meets --slo, in windows of --duration seconds "
        "(default: 2), from --rate.",
    ),
    click.option("--slo", help="Objective, such as 'p99<50ms,errors<1%'; exit code 1 if missed."),
    click.option("--verify", type=float, help="Fraction of the replies to check.  [default: 0]"),
    click.option("--seed", type=int, help="Seed of arrivals, mix and tensors.  [default: 0]"),
    click.option("--processes", type=int, help="Generator processes.  [default: 1]"),
    click.option("--connections", type=int, help="Connections of each process.  [default: 1]"),
    click.option("--max-in-flight", type=int, help="Calls in flight at most.  [default: 1000]"),
    click.option("--timeout", type=float, help="Deadline of a call in seconds.  [default: 10]"),
    click.option(
        "--give-up",
        type=float,
        default=5.0,
        show_default=True,
        help="Stop after so many seconds in which the server is unavailable.",
    ),
    click.option(
        "--protocol",
        type=click.Choice(["grpc", "oip-grpc", "oip-rest"]),
        default="grpc",
        show_default=True,
        help="The service's own gRPC, or the Open Inference Protocol over gRPC or REST.",
    ),
    click.option(
        "--model", help="oip-grpc, oip-rest: model of a server that is not a pooling server."
    ),
    click.option("--input", help="With --model: name of the model's input tensor."),
    click.option(
        "--parameter",
        "parameters",
        type=Parameter(),
        multiple=True,
        help="With --model: parameter of each request, as NAME=VALUE; may be repeated.",
    ),
    click.option("--metrics-url", help="Prometheus metrics of the server, to read once a second."),
    click.option(
        "--output",
        type=_Folder(file_okay=False, path_type=Path),
        help="Folder for the report, the results and one row for each call.",
    ),
)
CALL_OPTIONS = (
    click.option(
        "--scenario", help="Mix of calls: a YAML file, or the name of a shipped scenario."
    ),
    click.option(
        "--direction",
        type=click.Choice(["forward", "backward"]),
        default="forward",
        show_default=True,
        help="Pool, or compute input gradients.",
    ),
    click.option(
        "--transport",
        type=click.Choice(["unary", "stream", "many", "shared-memory"]),
        default="unary",
        show_default=True,
        help="Unary calls, a shared stream, forward_many, or shared memory (unix: only).",
    ),
    click.option("--shape", type=SHAPE, help="Shape of the layer's input.  [default: 1,16,14,14]"),
    click.option(
        "--dtype",
        type=click.Choice(TYPE_NAMES),
        default="float32",
        show_default=True,
        help="Element type of the input.",
    ),
    click.option("--return-indices", is_flag=True, help="max, min: return the indices too."),
)


def loadtest_options(command: Any) -> Any:
    """Add the options of a load test."""
    command = spec_options(command)
    for option in reversed((*LOAD_OPTIONS, *SECURITY_OPTIONS, *CALL_OPTIONS)):
        command = option(command)
    return command
