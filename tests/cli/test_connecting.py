"""TLS and tokens of the commands that call a server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme

from pooling_server import PoolingServer, ServerConfig
from tests.cli.support import pooling
from tests.support.waiting import LIMIT_S


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.ones((1, 1, 4, 4), np.float32))
    return tmp_path


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[str]:
    """Start a server with mutual TLS and the token "right"; yield its address."""
    authority, clients = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("pooling.test")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    (tmp_path / "server.crt").write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
    clients.cert_pem.write_to_path(tmp_path / "clients.crt")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "hashes").write_text(f"alice {hashlib.sha256(b'right').hexdigest()}\n")
    config = ServerConfig(
        listen="127.0.0.1:0",
        warm_up=False,
        tls_certificate=str(tmp_path / "server.crt"),
        tls_key=str(tmp_path / "server.key"),
        tls_client_ca=str(tmp_path / "clients.crt"),
        token_file=str(tmp_path / "hashes"),
    )
    server = PoolingServer(config)
    server.start()
    mine = clients.issue_cert("client.test")
    mine.private_key_pem.write_to_path(tmp_path / "client.key")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "client.crt")
    yield server.address
    server.stop()


TLS = ("--tls-ca", "ca.crt", "--tls-certificate", "client.crt", "--tls-key", "client.key")
NAMED = ("--server-name", "pooling.test")


def test_tls_and_token(folder: Path, secured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to_server = ("--target", secured, "--timeout", str(LIMIT_S), *TLS, *NAMED)
    (folder / "token").write_text("right\n")
    done = pooling("info", *to_server, "--token-file", "token", cwd=folder)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("POOLING_TOKEN", "right")
    done = pooling("forward", "x.npy", "y.npy", "--kernel", "2", *to_server, cwd=folder)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("POOLING_TOKEN", "wrong")
    done = pooling("info", *to_server, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "token" in done.stderr
    assert "wrong" not in done.stderr


def test_load_tests_use_tls_and_token(folder: Path, secured: str) -> None:
    call = "shape: [1, 1, 4, 4], spec: {mode: max, kernel: 2}"
    kinds = [f"- {{name: {n}, transport: {n}, {call}}}\n" for n in ("unary", "stream", "many")]
    (folder / "mix.yaml").write_text("title: mix\nkinds:\n" + "".join(kinds))
    flags = ("--scenario", "mix.yaml", "--duration", "0.3", "--verify", "1", *TLS, *NAMED)
    (folder / "token").write_text("right\n")
    done = pooling("loadtest", secured, *flags, "--token-file", "token", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "replies, 0 wrong" in done.stdout
    assert "errors" not in done.stdout
    (folder / "token").write_text("wrong\n")
    done = pooling("loadtest", secured, *flags, "--token-file", "token", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "token" in done.stderr
    assert "wrong" not in done.stderr


def test_a_failed_handshake_is_one_line(folder: Path, server: PoolingServer) -> None:
    done = pooling("info", "--target", server.address, "--tls", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the TLS handshake with {server.address} failed")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--tls-certificate", "x.npy"), "--tls-key is missing"),
        (("--tls-key", "x.npy"), "--tls-certificate is missing"),
        (("--tls-ca", "none"), "--tls-ca none cannot be read: No such file or directory"),
        (("--tls-ca", "x.npy"), "--tls-ca x.npy is not a PEM file"),
        (("--token-file", "none"), "--token-file none cannot be read: No such file or directory"),
        (("--token-file", "empty"), "--token-file empty must hold one token"),
        (("--token-file", "two"), "--token-file two must hold one token"),
        (("--server-name", "a"), "--server-name applies only with TLS"),
    ],
)
def test_misuse_of_tls_and_token_options(folder: Path, options: tuple[str, ...], text: str) -> None:
    (folder / "empty").touch()
    (folder / "two").write_text("one two")
    done = pooling("info", *options, cwd=folder)
    assert done.returncode == 2
    assert text in done.stderr
