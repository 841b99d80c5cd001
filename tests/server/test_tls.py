"""TLS and mutual TLS: accepted and rejected clients, and files that change while serving."""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from pooling_server import PoolingServer, ServerConfig
from pooling_server.security import files
from pooling_wire.v1 import pooling_pb2_grpc
from tests.support.processes import process
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S, wait_until

NAME = "pooling.test"


class Folder:
    """Files of a server: certificate, key and client authority, signed by `authority`."""

    def __init__(self, path: Path) -> None:
        self.authority, self.client_authority = trustme.CA(), trustme.CA()
        self.certificate, self.key = path / "tls.crt", path / "tls.key"
        self.client_ca = path / "ca.crt"
        self.client_authority.cert_pem.write_to_path(self.client_ca)
        self.replace(self.authority)

    def replace(self, authority: trustme.CA, **options: Any) -> None:
        """Replace certificate and key by others that an authority signed."""
        issued = authority.issue_cert(NAME, **options)
        for path, pems in (
            (self.key, [issued.private_key_pem]),
            (self.certificate, issued.cert_chain_pems),
        ):
            new = path.with_suffix(".new")
            new.write_bytes(b"".join(pem.bytes() for pem in pems))
            new.replace(path)

    @property
    def options(self) -> dict[str, str]:
        return {"tls_certificate": str(self.certificate), "tls_key": str(self.key)}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PoolingServer]]:
    monkeypatch.setattr(files, "INTERVAL_S", 0.05)
    servers = []

    def started(**options: Any) -> PoolingServer:
        config = {"listen": "127.0.0.1:0", "backend": "numpy", "warm_up": False} | options
        servers.append(PoolingServer(ServerConfig(**config)))
        servers[-1].start()
        return servers[-1]

    yield started
    for server in servers:
        assert server.stop()


def call(
    address: str,
    authority: trustme.CA,
    client: trustme.LeafCert | None = None,
    name: str = NAME,
) -> Any:
    """Call over a new connection that trusts an authority."""
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(),
        client.private_key_pem.bytes() if client else None,
        client.cert_chain_pems[0].bytes() if client else None,
    )
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.secure_channel(address, credentials, options) as channel:
        return pooling_pb2_grpc.PoolingServiceStub(channel).Forward(forward(), timeout=LIMIT_S)


def assert_no_connection(call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_that_trusts_the_authority_is_answered(folder: Folder, start: Any) -> None:
    server = start(**folder.options)
    assert list(call(server.address, folder.authority).output.shape) == [1, 1, 2, 2]


def test_wrong_authority_wrong_name_and_plaintext_are_rejected(folder: Folder, start: Any) -> None:
    server = start(**folder.options)
    assert_no_connection(call, server.address, trustme.CA())
    assert_no_connection(call, server.address, folder.authority, name="other.test")
    with grpc.insecure_channel(server.address) as channel:
        stub = pooling_pb2_grpc.PoolingServiceStub(channel)
        assert_no_connection(stub.Forward, forward(), timeout=LIMIT_S)
    call(server.address, folder.authority)


def test_an_expired_certificate_is_rejected_by_clients(folder: Folder, start: Any) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    folder.replace(folder.authority, not_after=yesterday)
    server = start(**folder.options)
    assert_no_connection(call, server.address, folder.authority)


def test_mutual_tls_needs_a_certificate_of_the_client_authority(folder: Folder, start: Any) -> None:
    server = start(**folder.options, tls_client_ca=str(folder.client_ca))
    known = folder.client_authority.issue_cert("client.test")
    call(server.address, folder.authority, known)
    assert_no_connection(call, server.address, folder.authority)
    stranger = trustme.CA().issue_cert("client.test")
    assert_no_connection(call, server.address, folder.authority, stranger)


def test_a_unix_socket_stays_without_tls(folder: Folder, start: Any, socket_path: Path) -> None:
    server = start(**folder.options, listen=f"unix:{socket_path},127.0.0.1:0")
    with grpc.insecure_channel(f"unix:{socket_path}") as channel:
        pooling_pb2_grpc.PoolingServiceStub(channel).Forward(forward(), timeout=LIMIT_S)
    call(server.addresses[1], folder.authority)


def is_answered(address: str, authority: trustme.CA) -> bool:
    try:
        call(address, authority)
    except grpc.RpcError:
        return False
    return True


def test_new_files_are_used_for_new_connections_on_every_address(
    folder: Folder, start: Any
) -> None:
    server = start(**folder.options, listen="127.0.0.1:0,localhost:0")
    credentials = grpc.ssl_channel_credentials(folder.authority.cert_pem.bytes())
    options = [("grpc.ssl_target_name_override", NAME)]
    with grpc.secure_channel(server.address, credentials, options) as channel:
        open_before = pooling_pb2_grpc.PoolingServiceStub(channel)
        open_before.Forward(forward(), timeout=LIMIT_S)
        renewed = trustme.CA()
        folder.replace(renewed)
        for address in server.addresses:
            wait_until(lambda address=address: is_answered(address, renewed))
            assert not is_answered(address, folder.authority)
        open_before.Forward(forward(), timeout=LIMIT_S)


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nnone"])
def test_unusable_new_files_leave_the_previous_ones_in_use(
    folder: Folder, start: Any, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(**folder.options)
    if content is None:
        folder.certificate.unlink()
    else:
        folder.certificate.write_bytes(content)
    wait_until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the previous content stays in use" in record.getMessage()
    call(server.address, folder.authority)
    renewed = trustme.CA()
    folder.replace(renewed)
    wait_until(lambda: is_answered(server.address, renewed))


def encrypted(key: trustme.Blob) -> bytes:
    loaded = serialization.load_pem_private_key(key.bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("key", None, "tls_key {} cannot be read: No such file or directory"),
        ("certificate", None, "tls_certificate {} cannot be read: No such file or directory"),
        ("client_ca", None, "tls_client_ca {} cannot be read: No such file or directory"),
        ("client_ca", b"none", "tls_client_ca {} has no certificate in PEM form"),
        ("key", trustme.CA().issue_cert(NAME).private_key_pem.bytes(), "key values mismatch"),
        ("key", encrypted(trustme.CA().issue_cert(NAME).private_key_pem), "unencrypted key"),
        ("certificate", b"none", "are not a certificate and its unencrypted key in PEM form"),
    ],
)
def test_unusable_files_end_the_start_with_one_line(
    folder: Folder, name: str, content: bytes | None, text: str
) -> None:
    path = getattr(folder, name)
    path.unlink() if content is None else path.write_bytes(content)
    flags = ["--tls-certificate", folder.certificate, "--tls-key", folder.key]
    flags += ["--tls-client-ca", folder.client_ca, "--listen", "127.0.0.1:0"]
    done = subprocess.run(
        [sys.executable, "-m", "pooling_server", "--backend", "numpy", *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert text.format(path) in line


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tls_certificate": "a"}, "tls_key is missing"),
        ({"tls_key": "a"}, "tls_certificate is missing"),
        ({"tls_client_ca": "a"}, "tls_client_ca needs tls_certificate and tls_key"),
        ({"listen": "0.0.0.0:1"}, "allow_plaintext"),
        ({"listen": "[::]:1"}, "allow_plaintext"),
        ({"listen": "127.0.0.1:1,192.0.2.1:1"}, "listen is '192.0.2.1:1'"),
        ({"listen": "some-host:1"}, "allow_plaintext"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ServerConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"listen": "0.0.0.0:1", "allow_plaintext": True},
        {"listen": "0.0.0.0:1", "tls_certificate": "a", "tls_key": "b"},
        {"listen": "127.0.0.2:1,[::1]:1,localhost:1,unix:/a"},
    ],
)
def test_options_that_are_safe(options: dict[str, Any]) -> None:
    ServerConfig(**options)


def test_workers_and_the_health_check_use_tls(folder: Folder) -> None:
    flags = ["--backend", "numpy", "--no-warm-up", "--listen", "127.0.0.1:0", "--workers", "2"]
    flags += ["--tls-certificate", str(folder.certificate), "--tls-key", str(folder.key)]
    authority = folder.certificate.with_name("authority.crt")
    folder.authority.cert_pem.write_to_path(authority)
    with process(*flags) as (_, banner):
        address = banner.split(" listening on ")[1].partition(",")[0]
        for _ in range(8):  # the kernel distributes connections among the workers
            call(address, folder.authority)
        check = [sys.executable, "-m", "pooling_server.healthcheck", "--target", address]
        check += ["--timeout", str(LIMIT_S), "--ca", str(authority), "--server-name", NAME]
        done = subprocess.run(check, capture_output=True, text=True, timeout=LIMIT_S)
        assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr


def test_the_health_check_of_a_container_needs_neither_token_nor_authority(
    folder: Folder, socket_path: Path
) -> None:
    tokens = folder.certificate.with_name("tokens")
    tokens.write_text(f"alice {'0' * 64}\n")
    environment = {
        "POOLING_LISTEN": f"127.0.0.1:0,unix:{socket_path}",
        "POOLING_TLS_CERTIFICATE": str(folder.certificate),
        "POOLING_TLS_KEY": str(folder.key),
        "POOLING_TOKEN_FILE": str(tokens),
    }
    with process("--backend", "numpy", "--no-warm-up", **environment):
        for service in ("", "liveness"):
            check = [sys.executable, "-m", "pooling_server.healthcheck", "--service", service]
            done = subprocess.run(
                check, env=os.environ | environment, capture_output=True, text=True, timeout=LIMIT_S
            )
            assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr
