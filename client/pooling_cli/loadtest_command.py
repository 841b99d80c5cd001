"""The command loadtest: offer load to a server, check its answers, write a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pooling_cli.options import SHAPE, TYPE_NAMES, spec_options

if TYPE_CHECKING:
    from pooling_loadtest.results import Results
    from pooling_loadtest.settings import KindOfCall

_DEFAULT_SHAPE = (1, 16, 14, 14)
_DEFAULT_WINDOW = {"kernel": 3, "stride": 2, "padding": 1}
_DEFAULTS: dict[str, Any] = {"duration": 10.0, "rate": 100.0, "schedule": "poisson", "steps": 5}
_WINDOW_S = 2.0  # of a search for the capacity


class _Misuse(click.ClickException):
    """Misuse, in one line without the usage."""

    exit_code = 2


class _Loadtest(click.Group):
    """Group whose command `run` needs no name: `pooling loadtest TARGET`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Loadtest, short_help="Offer load to a server, and check its answers.")
def loadtest() -> None:
    """Offer load to a server."""


_LOAD_OPTIONS = (
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
        help="Search for the highest rate that meets --slo, in windows of two seconds.",
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
    click.option("--model", help="oip-grpc, oip-rest: name of the model."),
    click.option("--input", help="oip-grpc, oip-rest: name of the model's input tensor."),
    click.option("--metrics-url", help="Prometheus metrics of the server, to read once a second."),
    click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for the report, the results and one row for each call.",
    ),
)
_CALL_OPTIONS = (
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


def _run_options(command: Any) -> Any:
    for option in reversed((*_LOAD_OPTIONS, *_CALL_OPTIONS)):
        command = option(command)
    return command


@loadtest.command(
    epilog="\b\nExamples:\n"
    "  pooling loadtest 127.0.0.1:50051\n"
    "  pooling loadtest 127.0.0.1:50051 --rate 200 --duration 30 --verify 0.01 --output run\n"
    "  pooling loadtest 127.0.0.1:50051 --find-capacity --slo 'p99<50ms'\n"
)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@_run_options
@spec_options
def run(targets: tuple[str, ...], **options: Any) -> None:
    """Offer load to the server at TARGET (HOST:PORT or unix:/PATH), and check its answers.

    The open loop sends calls when they are due, and counts latency from that moment, so that a
    stall is not hidden. With --callers, each caller waits for its reply before it calls again.
    Several targets take turns.

    Exit code 0: passed. 1: an objective was missed, an answer was wrong, or the server failed.
    2: misuse.
    """
    from pooling_loadtest.errors import MisuseError, TargetError

    context = click.get_current_context()
    try:
        results = _results(context, targets, options)
    except MisuseError as error:
        raise _Misuse(str(error)) from None
    except TargetError as error:
        raise click.ClickException(str(error)) from None
    is_good = _show(results, options["output"])
    context.exit(0 if is_good else 1)


def _results(context: click.Context, targets: tuple[str, ...], options: dict[str, Any]) -> Results:
    from pooling_loadtest.running import find_capacity, run_test
    from pooling_loadtest.scenarios import kinds_of, read_scenario
    from pooling_loadtest.schedules import schedule_of
    from pooling_loadtest.settings import LoadTest
    from pooling_loadtest.slo import parse_slo
    from pooling_loadtest.writing import check_folder

    scenario = {} if options["scenario"] is None else read_scenario(options["scenario"])
    given = {name: value for name, value in options.items() if value is not None}
    values = _DEFAULTS | scenario | given
    kinds = kinds_of(scenario) if scenario else (_kind(context, options),)
    slo = parse_slo(values["slo"]) if "slo" in values else None
    if options["output"] is not None:
        check_folder(options["output"])
    schedule = None
    if "rate" in given:  # a rate on the command line asks for the open loop
        values.pop("callers", None)
    if "callers" not in values and not options["find_capacity"]:
        schedule = schedule_of(
            values["schedule"],
            values["rate"],
            values["duration"],
            values.get("to_rate"),
            values["steps"],
        )
    names = ("processes", "connections", "max_in_flight", "verify", "seed")
    test = LoadTest(
        title=values.get("title", kinds[0].name),
        targets=targets,
        kinds=kinds,
        schedule=schedule,
        callers=values.get("callers"),
        duration_s=values["duration"],
        protocol=values["protocol"],
        model=values.get("model"),
        input=values.get("input"),
        timeout_s=values.get("timeout", LoadTest.timeout_s),
        give_up_s=values["give_up"],
        metrics_url=values.get("metrics_url"),
        command=("pooling", *sys.argv[1:]),
        **{name: values[name] for name in names if name in values},
    )
    if not options["find_capacity"]:
        return run_test(test, slo)
    window_s = given.get("duration", _WINDOW_S)
    return find_capacity(test, window_s, slo, values["rate"])


def _kind(context: click.Context, options: dict[str, Any]) -> KindOfCall:
    from pooling_loadtest.settings import KindOfCall

    names = [parameter.name for parameter in _spec_parameters(context)]
    given = {
        name: options[name]
        for name in names
        if name is not None
        and context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    }
    if not {"kernel", "adaptive_output", "global_window"} & set(given):
        given = _DEFAULT_WINDOW | given
    spec = {"mode": options["mode"]} | given
    return KindOfCall(
        name=f"{options['direction']} {spec['mode']}",
        shape=options["shape"] or _DEFAULT_SHAPE,
        dtype=options["dtype"],
        spec=spec,
        direction=options["direction"],
        transport=options["transport"].replace("-", "_"),
        return_indices=options["return_indices"],
    )


def _spec_parameters(context: click.Context) -> list[click.Parameter]:
    """Return the options that `spec_options` has added."""

    @spec_options
    def carrier() -> None:
        pass

    return list(click.command()(carrier).params)


def _show(results: Results, output: Path | None) -> bool:
    """Print and write results; return whether the test has passed."""
    from pooling_loadtest.results import ResultsError
    from pooling_loadtest.summary import is_passed, summary
    from pooling_loadtest.writing import write_all

    click.echo(summary(results))
    if output is not None:
        try:
            click.echo(f"\nwrote {write_all(output, results)}")
        except ResultsError as error:
            raise click.ClickException(str(error)) from None
    return is_passed(results)
