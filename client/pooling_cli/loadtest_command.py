"""The command loadtest: offer load to a server, check its answers, write a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pooling_cli.connecting import tls_files, token_from
from pooling_cli.loadtest_options import loadtest_options
from pooling_cli.loadtest_reports import compare, report
from pooling_cli.options import SPEC_NAMES

if TYPE_CHECKING:
    from pooling_loadtest.results import Results
    from pooling_loadtest.settings import KindOfCall, LoadTest

_DEFAULT_SHAPE = (1, 16, 14, 14)
_DEFAULT_WINDOW = {"kernel": 3, "stride": 2, "padding": 1}
_DEFAULTS: dict[str, Any] = {
    "duration": 10.0,
    "rate": 100.0,
    "schedule": "poisson",
    "steps": 5,
    "to_rate": None,
}
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


loadtest.add_command(report)
loadtest.add_command(compare)


@loadtest.command(
    epilog="\b\nExamples:\n"
    "  pooling loadtest 127.0.0.1:50051\n"
    "  pooling loadtest 127.0.0.1:50051 --rate 200 --duration 30 --verify 0.01 --output run\n"
    "  pooling loadtest 127.0.0.1:50051 --find-capacity --slo 'p99<50ms'\n"
    "  pooling loadtest report run\n"
    "  pooling loadtest compare run-a run-b\n"
)
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@loadtest_options
def run(targets: tuple[str, ...], **options: Any) -> None:
    """Offer load to the server at TARGET (HOST:PORT or unix:/PATH), and check its answers.

    The open loop sends calls when they are due, and counts latency from that moment, so that a
    stall is not hidden. With --callers, each caller waits for its reply before it calls again.
    Calls rotate among several targets.

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
    from pooling_loadtest.errors import MisuseError
    from pooling_loadtest.running import find_capacity, run_test
    from pooling_loadtest.scenarios import read_scenario
    from pooling_loadtest.slo import parse_slo
    from pooling_loadtest.writing import check_folder

    scenario = {} if options["scenario"] is None else read_scenario(options["scenario"])
    given = {name: value for name, value in options.items() if value is not None}
    if "callers" in given and {"rate", "schedule", "to_rate", "steps"} & set(given):
        raise MisuseError("callers is for the closed loop; rate and schedule for the open loop")
    if options["find_capacity"] and {"callers", "schedule", "to_rate", "steps"} & set(given):
        raise MisuseError("find-capacity chooses its rates; callers and schedule do not apply")
    values = _DEFAULTS | scenario | given
    if "rate" in given:  # asks for the open loop, whatever the scenario says
        values.pop("callers", None)
    slo = parse_slo(values["slo"]) if "slo" in values else None
    test = _test(context, targets, scenario, values)
    if options["output"] is not None:
        check_folder(options["output"])
    if not options["find_capacity"]:
        return run_test(test, slo)
    return find_capacity(test, given.get("duration", _WINDOW_S), slo, values["rate"])


def _test(
    context: click.Context,
    targets: tuple[str, ...],
    scenario: dict[str, Any],
    values: dict[str, Any],
) -> LoadTest:
    from pooling_loadtest.scenarios import kinds_of
    from pooling_loadtest.schedules import schedule_of
    from pooling_loadtest.settings import LoadTest, Security

    kinds = kinds_of(scenario) if scenario else (_kind(context, values),)
    if scenario:
        _check_scenario(context)
    schedule = None
    if "callers" not in values and not values["find_capacity"]:
        names = ("schedule", "rate", "duration", "to_rate", "steps")
        schedule = schedule_of(*(values[name] for name in names))
    optional = ("processes", "connections", "max_in_flight", "verify", "seed", "model", "input")
    tls = ("tls", "tls_ca", "tls_certificate", "tls_key", "server_name")
    return LoadTest(
        title=values.get("title", kinds[0].name),
        targets=targets,
        kinds=kinds,
        schedule=schedule,
        callers=values.get("callers"),
        duration_s=values["duration"],
        protocol=values["protocol"],
        parameters=dict(values["parameters"]),
        timeout_s=values.get("timeout", LoadTest.timeout_s),
        give_up_s=values["give_up"],
        metrics_url=values.get("metrics_url"),
        security=Security(
            tls_files(*(context.params[name] for name in tls)),
            values.get("server_name"),
            token_from(values.get("token_file")),
        ),
        command=("pooling", *sys.argv[1:]),
        **{name: values[name] for name in optional if name in values},
    )


def _kind(context: click.Context, values: dict[str, Any]) -> KindOfCall:
    """Return the kind of call that the options describe."""
    from pooling_loadtest.settings import KindOfCall

    spec = {name: values[name] for name in SPEC_NAMES if _is_given(context, name)}
    if not {"kernel", "adaptive_output", "global_window"} & set(spec):
        spec = _DEFAULT_WINDOW | spec
    return KindOfCall(
        name=f"{values['direction']} {values['mode']}",
        shape=values.get("shape", _DEFAULT_SHAPE),
        dtype=values["dtype"],
        spec={"mode": values["mode"]} | spec,
        direction=values["direction"],
        transport=values["transport"].replace("-", "_"),
        return_indices=values["return_indices"],
    )


def _check_scenario(context: click.Context) -> None:
    """Reject options of one kind of call beside a scenario, which describes its kinds."""
    from pooling_loadtest.errors import MisuseError

    for name in ("direction", "transport", "shape", "dtype", "return_indices", *SPEC_NAMES):
        if _is_given(context, name):
            flag = name.replace("_", "-")
            raise MisuseError(f"{flag} describes one kind of call, but a scenario has its own")


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _show(results: Results, output: Path | None) -> bool:
    """Print and write results; return whether the test has passed."""
    from pooling_loadtest.errors import ResultsError
    from pooling_loadtest.summary import is_passed, summary
    from pooling_loadtest.writing import write_all

    click.echo(summary(results))
    if output is not None:
        try:
            click.echo(f"\nwrote {write_all(output, results)}")
        except ResultsError as error:
            raise click.ClickException(str(error)) from None
    return is_passed(results)
