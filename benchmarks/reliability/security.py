"""Certificates and tokens: what is accepted, and how the rest is rejected."""

from __future__ import annotations

import datetime
import hashlib
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import trustme

from benchmarks.reliability.load import CALLS, SMALL, SPEC
from benchmarks.reliability.serving import LIMIT_S, Row, row, serving, wait_until
from pooling_client import PoolingClient

NAME = "pooling.test"


def security() -> list[Row]:
    """Try every kind of certificate and token."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [_row("certificates", certificates(Path(folder)))]
        return [*rows, _row("tokens", tokens(Path(folder)))]


def _row(what: str, outcomes: dict[str, tuple[str, str]]) -> Row:
    wrong = {name: pair for name, pair in outcomes.items() if pair[0] != pair[1]}
    text = f"{len(outcomes) - len(wrong)} of {len(outcomes)} as required: " + "; ".join(
        f"{name}: {outcome}" for name, (outcome, _) in outcomes.items()
    )
    seen = {name: outcome for name, (outcome, _) in outcomes.items()}
    return row("security", what, "rejected correctly", not wrong, text, outcomes=seen)


def certificates(folder: Path) -> dict[str, tuple[str, str]]:
    """Return outcome and expectation of each certificate."""
    authority, other = trustme.CA(), trustme.CA()
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    flags = ("--tls-certificate", str(folder / "tls.crt"), "--tls-key", str(folder / "tls.key"))
    write_certificate(folder, authority.issue_cert(NAME, not_after=yesterday))
    with serving(*flags) as server:
        outcomes = {"expired": (tls_outcome(server.address, authority), "UnavailableError")}
    write_certificate(folder, authority.issue_cert(NAME))
    with serving(*flags) as server:
        outcomes["right"] = tls_outcome(server.address, authority), "right"
        outcomes["wrong authority"] = tls_outcome(server.address, other), "UnavailableError"
        name = "other.test"
        outcomes["wrong host"] = tls_outcome(server.address, authority, name), "UnavailableError"
        outcomes["no TLS"] = _call(server.address), "UnavailableError"
        with _client(server.address, authority) as before:
            before.info()
            write_certificate(folder, other.issue_cert(NAME))
            wait_until(lambda: tls_outcome(server.address, other) == "right", "it is not replaced")
            outcomes["replaced while serving, new"] = tls_outcome(server.address, other), "right"
            open_before = "right" if before.info().version else "wrong"
            outcomes["replaced while serving, open connection"] = open_before, "right"
    return outcomes


def write_certificate(folder: Path, issued: trustme.LeafCert) -> None:
    """Write tls.key and tls.crt, each at once."""
    for path, pems in (
        (folder / "tls.key", [issued.private_key_pem]),
        (folder / "tls.crt", issued.cert_chain_pems),
    ):
        new = path.with_suffix(".new")
        new.write_bytes(b"".join(pem.bytes() for pem in pems))
        new.replace(path)


def _client(address: str, authority: trustme.CA, name: str = NAME) -> PoolingClient:
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    return PoolingClient(
        address, credentials=credentials, authority=name, wait_for_ready=False, timeout=LIMIT_S
    )


def tls_outcome(address: str, authority: trustme.CA, name: str = NAME) -> str:
    """Return "right", or the name of the error of a call on a new connection with TLS."""
    with _client(address, authority, name) as client:
        return _outcome(client)


def _call(address: str, **options: Any) -> str:
    with PoolingClient(address, wait_for_ready=False, timeout=LIMIT_S, **options) as client:
        return _outcome(client)


def _outcome(client: PoolingClient, timeout: float | None = None) -> str:
    try:
        return "right" if client.forward(SMALL, SPEC, timeout=timeout).output.any() else "wrong"
    except Exception as error:
        return type(error).__name__


def tokens(folder: Path) -> dict[str, tuple[str, str]]:
    """Return outcome and expectation of each token."""
    file = folder / "tokens"
    lines = [f"{name} {hashlib.sha256(name.encode()).hexdigest()}" for name in ("good", "gone")]
    slow = f"slow {hashlib.sha256(b'slow').hexdigest()} calls_per_s=1"
    file.write_text("\n".join([*lines, slow]))
    with serving("--token-file", str(file)) as server:
        address = server.address
        outcomes = {
            "right": (_call(address, token="good"), "right"),
            "missing": (_call(address), "UnauthenticatedError"),
            "wrong": (_call(address, token="bad"), "UnauthenticatedError"),
        }
        with PoolingClient(address, token="slow", shared_streams=False) as client:
            client.forward(SMALL, SPEC)
            outcomes["over its rate"] = _outcome(client, timeout=0.3), "OverloadedError"
        with PoolingClient(address, token="gone") as client:
            outcome = _revoked(client, file, [lines[0], slow])
            outcomes["revoked during a stream"] = outcome, "UnauthenticatedError"
        outcomes["right after that"] = _call(address, token="good"), "right"
    return outcomes


def _revoked(client: PoolingClient, file: Path, lines: list[str]) -> str:
    """Remove a token while its stream is open; return the error that ends the stream."""
    until = time.monotonic() + LIMIT_S

    def calls() -> Iterator[Any]:
        for _ in count():
            yield CALLS["small"]

    results = client.forward_many(calls())
    next(results)
    file.write_text("\n".join(lines))
    try:
        for _ in results:
            if time.monotonic() > until:
                return "not ended"
    except Exception as error:
        return type(error).__name__
    return "ended"
