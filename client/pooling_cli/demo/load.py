"""The load-test demo: a fresh server, a sweep of rates, and a report; takes half a minute.

python -m pooling_cli.demo.load FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pooling_cli.demo.server import COMMAND, address_in, running_server

_STEPS = 7
_RATES = (40.0, 2560.0)  # the last is more than a laptop answers
_SHAPE = (1, 32, 56, 56)  # 401 KB


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--duration", type=float, default=28.0, show_default=True, help="Seconds.")
def main(folder: Path, duration: float) -> None:
    """Test a temporary server at rising rates; write a report to FOLDER."""
    from pooling_loadtest.running import run_test
    from pooling_loadtest.schedules import schedule_of
    from pooling_loadtest.settings import KindOfCall, LoadTest
    from pooling_loadtest.summary import summary
    from pooling_loadtest.writing import check_folder, write_all

    check_folder(folder)
    spec = {"mode": "max", "kernel": 3, "stride": 2, "padding": 1}
    kind = KindOfCall(name="forward max", shape=_SHAPE, spec=spec)
    with running_server(COMMAND) as banner:
        click.echo(f"{banner}\nrates from {_RATES[0]:g} to {_RATES[1]:g} calls/s, {duration:g} s")
        test = LoadTest(
            title="Demo of the load test",
            targets=(address_in(banner),),
            kinds=(kind,),
            schedule=schedule_of("sweep", _RATES[0], duration, _RATES[1], _STEPS),
            callers=None,
            duration_s=duration,
            verify=0.02,
            command=("make", "demo-load"),
        )
        results = run_test(test)
    click.echo(f"\n{summary(results)}\n\nreport: {write_all(folder, results).resolve()}")
    if results.run.verify["wrong"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
