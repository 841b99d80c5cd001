"""Options of every command that calls a server: address, deadline, TLS and token."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import grpc

from pooling_client import PoolingClient

TOKEN_VARIABLE = "POOLING_TOKEN"
_PEM = click.Path(dir_okay=False, path_type=Path)

_OPTIONS = (
    click.option(
        "--target",
        default="127.0.0.1:50051",
        show_default=True,
        envvar="POOLING_TARGET",
        show_envvar=True,
        help="Address of the server: HOST:PORT or unix:/PATH.",
    ),
    click.option(
        "--timeout", default=30.0, show_default=True, help="Deadline of a call, in seconds."
    ),
)
SECURITY_OPTIONS = (
    click.option(
        "--tls", is_flag=True, help="Use TLS, with the public authorities that gRPC knows."
    ),
    click.option(
        "--tls-ca", type=_PEM, help="PEM file with the server's authority; implies --tls."
    ),
    click.option(
        "--tls-certificate",
        type=_PEM,
        help="PEM file with the certificate of this client, for mutual TLS; implies --tls.",
    ),
    click.option("--tls-key", type=_PEM, help="PEM file with the key of that certificate."),
    click.option(
        "--server-name", help="Name in the server's certificate, if it is not that of the target."
    ),
    click.option(
        "--token-file",
        type=_PEM,
        help=f"File with the bearer token.  [default: the token in {TOKEN_VARIABLE}, if set]",
    ),
)


def remote_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a connection; the command receives `target` and `connect`.

    Args:
        command: a function with the parameters `target`, text, and `connect`, a function that
            returns a client for that target.
    """

    @wraps(command)
    def connected(
        target: str,
        timeout: float,
        tls: bool,
        tls_ca: Path | None,
        tls_certificate: Path | None,
        tls_key: Path | None,
        server_name: str | None,
        token_file: Path | None,
        **options: Any,
    ) -> None:
        if timeout <= 0:
            raise click.UsageError(f"--timeout is {timeout}; it must be greater than 0 seconds")
        files = tls_files(tls, tls_ca, tls_certificate, tls_key, server_name)
        credentials = None if files is None else grpc.ssl_channel_credentials(*files)
        token = token_from(token_file)

        def connect() -> PoolingClient:
            return PoolingClient(
                target,
                timeout=timeout,
                credentials=credentials,
                token=token,
                authority=server_name,
                wait_for_ready=False,
            )

        command(target=target, connect=connect, **options)

    for option in reversed((*_OPTIONS, *SECURITY_OPTIONS)):
        connected = option(connected)
    return connected


def tls_files(
    tls: bool,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    server_name: str | None,
) -> tuple[bytes | None, bytes | None, bytes | None] | None:
    """Return authority, key and certificate as the options give them; None for plaintext."""
    if bool(certificate) != bool(key):
        missing = "--tls-key" if certificate else "--tls-certificate"
        raise click.UsageError(
            f"--tls-certificate and --tls-key must be given together; {missing} is missing"
        )
    if not (tls or ca or certificate):
        if server_name:
            raise click.UsageError("--server-name applies only with TLS; give --tls or --tls-ca")
        return None
    return (
        _pem("--tls-ca", ca),
        _pem("--tls-key", key),
        _pem("--tls-certificate", certificate),
    )


def token_from(path: Path | None) -> str | None:
    """Return the token in a file; without a file the one in the environment, if any."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    content = _content("--token-file", path) or b""
    token = content.decode(errors="replace").strip()
    if not token or len(token.split()) > 1:
        raise click.UsageError(f"--token-file {path} must hold one token, and nothing else")
    return token


def _pem(flag: str, path: Path | None) -> bytes | None:
    content = _content(flag, path)
    if content is not None and b"-----BEGIN " not in content:
        raise click.UsageError(f"{flag} {path} is not a PEM file")
    return content


def _content(flag: str, path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise click.UsageError(f"{flag} {path} cannot be read: {error.strerror}") from None
