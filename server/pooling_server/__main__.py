"""Command line of the server: `python -m pooling_server`, also started by `pooling serve`."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

try:
    import click
except ImportError:
    sys.exit("error: click is not installed; the server needs it to parse its options")

from pooling_server.config import ServerConfig, flag, variable
from pooling_server.processes.log import configure_log, open_standard_descriptors
from pooling_server.processes.process import (
    SYSTEM_ERRORS,
    check_threads,
    exit_process,
    run,
    system_error_text,
)
from pooling_server.processes.supervisor import supervise

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # the server prints one clear line instead


def serve(**options: Any) -> None:
    """Serve pooling requests over gRPC until SIGINT or SIGTERM."""
    try:
        config = ServerConfig(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    is_single = config.workers == 1 and not config.devices
    try:
        check_threads()
        configure_log(config.log_level, config.log_format)
        code = run(config) if is_single else supervise(config)
    except SYSTEM_ERRORS as error:
        print(f"error: {system_error_text(error)}", file=sys.stderr)
        code = 1
    exit_process(code)


def main() -> None:
    """Parse the flags and the environment, then serve."""
    open_standard_descriptors()
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
