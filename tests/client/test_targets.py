"""Targets: impossible ones are rejected by name, and gRPC's proxy is known."""

from __future__ import annotations

import re

import pytest

from pooling_client import AsyncPoolingClient, PoolingClient
from pooling_client._targets import check_target, described, is_local
from pooling_engine import InvalidSpecError, UnavailableError
from pooling_server import PoolingServer

LEGAL = [
    "127.0.0.1:50051",
    "localhost:1",
    "my-service.my_namespace.svc.cluster.local:65535",
    "[::1]:50051",
    "[fe80::1%eth0]:50051",
    "dns:///name:50051",
    "dns:name:50051",
    "dns://8.8.8.8/name:50051",
    "ipv4:127.0.0.1:1,10.0.0.2:2",
    "ipv4:///127.0.0.1:1",
    "ipv6:[::1]:1,[2001:db8::1]:2",
    "unix:/run/pooling.sock",
    "unix:///run/pooling.sock",
    "unix:relative.sock",
    "unix-abstract:pooling",
]
ILLEGAL = {
    "": "not an address",
    " 127.0.0.1:1": "white space",
    "a b:1": "white space",
    "/run/pooling.sock": "a path or web address",
    "./pooling.sock": "a path or web address",
    "https://name:50051": "a path or web address",
    "grpc://name:50051": "a path or web address",
    "name": "the port is missing",
    "name:": "the port is missing",
    ":50051": "the host is missing",
    "dns:///": "the host is missing",
    "dns:///name": "the port is missing",
    "name:grpc": "the port is 'grpc'",
    "name:0": "the port is '0'",
    "name:65536": "the port is '65536'",
    "name:-1": "the port is '-1'",
    "::1:50051": "in brackets",
    "[::1]": "the port is missing",
    "[name]:1": "'name' is not an IPv6 address",
    "a:1,b:2": "begins with ipv4:",
    "ipv4:name:1": "'name' is not an IPv4 address",
    "ipv4:127.0.0.1": "the port is missing",
    "ipv4:127.0.0.1:1,": "'' is not an IPv4 address",
    "ipv4:[::1]:1": "'::1' is not an IPv4 address",
    "ipv6:127.0.0.1:1": "'127.0.0.1' is not an IPv6 address",
    "user@name:1": "is not a host name",
    "unix:": "the path is missing",
    "unix:/" + "a" * 107: "the path has 108 bytes",
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("target", LEGAL)
def test_legal_targets(target: str) -> None:
    check_target(target)
    PoolingClient(target).close()


@pytest.mark.parametrize(("target", "fault"), ILLEGAL.items())
@pytest.mark.parametrize("class_", [PoolingClient, AsyncPoolingClient])
def test_impossible_targets_are_rejected(class_: type, target: str, fault: str) -> None:
    with pytest.raises(InvalidSpecError, match=re.escape(fault)) as caught:
        class_(target)
    assert caught.value.field == "target"
    assert repr(target) in str(caught.value)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("localhost:1", True),
        ("LOCALHOST.:1", True),
        ("a.localhost:1", True),
        ("[::1]:1", True),
        ("[::]:1", True),
        ("dns:///localhost:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("unix:/run/x", True),
        ("10.0.0.1:1", False),
        ("localhost.example.com:1", False),
        ("dns:///name:1", False),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", False),
    ],
)
def test_targets_on_this_machine(target: str, expected: bool) -> None:
    assert is_local(target) is expected


@pytest.mark.parametrize(
    ("variables", "target", "proxy"),
    [
        ({}, "name:1", ""),
        ({"http_proxy": "http://p:3128"}, "name:1", "p:3128 of http_proxy"),
        ({"http_proxy": "http://p:3128"}, "127.0.0.1:1", ""),
        ({"http_proxy": "http://me:secret@p:3128"}, "name:1", "p:3128 of http_proxy"),
        ({"https_proxy": "http://q:1", "http_proxy": "http://p:2"}, "name:1", "q:1 of https_proxy"),
        ({"grpc_proxy": "http://q:1", "https_proxy": "http://p:2"}, "name:1", "q:1 of grpc_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "a, .corp"}, "dns:///x.corp:1", ""),
        ({"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "10.1.2.3:1", ""),
        ({"http_proxy": "http://p:1", "no_proxy": "a"}, "x.corp:1", "p:1 of http_proxy"),
    ],
)
def test_messages_name_the_proxy(
    variables: dict[str, str], target: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert described(target) == (f"{target} (through the proxy {proxy})" if proxy else target)


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    address = "127.0.0.1:9"  # nothing listens on the discard port
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://{address}")
    return address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached_without_a_proxy(
    host: str, server: PoolingServer, dead_proxy: str
) -> None:
    port = server.address.rpartition(":")[2]
    with PoolingClient(f"{host}:{port}") as client:
        client.info()


def test_an_error_names_the_proxy_that_was_used(dead_proxy: str) -> None:
    with (
        PoolingClient("198.51.100.1:50051", timeout=0.5) as client,
        pytest.raises(UnavailableError, match=rf"through the proxy {dead_proxy} of grpc_proxy"),
    ):
        client.info()
