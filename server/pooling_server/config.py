"""Options of the server: one frozen table that defines the flags, environment and documentation."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from pooling_server import config_checks

GIB = 1 << 30
MIB = 1 << 20
MIN_DEVICE_MEMORY_BYTES = 64 * MIB  # the staging buffers and one call
MESSAGE_CEILING = GIB  # gRPC libraries have crashed on larger messages; streams carry more
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


def option(
    default: Any, help_: str, minimum: int | float | None = None, *, repeats: bool = False
) -> Any:
    """Return a dataclass field with its help text and its smallest legal value as metadata.

    Args:
        default: value if neither the flag nor the environment variable is given.
        help_: text for `--help` and for docs/configuration.md.
        minimum: smallest legal value; None if there is no such limit.
        repeats: if true, the flag may be repeated; the values are joined with commas.
    """
    metadata = {"help": help_, "minimum": minimum, "repeats": repeats}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Options of a server; ``max_in_flight`` is ``--max-in-flight`` and ``POOLING_MAX_IN_FLIGHT``.

    A flag overrides the environment variable, which overrides the default.

    Raises:
        ValueError: an option is invalid; the text names the option and its legal values.
    """

    listen: str = option(
        "127.0.0.1:50051",
        "Address to listen on: HOST:PORT or unix:/PATH. Port 0 selects a free port. "
        "For several addresses, repeat the flag or separate them with commas.",
        repeats=True,
    )
    http_listen: str = option(
        "",
        "Address of the HTTP endpoint, HOST:PORT, for Connect, gRPC-Web and the Open Inference "
        "Protocol (/v2). Empty: none.",
    )
    http_cors_origin: str = option(
        "",
        "Origin whose web pages may call the HTTP endpoint, such as https://example.org, or * for "
        "all. For several origins, repeat the flag or separate them with commas. Empty: none.",
        repeats=True,
    )
    http_timeout_s: float = option(
        300.0,
        "Maximum time of a call over HTTP, in seconds, from the arrival of its message until its "
        "result is computed. A request may name a shorter one. 0 means unlimited.",
        0,
    )
    socket_mode: str = option(
        "600",
        "File mode of Unix sockets (octal). A client needs write permission to connect.",
    )
    tls_certificate: str = option(
        "",
        "PEM file with the certificate of the server, followed by intermediate certificates. "
        "HOST:PORT addresses then use TLS. Files are read again when they change.",
    )
    tls_key: str = option("", "PEM file with the private key of the certificate, not encrypted.")
    tls_client_ca: str = option(
        "",
        "PEM file with the authorities that sign certificates of clients. "
        "Clients then need a certificate (mutual TLS).",
    )
    token_file: str = option(
        "",
        "File of bearer tokens: one line per token with a name, the SHA-256 hash of the token, and "
        "optional rates. Clients then need a token. The file is read again when it changes.",
    )
    allow_plaintext: bool = option(
        False,
        "Allow connections without TLS on addresses that other hosts can reach, for example "
        "behind a proxy that ends TLS.",
    )
    backend: str = option(
        "auto",
        'Compute backend: "cupy", "numba", "numpy", or "auto" (the first of these that loads).',
    )
    workers: int = option(
        1, "Number of server processes that share the ports. Limits apply to each of them.", 1
    )
    devices: str = option(
        "",
        "CUDA devices, for example 0,1. Starts one worker per device; each worker sees only its "
        "own device. Empty: one process, on the first CUDA device.",
    )
    threads: int = option(
        0,
        "Number of compute threads, and of calls computed at the same time, for all workers "
        "together. 0 uses the number of available CPU cores.",
        0,
    )
    max_message_bytes: int = option(
        256 * MIB, "Maximum size of a request or a reply, in bytes.", 1024
    )
    max_tensor_bytes: int = option(
        256 * MIB, "Maximum size of an input or result tensor, in bytes.", 1024
    )
    max_taps: int = option(
        1 << 36,
        "Maximum work per call: number of output elements times the sum of the window sizes (taps) "
        "along the spatial axes.",
        1,
    )
    arena_bytes: int = option(
        256 * MIB,
        "Maximum bytes of idle result buffers, which later calls reuse. 0 disables reuse.",
        0,
    )
    device_memory_bytes: int = option(
        0, "GPU memory limit per process, in bytes. 0 means unlimited.", 0
    )
    device_watch_s: float = option(
        5.0,
        "Interval of GPU health probes, in seconds. A GPU that does not answer within six "
        "intervals is considered lost. 0 disables probing.",
        0,
    )
    shared_memory_bytes: int = option(
        GIB,
        "Maximum shared memory leased to clients on Unix sockets, in bytes. "
        "0 disables shared memory.",
        0,
    )
    max_in_flight: int = option(
        32, "Maximum concurrent calls. Further calls are rejected with a retry delay.", 1
    )
    max_in_flight_bytes: int = option(
        4 * GIB,
        "Maximum bytes of the requests, results and replies of all calls in flight. "
        "The calls of one connection together may use half of the bytes that other connections "
        "leave; a single call may use all of them.",
        1024,
    )
    stream_idle_s: float = option(
        300.0,
        "Maximum time in seconds until a client sends the message of a call or the next request of "
        "a stream, or reads a reply. Then the call or stream ends. 0 means unlimited.",
        0,
    )
    drain_delay_s: float = option(
        0.0,
        "After SIGTERM, keep serving for this many seconds while health reports NOT_SERVING, "
        "so that load balancers can react.",
        0,
    )
    grace_s: float = option(
        30.0, "After SIGTERM, wait at most this many seconds for calls in flight to finish.", 0
    )
    inline_calls: bool = option(
        True,
        "Answer small calls and stream items in the thread that receives them, which is faster. "
        "Otherwise a thread pool answers them, and each stream occupies two threads.",
    )
    warm_up: bool = option(True, "Compile the common kernels before health reports SERVING.")
    reflection: bool = option(True, "Enable gRPC server reflection.")
    metrics_listen: str = option(
        "",
        "Address of the Prometheus endpoint, HOST:PORT, for all workers. Empty: no metrics.",
    )
    accept_compression: bool = option(
        True,
        "Accept compressed requests. Otherwise gRPC rejects them with UNIMPLEMENTED, which "
        "protects the server from small messages that unpack to large ones.",
    )
    max_connection_streams: int = option(
        1024,
        "Maximum concurrent calls per connection. Further calls wait in the client, or gRPC "
        "rejects them with UNAVAILABLE before they start.",
        1,
    )
    max_connection_age_s: float = option(
        0.0,
        "Close connections of this age once their calls have ended, in seconds, so that clients "
        "spread over new servers. 0 means unlimited.",
        0,
    )
    max_connection_idle_s: float = option(
        600.0, "Close connections without calls after this many seconds. 0 means never.", 0
    )
    log_level: str = option(
        "warning", "Log level: debug, info, warning or error. The log is written to stderr."
    )
    log_format: str = option("text", "Format of the log: text, or json with one object per line.")

    def __post_init__(self) -> None:
        config_checks.check_minimums(self)
        config_checks.check_security(self)
        config_checks.check_http(self)
        config_checks.check_workers(self)
        config_checks.check_devices(self)
        if not re.fullmatch("0?[0-7]{3}", self.socket_mode):
            raise ValueError(
                f"socket_mode is {self.socket_mode!r}; it must be three octal digits, such as 660"
            )
        if 0 < self.device_memory_bytes < MIN_DEVICE_MEMORY_BYTES:
            raise ValueError(
                f"device_memory_bytes is {self.device_memory_bytes}; "
                f"it must be 0 or at least {MIN_DEVICE_MEMORY_BYTES}"
            )
        if self.max_message_bytes > MESSAGE_CEILING:
            raise ValueError(
                f"max_message_bytes is {self.max_message_bytes}; "
                f"it must be at most {MESSAGE_CEILING}"
            )
        if self.log_format not in LOG_FORMATS:
            raise ValueError(f"log_format is {self.log_format!r}; it must be text or json")
        if self.log_level not in LOG_LEVELS:
            raise ValueError(
                f"log_level is {self.log_level!r}; it must be debug, info, warning or error"
            )


def flag(name: str) -> str:
    """Return the command-line flag of an option."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment variable of an option."""
    return "POOLING_" + name.upper()


def markdown_table() -> str:
    """Return the option table of docs/configuration.md."""
    lines = ["| flag | environment | default | description |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(ServerConfig):
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        names = f"`{flag(field.name)}` | `{variable(field.name)}`"
        shown = f"`{default}`" if default != "" else ""
        lines.append(f"| {names} | {shown} | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"
