"""The commands report and compare of `pooling loadtest`."""

from __future__ import annotations

from pathlib import Path

import click

_FOLDER = click.Path(file_okay=False, path_type=Path)


class _Misuse(click.ClickException):
    """Misuse, in one line without the usage."""

    exit_code = 2


@click.command()
@click.argument("folder", type=_FOLDER)
def report(folder: Path) -> None:
    """Write the report of the load test in FOLDER again."""
    from pooling_loadtest.errors import ResultsError
    from pooling_loadtest.report import write

    try:
        click.echo(f"wrote {write(folder)}")
    except ResultsError as error:
        raise _Misuse(str(error)) from None


@click.command()
@click.argument("a", type=_FOLDER)
@click.argument("b", type=_FOLDER)
def compare(a: Path, b: Path) -> None:
    """Compare the load tests in folders A and B, and say which differences are real.

    A difference is real if its 99 % bootstrap interval excludes zero. The interval covers the
    variation within the runs; repeat runs to see the variation between them.
    """
    from pooling_loadtest.errors import ResultsError
    from pooling_loadtest.report import comparison
    from pooling_loadtest.results import read

    try:
        one, other = read(a), read(b)
    except ResultsError as error:
        raise _Misuse(str(error)) from None
    click.echo(f"A  {a}: {one.run.title}\nB  {b}: {other.run.title}\n")
    for obstacle in comparison.obstacles(one.run, other.run):
        click.echo(f"NOT COMPARABLE  {obstacle}")
    for found in comparison.compare(one, other):
        click.echo(comparison.sentence(found))
