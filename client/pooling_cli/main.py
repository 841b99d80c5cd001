"""The program `pooling`. Exit code 2 for misuse, 1 for failure; never a traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pooling_cli import quiet  # noqa: F401  sets a variable that gRPC reads when it is imported
from pooling_cli.explain_command import explain
from pooling_cli.loadtest_command import loadtest
from pooling_cli.options import FILE
from pooling_cli.remote_commands import backward, forward, info
from pooling_engine import InvalidSpecError, InvalidTensorError, PoolingError, UnsupportedError

_MISUSE = (InvalidSpecError, InvalidTensorError, UnsupportedError)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pooling-service", message="pooling %(version)s")
def cli() -> None:
    """Pooling layers over gRPC: pooled outputs and input gradients.

    Start a server with `pooling serve`; pool .npy files with `pooling forward`.
    """


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.pass_context
def serve(context: click.Context) -> None:
    """Run a server until SIGINT or SIGTERM."""
    # The server is another program: the command line does not import it.
    os.execv(sys.executable, [sys.executable, "-m", "pooling_server", *context.args])


@cli.command()
@click.option(
    "--output", type=FILE, default=Path("demo.png"), show_default=True, help="The PNG to write."
)
def demo(output: Path) -> None:
    """Pool a photograph on a temporary server and draw the results."""
    from pooling_cli.demo.run import run_demo

    click.echo(run_demo(output))


for command in (forward, backward, info, explain, loadtest):
    cli.add_command(command)


def main() -> None:
    """Run the program; print errors as one line on stderr."""
    try:
        cli(prog_name="pooling")
    except PoolingError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, _MISUSE) else 1)
    except (OSError, MemoryError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
