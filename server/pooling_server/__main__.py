"""`python -m pooling_server`, which `pooling serve` runs."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pooling_server.config import ServerConfig, flag, variable

if TYPE_CHECKING:
    from pooling_server.app import PoolingServer

_WARM = b"w"  # beside the numbers of signals

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # our one line says it better than gRPC's log


def serve(**options: Any) -> None:
    """Answer pooling requests over gRPC until SIGINT or SIGTERM."""
    try:
        config = ServerConfig(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    leave(run(config))


def run(config: ServerConfig) -> int:
    """Serves until a signal; returns the exit code."""
    # A signal may reach any thread, at any moment: a byte in a pipe cannot be missed.
    events, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    from pooling_engine import PoolingError
    from pooling_server.app import PoolingServer

    try:
        server = PoolingServer(config)
    except (OSError, PoolingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    server.begin()
    threading.Thread(target=_warm_up, args=(server, told), daemon=True).start()
    if os.read(events, 1) == _WARM:
        print(server.banner(), flush=True)
        os.read(events, 1)
    if not server.stop():
        print(f"error: calls were still running after {config.grace_s:g} s", file=sys.stderr)
        return 1
    return 0


def _warm_up(server: PoolingServer, told: int) -> None:
    server.warm_up()
    os.write(told, _WARM)


def leave(code: int) -> NoReturn:
    """Ends the process at once: a kernel that a thread is compiling would hold it up."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    """Reads the flags and the environment, and serves."""
    command = click.Command("pooling serve", callback=serve, help=serve.__doc__)
    for field in dataclasses.fields(ServerConfig):
        name = flag(field)
        declaration = f"{name}/--no-{name[2:]}" if isinstance(field.default, bool) else name
        command.params.append(
            click.Option(
                [declaration],
                type=type(field.default),
                default=field.default,
                envvar=variable(field),
                help=field.metadata["help"],
                show_default=True,
                show_envvar=True,
            )
        )
    command.main(prog_name="pooling serve")


if __name__ == "__main__":
    main()
