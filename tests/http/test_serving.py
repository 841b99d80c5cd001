"""The HTTP endpoint of a server: options, TLS, tokens, origins, metrics, workers and the stop."""

from __future__ import annotations

import hashlib
import http.client
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

import pooling_engine
from pooling_server import PoolingServer, ServerConfig
from pooling_server.security import files
from pooling_server.sockets.listening import bound_socket
from pooling_wire.v1 import pooling_pb2 as pb
from tests.http.support import PROTOCOLS, SERVICE, RejectedError, Reply, send, serving
from tests.server.support import Gate, wait_for_unfinished
from tests.support.processes import process
from tests.support.requests import forward
from tests.support.waiting import LIMIT_S, wait_until

CALL = PROTOCOLS["connect-proto"].call
PROTO = {"content-type": "application/proto"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"http_listen": "0.0.0.0:1"}, "http_listen is '0.0.0.0:1', which other hosts can reach"),
        ({"http_listen": "unix:/a"}, "http_listen is 'unix:/a'; it must be one HOST:PORT"),
        ({"http_listen": "localhost:1,localhost:2"}, "localhost:2'; it must be one HOST:PORT"),
        ({"http_listen": "localhost"}, "http_listen is 'localhost'; it must be one HOST:PORT"),
        ({"http_cors_origin": "https://a.test"}, "http_cors_origin needs http_listen"),
        (
            {"http_listen": "localhost:1", "http_cors_origin": "https://a.test/b"},
            "http_cors_origin is 'https://a.test/b'",
        ),
    ],
)
def test_wrong_options(options: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        ServerConfig(**options)


def test_a_port_in_use_ends_the_start() -> None:
    with serving() as server, pytest.raises(OSError, match="Address already in use"):
        PoolingServer(ServerConfig(listen="127.0.0.1:0", http_listen=server.http_address))


def test_asyncio_recognizes_the_socket_as_tcp() -> None:
    """Otherwise it leaves Nagle's algorithm on, which adds 40 ms to calls of open connections."""
    with bound_socket("127.0.0.1:0", is_shared=False) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_a_missing_library_is_reported_in_one_line() -> None:
    code = "import sys; sys.modules['uvicorn'] = None\n"
    code += "from pooling_server.__main__ import main; main()"
    command = [sys.executable, "-c", code, "--listen", "127.0.0.1:0", "--http-listen", "[::1]:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert done.stderr == (
        "error: http_listen needs connectrpc, starlette and uvicorn (the extra 'http'): "
        "uvicorn is not installed\n"
    )


def test_a_server_is_ready_after_its_warm_up() -> None:
    config = {"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", "backend": "numpy"}
    server = PoolingServer(ServerConfig(**config))
    server.begin()
    states = [
        send(server.http_address, path, method="GET").status for path in ("/livez", "/readyz")
    ]
    server.warm_up()
    states.append(send(server.http_address, "/readyz", method="GET").status)
    assert states == [200, 503, 200]
    assert server.stop()


def answered(address: str, authority: trustme.CA, client: trustme.LeafCert | None = None) -> Reply:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return send(address, "/readyz", method="GET", context=context)


def test_tls_with_new_files_and_certificates_of_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "INTERVAL_S", 0.05)
    authority, clients = trustme.CA(), trustme.CA()
    paths = {name: tmp_path / name for name in ("tls_certificate", "tls_key", "tls_client_ca")}

    def write(authority: trustme.CA, clients: trustme.CA) -> None:
        issued = authority.issue_cert("127.0.0.1")
        clients.cert_pem.write_to_path(paths["tls_client_ca"])
        issued.private_key_pem.write_to_path(paths["tls_key"])
        issued.cert_chain_pems[0].write_to_path(paths["tls_certificate"])

    write(authority, clients)
    known = clients.issue_cert("client.test")
    with serving(**{name: str(path) for name, path in paths.items()}) as server:
        assert answered(server.http_address, authority, known).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            answered(server.http_address, authority)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            answered(server.http_address, authority, trustme.CA().issue_cert("client.test"))
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            send(server.http_address, "/readyz", method="GET")
        renewed, others = trustme.CA(), trustme.CA()
        write(renewed, others)

        def is_renewed() -> bool:
            try:
                return (
                    answered(server.http_address, renewed, others.issue_cert("a.test")).status
                    == 200
                )
            except (ssl.SSLError, ConnectionError):
                return False

        wait_until(is_renewed)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            answered(server.http_address, renewed, known)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tokens(tmp_path: Path, protocol: str) -> None:
    tokens = tmp_path / "tokens"
    lines = [f"alice {hashlib.sha256(b'a').hexdigest()}"]
    lines += [f"bob {hashlib.sha256(b'b').hexdigest()} revoked"]
    tokens.write_text("\n".join(lines))
    call = PROTOCOLS[protocol].call
    with serving(token_file=str(tokens)) as server:
        address = server.http_address
        assert call(address, forward(), authorization="Bearer a").output.data
        cases = {None: "UNAUTHENTICATED", "Bearer c": "UNAUTHENTICATED"}
        for value, code in (cases | {"Bearer b": "PERMISSION_DENIED"}).items():
            for request in (forward(), pb.GetServerInfoRequest()):
                with pytest.raises(RejectedError) as caught:
                    call(address, request, **({"authorization": value} if value else {}))
                assert caught.value.code == code
                assert caught.value.details["ErrorInfo"].metadata["option"] == "--token-file"
        assert send(address, "/readyz", method="GET").status == 200


def test_only_pages_of_named_origins_may_call() -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-any"}
    path = f"{SERVICE}/Forward"
    with serving(http_cors_origin="https://a.test, https://b.test:8443") as server:
        for origin in ("https://a.test", "https://b.test:8443"):
            reply = send(server.http_address, path, None, asked | {"origin": origin}, "OPTIONS")
            assert reply.headers["access-control-allow-origin"] == origin
            assert reply.headers["access-control-allow-headers"] == "x-any"
            data = forward().SerializeToString()
            reply = send(server.http_address, path, data, PROTO | {"origin": origin})
            assert reply.status == 200
            assert reply.headers["access-control-allow-origin"] == origin
            assert "Grpc-Status" in reply.headers["access-control-expose-headers"]
        other = asked | {"origin": "https://b.test"}
        reply = send(server.http_address, path, None, other, "OPTIONS")
        assert (reply.status, "access-control-allow-origin" in reply.headers) == (400, False)
    with serving() as server:
        reply = send(
            server.http_address, path, None, asked | {"origin": "https://a.test"}, "OPTIONS"
        )
        assert "access-control-allow-origin" not in reply.headers


def test_calls_are_counted_like_those_of_grpc() -> None:
    with serving(metrics_listen="127.0.0.1:0") as server:
        for protocol in PROTOCOLS.values():
            protocol.call(server.http_address, forward())
        with pytest.raises(RejectedError):
            CALL(server.http_address, forward(spec=None))
        headers = {"content-type": "application/grpc-web+proto"}
        reply = send(server.http_address, f"{SERVICE}/Forward", b"\0\0\0\0\5cut", headers)
        with pytest.raises(RejectedError):
            PROTOCOLS["grpc-web"].result(reply, pb.ForwardResponse)
        wait_for_unfinished(server, 0)
        numbers = server.numbers()
    counts = {labels: sum(buckets[:-1]) for labels, buckets in numbers.calls.items()}
    assert counts == {
        ("Forward", "max", "OK"): 3,
        ("Forward", "", "INVALID_ARGUMENT"): 2,
    }
    assert numbers.refusals == {"INVALID_SPEC": 1, "INVALID_TENSOR": 1}
    assert (numbers.in_flight_calls, numbers.in_flight_bytes) == (0, 0)


def test_a_stop_finishes_calls_in_flight_and_rejects_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    monkeypatch.setattr(pooling_engine, "run", gate)
    replies: list[Any] = []
    stops: list[bool] = []
    with serving() as server:
        address = server.http_address
        first = threading.Thread(target=lambda: replies.append(CALL(address, forward())))
        first.start()
        gate.wait_entered()
        stopping = threading.Thread(target=lambda: stops.append(server.stop()))
        stopping.start()
        wait_until(lambda: server.executor.is_draining)
        assert send(address, "/readyz", method="GET").status == 503
        assert send(address, "/livez", method="GET").status == 200
        with pytest.raises(RejectedError) as caught:
            CALL(address, forward())
        assert caught.value.code == "UNAVAILABLE"
        gate.open()
        first.join(LIMIT_S)
        stopping.join(LIMIT_S)
    assert (list(replies[0].output.shape), stops) == ([1, 1, 2, 2], [True])
    with pytest.raises(ConnectionError):
        send(address, "/livez", method="GET")


def test_workers_share_the_port() -> None:
    flags = ["--backend", "numpy", "--no-warm-up", "--listen", "127.0.0.1:0", "--workers", "2"]
    with process(*flags, "--http-listen", "127.0.0.1:0") as (running, banner):
        found = re.search(r", HTTP on (\S+), computing", banner)
        assert found, banner
        for _ in range(8):  # the kernel distributes connections among the workers
            assert CALL(found[1], forward()).output.data
        running.send_signal(signal.SIGTERM)
        assert running.wait(LIMIT_S) == 0
