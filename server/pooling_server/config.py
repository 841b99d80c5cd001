"""The server's options: one frozen table; flags, environment and documentation follow it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from pooling_server.processes.devices import split_devices
from pooling_server.sockets.listening import is_unix, split_addresses

GIB = 1 << 30
MIB = 1 << 20
LEAST_DEVICE_MEMORY = 64 * MIB  # for the memory that tensors go through, and one call
MESSAGE_CEILING = GIB  # gRPC libraries have crashed on larger messages; streams carry more


def option(
    default: Any, help_: str, least: int | float | None = None, *, repeats: bool = False
) -> Any:
    """A field of `ServerConfig` with its help and its smallest legal value.

    Args:
        repeats: whether the flag may be given several times; the value is a list with commas.
    """
    metadata = {"help": help_, "least": least, "repeats": repeats}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Every option of the server. Flag ``--max-in-flight`` is ``POOLING_MAX_IN_FLIGHT``.

    A flag wins over the environment, which wins over the default.

    Raises:
        ValueError: an option is illegal; the text names it and what is legal.
    """

    listen: str = option(
        "127.0.0.1:50051",
        "HOST:PORT or unix:/PATH to listen on; port 0 takes a free one. "
        "Several: the flag again, or a list with commas.",
        repeats=True,
    )
    socket_mode: str = option(
        "600", "Permissions of Unix sockets, in octal digits: who may write may connect."
    )
    backend: str = option("auto", 'What computes: a backend\'s name, or "auto".')
    workers: int = option(
        1, "Processes that share the ports; the limits below hold for each of them.", 1
    )
    devices: str = option(
        "",
        "CUDA devices, as 0,1: one worker for each, which sees no other. "
        "Empty: one process, on CUDA's first device.",
    )
    threads: int = option(
        0,
        "Threads that compute, and calls computed at once, of all workers together; "
        "0: the cores of this process.",
        0,
    )
    max_message_bytes: int = option(256 * MIB, "Largest request or reply, in bytes.", 1024)
    max_tensor_bytes: int = option(256 * MIB, "Largest tensor, sent or asked for, in bytes.", 1024)
    max_taps: int = option(
        1 << 36, "Most taps that one call may visit: outputs times taps, axis by axis.", 1
    )
    arena_bytes: int = option(
        256 * MIB, "Idle memory kept for results to come, in bytes; 0 keeps nothing.", 0
    )
    device_memory_bytes: int = option(
        0, "Most memory taken of a CUDA device, in bytes; 0: as much as there is.", 0
    )
    device_watch_s: float = option(
        5.0,
        "Seconds between questions to a CUDA device whether it still answers; "
        "one that takes six times as long to answer is lost. 0: no questions.",
        0,
    )
    shared_memory_bytes: int = option(
        GIB, "Most memory leased to callers over Unix sockets, in bytes; 0 leases none.", 0
    )
    max_in_flight: int = option(32, "Most calls in flight; one more is told to retry.", 1)
    stream_idle_s: float = option(
        300.0,
        "Seconds that a stream may wait for its caller, to send or to take; then it ends. 0: any.",
        0,
    )
    drain_delay_s: float = option(
        0.0, "On SIGTERM, seconds to go on answering as NOT_SERVING, for balancers to see it.", 0
    )
    grace_s: float = option(30.0, "On SIGTERM, seconds to let calls in flight finish.", 0)
    warm_up: bool = option(
        True, "Whether to compile the common kernels before health says SERVING."
    )
    reflection: bool = option(True, "Whether to describe the service to clients that ask.")
    log_level: str = option("warning", "debug, info, warning or error; the log is on stderr.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), field.metadata["least"]
            if least is not None and value < least:
                raise ValueError(f"{field.name} is {value}; it must be at least {least}")
        addresses, devices = split_addresses(self.listen), split_devices(self.devices)
        if max(self.workers, len(devices)) > 1 and all(map(is_unix, addresses)):
            name = "devices" if devices else "workers"
            raise ValueError(
                f"{name} is {getattr(self, name)}, but a Unix socket cannot be shared; "
                f"it must be {'one' if devices else 1}, or listen name a HOST:PORT too"
            )
        if devices and self.workers > 1:
            raise ValueError(
                f"devices is {self.devices!r} and workers is {self.workers}; "
                "each device has one worker: leave workers out"
            )
        if devices and self.backend not in ("auto", "cupy"):
            raise ValueError(
                f"devices is {self.devices!r} and backend is {self.backend!r}; "
                'on CUDA devices it must be "cupy", or left out'
            )
        if not re.fullmatch("0?[0-7]{3}", self.socket_mode):
            raise ValueError(
                f"socket_mode is {self.socket_mode!r}; it must be three octal digits, as 660"
            )
        if 0 < self.device_memory_bytes < LEAST_DEVICE_MEMORY:
            raise ValueError(
                f"device_memory_bytes is {self.device_memory_bytes}; "
                f"it must be 0, or at least {LEAST_DEVICE_MEMORY}"
            )
        if self.max_message_bytes > MESSAGE_CEILING:
            raise ValueError(
                f"max_message_bytes is {self.max_message_bytes}; "
                f"it must be at most {MESSAGE_CEILING}"
            )
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ValueError(
                f"log_level is {self.log_level!r}; it must be debug, info, warning or error"
            )


def flag(name: str) -> str:
    """The command-line flag of an option."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment variable of an option."""
    return "POOLING_" + name.upper()


def markdown_table() -> str:
    """The options as the table in docs/configuration.md."""
    lines = ["| flag | environment | default | what |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(ServerConfig):
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        names = f"`{flag(field.name)}` | `{variable(field.name)}`"
        shown = f"`{default}`" if default != "" else ""
        lines.append(f"| {names} | {shown} | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"
