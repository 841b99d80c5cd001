"""`python -m pooling_server`, which `pooling serve` runs."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

try:
    import click
except ImportError:
    sys.exit("error: the server's options are read by click, which is not installed")

from pooling_server.config import ServerConfig, flag, variable
from pooling_server.processes.process import configure_log, leave, run
from pooling_server.processes.supervisor import supervise

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # our one line says it better than gRPC's log


def serve(**options: Any) -> None:
    """Answer pooling requests over gRPC until SIGINT or SIGTERM."""
    try:
        config = ServerConfig(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    configure_log(config)
    is_alone = config.workers == 1 and not config.devices
    leave(run(config) if is_alone else supervise(config))


def main() -> None:
    """Reads the flags and the environment, and serves."""
    command = click.Command(
        "pooling serve",
        callback=serve,
        help=serve.__doc__,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    command.params += [_option(field) for field in dataclasses.fields(ServerConfig)]
    command.main(prog_name="pooling serve")


def _option(field: dataclasses.Field[Any]) -> click.Option:
    name = flag(field.name)
    repeats = field.metadata["repeats"]
    return click.Option(
        [f"{name}/--no-{name[2:]}" if isinstance(field.default, bool) else name],
        type=type(field.default),
        multiple=repeats,
        callback=(lambda context, option, values: ",".join(values)) if repeats else None,
        default=[field.default] if repeats else field.default,
        envvar=variable(field.name),
        help=field.metadata["help"],
        show_default=True,
        show_envvar=True,
    )


if __name__ == "__main__":
    main()
